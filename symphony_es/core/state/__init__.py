"""State: tracking, capture, transactions, snapshots, checkpoints and restoring."""
