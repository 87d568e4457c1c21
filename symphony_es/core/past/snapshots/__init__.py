"""Snapshot files: their format, writing, reading, merging, keeping, and when one is due."""
