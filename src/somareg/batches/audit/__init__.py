"""How an archive of scenes, or a data set of pairs, lies: offsets over time, steps, outliers, and a report of them."""
