"""Audit of an archive of scenes or a data set of pairs: offsets over time, steps, outliers, and a report."""
