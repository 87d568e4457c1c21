"""From states to live objects, whole or in part."""
