"""Errors in the words of the command line: what the library advises a program to call, as the command or option that does it.

Where the command line has no such thing, the advice is for the application, and says so.
"""

from __future__ import annotations

import re

from symphony_es.errors import (
    BackupDamagedError,
    DecodeError,
    EntityDamagedError,
    ExportDamagedError,
    LogDamagedError,
    SnapshotDamagedError,
)

__all__ = ["OF_DAMAGE", "in_words_of_the_command_line"]

OF_DAMAGE = (
    BackupDamagedError,
    DecodeError,
    EntityDamagedError,
    ExportDamagedError,
    LogDamagedError,
    SnapshotDamagedError,
)
"""Errors which say that stored bytes are not what was written."""

_AROUND = (
    "or read around it with --skip-damaged (of the commands that only read), and have the application go on without it: "
    "setup(skip_damaged=True)"
)
_INSTEAD: tuple[tuple[str, str], ...] = (
    (r"`await symphony\.list_checkpoints\(\)` lists those there are", "`symphony-es checkpoints` lists those there are"),
    (
        r"with symphony\.history\('([^']*)'\), its state with symphony\.at\((\d+)\)",
        r"with `symphony-es history \1`, its state with `symphony-es show \1 --at \2`",
    ),
    (r"await symphony\.history\('([^']*)'\) gives them", r"`symphony-es history \1` gives them"),
    (r"read the log with read_only=True", "commands that only read work there"),
    (r"or read beside it with Symphony\([^)]*, read_only=True\)", "commands that only read work beside it"),
    (r"or pass overwrite=True", "or give --overwrite"),
    (r"with allow_shared_directory=True", "with --allow-shared-directory"),
    (r"or pass force_network_fs=True", "or have the application open it with force_network_fs=True"),
    (r"or open with ignore_anchor=True", "or have the application open it with setup(ignore_anchor=True)"),
    (r"or without it: setup\(skip_damaged=True\)", _AROUND),
    (r"or go on without it with setup\(skip_damaged=True\)", _AROUND),
    (
        r"open it with setup\(skip_damaged=True\), repair what that marks, and fork it",
        "have the application open it with setup(skip_damaged=True) and repair what that marks, and take it over with `symphony-es fork`",
    ),
    (r"`await symphony\.entities\.repair\(", "in the application, `await symphony.entities.repair("),
    (r"resume\(run\) at once", "`symphony-es resume RUN` at once"),
    (r"recover\(\) tries it again with other code", "a start of the application with other code tries it again"),
    (r": resume\(run\) goes on with it", ": `symphony-es resume RUN` goes on with it"),
    (r"resume it with a new one: resume\(run, deadline_s=\.\.\.\)", "in the application, resume(run, deadline_s=...) gives it a new one"),
    (r"; give 'Type:id', or \('Type', 'id'\)", "; write Type:id"),
    (r"\(await handle\.wait\('paused'\)\)", "(they come to their end first)"),
)


def in_words_of_the_command_line(error: BaseException) -> str:
    """Return the message of an error, with the commands that do what it advises."""
    text = str(error)
    for pattern, instead in _INSTEAD:
        text = re.sub(pattern, instead, text)
    return text
