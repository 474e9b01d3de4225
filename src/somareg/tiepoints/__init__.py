"""Tie points of other programs: their formats, how a search uses them, and the estimate that they alone give."""
