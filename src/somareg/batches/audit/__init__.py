"""The offsets of an archive of scenes, or of a data set of pairs: over time, with steps, outliers and a report."""
