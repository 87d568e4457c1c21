"""Runs: one execution of a definition each, as entities, and what steps see of them."""
