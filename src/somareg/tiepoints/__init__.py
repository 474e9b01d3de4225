"""Tie points of other programs: formats, use as starts of a search, and estimates from them alone."""
