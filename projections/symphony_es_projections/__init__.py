"""Read models fed by events: each can be dropped and rebuilt at any time."""
