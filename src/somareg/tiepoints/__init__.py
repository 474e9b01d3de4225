"""Tie points that come from elsewhere or go there: their formats, what they tell of a pair, and its estimate."""
