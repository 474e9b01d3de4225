"""The benchmark: fixed border-free samples, peers behind one interface, one table."""
