"""Compound scaling: search the (α, β, γ) that score best at φ = 1, and train the network sizes that they give."""
