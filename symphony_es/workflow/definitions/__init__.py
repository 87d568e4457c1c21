"""Definitions: what is to be done, as immutable data."""
