"""The command line: one module per command; heavy imports live inside the commands."""
