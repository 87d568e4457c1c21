"""The kinds of steps; each is a class that registers itself."""
