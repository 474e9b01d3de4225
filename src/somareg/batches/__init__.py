"""Many pairs and many rasters: lists of pairs, a manifest for resuming, one estimate applied to many rasters."""
