"""One connection's life in one process."""
