"""Compound scaling as an experiment: which (α, β, γ) is best at φ = 1, and what the sizes that it gives are worth."""
