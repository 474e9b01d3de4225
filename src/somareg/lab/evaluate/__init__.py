"""The honest benchmark: fixed border-free samples, peers behind one call, one table."""
