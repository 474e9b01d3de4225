"""The running process: version, threads, memory and clock. This room knows nothing of images."""
