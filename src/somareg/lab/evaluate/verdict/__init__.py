"""What the verdict is worth: pairs of known truth, situations, unrelated pairs; the fit and its tables."""
