"""Pages for people: what a run did, how well, and what its map looks like."""
