"""How moments are written: the one place that reads a position, a time or the name of a checkpoint, for the API and the command line.

Nothing here asks a log; `moments.resolve` does, and refuses what means two things in it. docs/time-travel.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import TypeAlias

from symphony_es.errors import ConfigurationError, InvalidIdentifierError
from symphony_es.events.identifiers import id_of_text
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

__all__ = [
    "CHECKPOINT_PREFIX",
    "LATEST",
    "TIMES_ARE",
    "Moment",
    "ReadMoment",
    "Time",
    "begins_with_a_date",
    "check_order",
    "is_head",
    "looks_like_a_moment",
    "read_age_or_time",
    "read_checkpoint",
    "read_moment",
    "read_time",
]  # fmt: skip

Moment: TypeAlias = int | datetime | str
"""A position, a point in time with a time zone, or a text.

`"#42"` is a position, `"@2026-11-27"`, `"@2026-11-27T17:22:42+01:00"` and `"@2h"` (two hours ago) are times (UTC where no zone is named; a
date is its beginning), `"id:ckpt_…"` and `"name:…"` are checkpoints. Without a prefix, digits are a position, an ISO date or time and
`2h` are times, `"latest"` is the head, and any other text is the id or name of a checkpoint. What means two things is refused.
"""

Time: TypeAlias = datetime | str
"""A point in time: a datetime with a time zone, or its text, as for `Moment`."""

CHECKPOINT_PREFIX = "ckpt_"
"""How all ids of checkpoints begin."""

LATEST = "latest"
TIMES_ARE = "a time is 2026-11-27, 2026-11-27T17:22:42+01:00 (UTC where no zone is named), or how long ago: 90s, 30m, 2h, 7d, 4w"
"""For messages."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)", re.ASCII)
_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.,+Z-]*)?\Z", re.ASCII)
_DAY = re.compile(r"@?(\d{4}-\d\d-\d\d)\Z", re.ASCII)
_AGE = re.compile(r"(\d{1,9})([smhdw])\Z", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MOST_DIGITS = 640
"""Python reads so many, whatever its limit; of a longer number the first ones are read: no log has such a position, and messages cut it."""


@dataclass(frozen=True, slots=True)
class ReadMoment:
    """What a moment can mean, before a log is asked.

    Attributes:
        place: a position, a time or `LATEST`; None where only a checkpoint can be meant.
        checkpoint_id, checkpoint_name: how the checkpoint is called that it can mean.
    """

    place: int | datetime | str | None = None
    checkpoint_id: str | None = None
    checkpoint_name: str | None = None


def read_moment(moment: Moment) -> ReadMoment:
    """Return what a moment can mean by itself.

    Raises:
        ConfigurationError: it is no moment, or what stands behind its prefix is not of that kind.
    """
    if isinstance(moment, datetime) or type(moment) is int:  # not a bool
        return ReadMoment(place=moment)
    if not isinstance(moment, str):
        raise ConfigurationError(
            f"a moment is a position, a datetime or its ISO text, or the id or name of a checkpoint, not {shown(moment)}"
        )
    kind, rest = moment[:1], moment[1:]
    if kind == "#":
        if rest != LATEST and not _is_number(rest):
            raise ConfigurationError(f"{shown(moment)} is no position: '#42' is one, '#latest' is the head; {_named(moment)}")
        return ReadMoment(place=rest if rest == LATEST else _number(rest))
    if kind == "@":
        time = _age_or_iso(rest)
        if time is None:
            raise ConfigurationError(f"{shown(moment)} is no time: {TIMES_ARE}; {_named(moment)}")
        return ReadMoment(place=_passed(time))
    checkpoint = read_checkpoint(moment)
    return checkpoint if _kind_of(moment) is not None else replace(checkpoint, place=_bare_place(moment))


def read_checkpoint(checkpoint: str) -> ReadMoment:
    """Return how a checkpoint is called, where nothing but one can be meant: by its id, its name, or either.

    Raises:
        ConfigurationError: it is no text, or says that it is a position or a time.
    """
    if not isinstance(checkpoint, str):
        raise ConfigurationError(
            f"a checkpoint is given by its id or its name, not by {type(checkpoint).__name__} {shown(checkpoint)}"
            + ("; give its ['id']" if isinstance(checkpoint, Mapping) else "")
        )
    if checkpoint.startswith(("#", "@")):
        what = "position" if checkpoint[0] == "#" else "time"
        raise ConfigurationError(f"{shown(checkpoint)} is a {what}, and a checkpoint is given by its id or name; {_named(checkpoint)}")
    kind = _kind_of(checkpoint)
    if kind is None:
        return ReadMoment(checkpoint_id=checkpoint if _is_id(checkpoint) else None, checkpoint_name=checkpoint)
    rest = checkpoint.removeprefix(kind)
    if not rest:
        raise ConfigurationError(f"{shown(checkpoint)} names no checkpoint: write its {kind[:-1]} behind it")
    return ReadMoment(checkpoint_id=rest) if kind == "id:" else ReadMoment(checkpoint_name=rest)


def read_age_or_time(text: str) -> timedelta | datetime:
    """Return the time that a text says, or how long ago it is.

    Raises:
        ConfigurationError: it is no time.
    """
    time = _age_or_iso(text[1:]) if text.startswith("@") else _age_or_date(text)
    if time is None:
        raise ConfigurationError(f"{shown(text)} is no time: {TIMES_ARE}")
    return time


def read_time(time: Time) -> datetime:
    """Return a point in time as a datetime with a time zone.

    Raises:
        ConfigurationError: it is none, or a datetime without a time zone.
    """
    if isinstance(time, str):
        return _passed(read_age_or_time(time))
    if not isinstance(time, datetime):
        raise ConfigurationError(f"a time is a datetime with a time zone, or its ISO text, not {shown(time)}")
    if time.utcoffset() is None:
        raise ConfigurationError(f"{shown(time)} has no time zone: give one, for example datetime.now(UTC)")
    return time


def check_order(since: object, until: object) -> None:
    """Refuse two ends as they were given between which nothing can lie: a day and itself, or a later time and an earlier one.

    Raises:
        ConfigurationError: nothing can lie between them.
    """
    days = [match[1] for each in (since, until) if isinstance(each, str) and (match := _DAY.match(each)) is not None]
    if len(days) == 2 and days[0] == days[1] and isinstance(day := _age_or_iso(days[0]), datetime):
        following = f"{day + timedelta(days=1):%Y-%m-%d}" if day.year < MAXYEAR else f"{days[0]}T23:59:59"
        raise ConfigurationError(
            f"since {days[0]} and until {days[1]} is no time at all: a day is its beginning; until {following} has all of it"
        )
    if not (isinstance(since, datetime) and isinstance(until, datetime)) or (since.tzinfo is None) != (until.tzinfo is None):
        return  # one without a zone is refused where it is read
    if since > until:
        raise ConfigurationError(f"nothing is since {since.isoformat()} and until {until.isoformat()}, which is earlier")


def looks_like_a_moment(name: str) -> bool:
    """Return whether a checkpoint of this name could not be meant by its name alone."""
    if name.startswith(("#", "@")) or _kind_of(name) is not None or _LIKE_A_TIME.match(name) is not None:
        return True
    return _is_id(name) or _bare_place(name) is not None


def begins_with_a_date(text: str) -> bool:
    """Return whether a text may have been meant as a time, also where it is none."""
    return _DATE.match(text) is not None


def is_head(moment: Moment | None) -> bool:
    """Return whether the end of the log is asked for, of which what has been changed so far is a part."""
    return moment is None or (isinstance(moment, str) and moment in (LATEST, f"#{LATEST}"))


def _kind_of(text: str) -> str | None:
    return next((kind for kind in ("id:", "name:") if text.startswith(kind)), None)


def _is_id(text: str) -> bool:
    try:
        id_of_text(text.removeprefix(CHECKPOINT_PREFIX))
    except InvalidIdentifierError:
        return False
    return text.startswith(CHECKPOINT_PREFIX)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    return int(text.lstrip("0")[:_MOST_DIGITS] or "0")


def _bare_place(text: str) -> int | datetime | str | None:
    """Return what a text without a prefix says beside the name of a checkpoint."""
    if text == LATEST:
        return text
    if _is_number(text):
        return _number(text)
    time = _age_or_date(text)
    return None if time is None else _passed(time)


def _age_or_date(text: str) -> timedelta | datetime | None:
    """Read a text without a prefix: it begins with a date, in full, or is an age."""
    return _age_or_iso(text) if _DATE.match(text) is not None or _AGE.match(text) is not None else None


def _age_or_iso(text: str) -> timedelta | datetime | None:
    ago = _AGE.match(text)
    try:
        if ago is not None:
            return timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        read = datetime.fromisoformat(text)
    except OverflowError:
        return timedelta.max
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _passed(time: timedelta | datetime) -> datetime:
    """Return a time itself, or so long ago; the first one that there is where it is longer ago."""
    if isinstance(time, datetime):
        return time
    try:
        return datetime.now(UTC) - time
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _named(text: str) -> str:
    return f"a checkpoint of this name is {shown(f'name:{text}')}"
