"""The process that runs: its version, threads, memory and clock. This room knows nothing of images."""
