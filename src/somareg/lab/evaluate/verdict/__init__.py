"""Evaluation of the verdict: pairs with known truth, artefacts, unrelated pairs; the fit and its tables."""
