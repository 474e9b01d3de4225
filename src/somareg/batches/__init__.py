"""Many pairs and many rasters: lists of pairs, a manifest that outlives the run, one estimate applied to many."""
