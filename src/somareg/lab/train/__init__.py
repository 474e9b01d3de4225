"""Training of SOMA's network."""
