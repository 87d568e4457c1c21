"""The command line: a log asked from a terminal, without the application's code. Everything is imported when a command needs it."""
