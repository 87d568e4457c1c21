"""Where the command line begins: before anything else of it is imported, so that who interrupts that is shown no traceback either."""

from __future__ import annotations

__all__ = ["INTERRUPTED", "main"]

INTERRUPTED = 130


def main() -> int:
    """Run the command that the process was given; return the exit code."""
    try:
        from symphony_es.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
