"""Channels 1.x, with daphne and its workers."""
