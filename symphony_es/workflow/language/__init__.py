"""The language of templates and conditions: pure, allow-listed, bounded."""
