"""Many independent jobs, here or on a Dask cluster: one protocol, two runners, the same figures."""
