"""Which runs a caller means: filters as they are written, and as the list of runs takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeAlias

from symphony_es.core.past.moment_texts import TIMES_ARE, check_order, read_age_or_time
from symphony_es.errors import ConfigurationError, near_misses
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus
from symphony_es_projections.run_list import RunQuery
from symphony_es_projections.run_rows import microseconds, pair_of

__all__ = ["Named", "RunFilter", "StatusLike", "TimeLike", "age_arguments", "moment_of_age", "prune_filter", "read_statuses", "read_time"]

StatusLike: TypeAlias = WorkflowStatus | str | Collection[WorkflowStatus | str] | None
"""A status, its text, or several of them."""

TimeLike: TypeAlias = datetime | str | timedelta | None
"""A moment, its text as for `Symphony.at` (`"2026-11-27"`: the beginning of that day, UTC; `"2h"`: two hours ago), or how
long ago it was."""

Named: TypeAlias = Any
"""A name, what has one (a definition, the dict of one, a function under `@symphony.workflow`), or several of them."""


PRUNED_BY_DEFAULT = (WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED)

_TIMES = {"since": ">=", "until": "<=", "created_after": ">", "created_before": "<"}
_RANGES = tuple((first, last) for first in ("since", "created_after") for last in ("until", "created_before"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """All conditions together; each that is left out holds for every run. See `Workflows.list_runs`."""

    status: StatusLike = None
    name: Named = None
    definition_id: str | None = None
    parent_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    error: bool | str | type[BaseException] | None = None
    step: str | None = None
    since: TimeLike = None
    until: TimeLike = None
    created_after: TimeLike = None
    created_before: TimeLike = None

    @property
    def names(self) -> list[str]:
        """The names of definitions that are meant, sorted; none where any is."""
        if self.name is None:
            return []
        return sorted({_text("name", _name_of(each)) for each in _several(self.name)})

    def digest(self, *, newest_first: bool) -> str:
        """Return what is equal of two filters that mean the same, with the same order. An age stays one, whenever it is asked about.

        Errors are those of `query`.
        """
        ages = {name: age for name in _TIMES if isinstance(age := _read(name, getattr(self, name)), timedelta)}
        query = replace(self, **dict.fromkeys(ages)).query()
        return blake2b(repr((query.conditions, query.parameters, sorted(ages.items()), newest_first)).encode(), digest_size=4).hexdigest()

    def query(self) -> RunQuery:
        """Return the same for the list.

        Raises:
            ConfigurationError: a filter means nothing; what is misspelt is named, with near misses.
        """
        query = RunQuery()
        statuses = read_statuses(self.status)
        if statuses is not None:
            query.add(f"runs.status IN ({_marks(statuses)})", *sorted(each.value for each in statuses))
        if self.name is not None:
            names = self.names
            query.add(f"definitions.name IN ({_marks(names)})", *names)
        for field, column in (("definition_id", "definitions.definition_id"), ("parent_id", "runs.parent")):
            value = getattr(self, field)
            if value is not None:
                query.add(f"{column} = ?", _text(field, value))
        self._add_metadata(query)
        self._add_error(query)
        if self.step is not None:
            step = _text("step", self.step)
            query.add("(runs.step = ? OR (runs.step > ? AND runs.step < ?) OR runs.step LIKE ? ESCAPE '\\' OR instr(runs.unfinished, ?) OR "
                      "instr(runs.unfinished, ?) OR instr(runs.unfinished, ?))", step, f"{step}/", f"{step}0", f"%/{_like(step)}",
                      f"\n{step}\n", f"\n{step}/", f"/{step}\n")  # fmt: skip
        self._add_times(query)
        return query

    def _add_times(self, query: RunQuery) -> None:
        check_order(self.since, self.until)
        times = {name: read_time(name, getattr(self, name)) for name in _TIMES}
        for name, comparison in _TIMES.items():
            if times[name] is not None:
                query.add(f"runs.created {comparison} ?", times[name])
        for first, last in _RANGES:
            low, high = times[first], times[last]
            if low is not None and high is not None and low > high:
                raise ConfigurationError(
                    f"no run fits {first}={shown(getattr(self, first))} and {last}={shown(getattr(self, last))}, which is earlier"
                )

    def _add_metadata(self, query: RunQuery) -> None:
        if self.metadata is None:
            return
        if not isinstance(self.metadata, Mapping):
            raise ConfigurationError(f"metadata={shown(self.metadata)}: it is a dict, {{'customer': 'acme'}}; all of it has to be equal")
        for key, value in sorted(self.metadata.items(), key=lambda pair: str(pair[0])):
            pair = pair_of(_text("metadata", key), _as_a_number(value))
            path = '$."' + key.replace('"', '\\"') + '"'
            # The text is looked for first: reading the JSON of each run would cost more than all the rest.
            query.add("instr(runs.metadata, ?) AND json_extract(runs.metadata, ?) IS json_extract(?, ?)", pair, path, f"{{{pair}}}", path)

    def _add_error(self, query: RunQuery) -> None:
        error = self.error
        if isinstance(error, bool):
            query.add(f"runs.failure IS {'NOT ' if error else ''}NULL")
        elif isinstance(error, type) and issubclass(error, BaseException):
            query.add("failures.type = ?", error.__name__)
        elif error is not None:
            text = _text("error", error)
            group = "failures.type || CASE failures.step WHEN '' THEN '' ELSE ' at ' || failures.step END || ': ' || failures.message"
            like = f"%{_like(text)}%"
            query.add(
                f"(failures.type LIKE ? ESCAPE '\\' OR runs.error_message LIKE ? ESCAPE '\\' OR {group} = ?)", _like(text), like, text
            )


def read_statuses(given: StatusLike) -> frozenset[WorkflowStatus] | None:
    """Return the statuses that are meant.

    Raises:
        ConfigurationError: one does not exist; near misses are named.
    """
    if given is None:
        return None
    found = set()
    for status in _several(given):
        text = status.strip().lower() if isinstance(status, str) else ""
        if text not in set(WorkflowStatus):
            near = near_misses(text, list(WorkflowStatus))
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ConfigurationError(f"{shown(status)} is not a valid WorkflowStatus: {hint}statuses are {', '.join(WorkflowStatus)}")
        found.add(WorkflowStatus(text))
    return frozenset(found)


def _name_of(given: Any) -> Any:
    """Return the name of a definition, of the dict of one, or of what has a name; a text is one."""
    return given.get("name") if isinstance(given, Mapping) else getattr(given, "name", given)


def prune_filter(given: RunFilter) -> RunFilter:
    """Return a filter whose statuses are those that runs end with.

    Raises:
        ConfigurationError: another status is asked for, or a filter means nothing.
    """
    statuses = read_statuses(given.status)
    if statuses is not None and not statuses <= ENDED:
        others = ", ".join(sorted(each.value for each in statuses - ENDED))
        raise ConfigurationError(
            f"status={others}: only runs that have ended are pruned: {', '.join(sorted(each.value for each in ENDED))}"
        )
    wanted = replace(given, status=PRUNED_BY_DEFAULT if statuses is None else statuses)
    wanted.query()
    return wanted


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple, set, frozenset)) else [given]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}={shown(value)}: it is a text")
    return value


def _as_a_number(value: Any) -> Any:
    """Return a whole number as an int: 1 and 1.0 are equal, and the text of the first is the beginning of the second's."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 2**53 else value


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _ago(age: timedelta) -> datetime:
    """Return the moment so long ago, or the first or last one there is."""
    try:
        return datetime.now(UTC) - age
    except OverflowError:
        return (datetime.min if age > timedelta(0) else datetime.max).replace(tzinfo=UTC)


def _read(name: str, given: TimeLike) -> datetime | timedelta | None:
    """Return what is given, as a text says it.

    Raises:
        ConfigurationError: the text is no time.
    """
    if not isinstance(given, str):
        return given
    try:
        return read_age_or_time(given)
    except ConfigurationError:
        raise ConfigurationError(f"{name}={shown(given)}: {shown(given)} is no time: {TIMES_ARE}") from None


def read_time(name: str, given: TimeLike) -> int | None:
    """Return microseconds since 1970; None of what is left out.

    Raises:
        ConfigurationError: it is no time.
    """
    if given is None:
        return None
    read = _read(name, given)
    moment = _ago(read) if isinstance(read, timedelta) else read
    if not isinstance(moment, datetime):
        raise ConfigurationError(
            f"{name}={shown(given)}: it is a datetime, its ISO text ('2026-11-27T08:00'), or a timedelta (so long ago)"
        )
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name}={shown(given)} has no time zone: datetime.now(UTC), or ISO text, which is taken as UTC")
    return microseconds(moment)


def age_arguments(older_than: Any) -> dict[str, Any]:
    """Return how an age or a moment stands in a request: whoever carries it out counts an age from then.

    Errors are those of `moment_of_age`.
    """
    moment = moment_of_age(older_than, datetime.now(UTC))
    age = _read("older_than", older_than)
    if isinstance(age, timedelta):
        return {"older_than_s": age.total_seconds()}
    return {"before": moment.isoformat()} if isinstance(age, datetime) else {"older_than_s": older_than}


def moment_of_age(older_than: Any, now: datetime) -> datetime:
    """Return the moment that an age means.

    Raises:
        ConfigurationError: it is neither an age nor a moment.
    """
    if isinstance(older_than, str):
        older_than = _read("older_than", older_than)
    if isinstance(older_than, datetime):
        return older_than
    try:
        if type(older_than) in (int, float):
            older_than = timedelta(seconds=older_than)
        if isinstance(older_than, timedelta) and older_than >= timedelta(0):
            return now - older_than
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)
    except ValueError:
        pass  # not a number
    raise ConfigurationError(
        f"older_than={shown(older_than)}: it is a timedelta or seconds of 0 or more, or a datetime or its ISO text ('2026-11-27T08:00')"
    )
