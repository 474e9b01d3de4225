"""Many independent jobs, in this process or on a Dask cluster: one protocol, two runners, the same results."""
