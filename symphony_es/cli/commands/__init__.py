"""The commands, by what they are about. Each module registers its own; nothing heavy is imported before one runs."""
