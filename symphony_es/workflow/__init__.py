"""Definitions, runs and the engine that executes them."""
