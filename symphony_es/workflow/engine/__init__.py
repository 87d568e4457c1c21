"""The engine: drives runs through their steps, and everything that can be asked of a run."""
