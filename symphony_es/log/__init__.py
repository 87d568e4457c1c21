"""The ordered, append-only list of all events."""
