"""The pure layer: values, changes, events, their encoding and their fold. No I/O."""
