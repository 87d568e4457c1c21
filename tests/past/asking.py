"""The five questions (at, diff, history, blame, audit), asked by the API and by the command line, each compared with brute force."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from symphony_es.cli.main import main as command_line
from symphony_es.errors import format_path
from symphony_es.events.identifiers import text_id
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.values import plain_equal
from symphony_es.transfer import plain_as_json
from tests.past.brute import Brute, covers, differing, places, same
from tests.past.worlds import ACTORS

__all__ = ["COMMANDS", "Asking"]

COMMANDS = 3
"""Of the questions to one log, so many of each kind are asked by the command line."""


class Asking:
    """Asks of one log.

    Attributes:
        asked: how many questions of each kind. wrong: those that were answered differently.
    """

    def __init__(self, symphony: Symphony, brute: Brute, chance: random.Random, title: str) -> None:
        self.symphony = symphony
        self.brute = brute
        self.chance = chance
        self.title = title
        self.asked: Counter[str] = Counter()
        self.wrong: list[str] = []

    def _compare(self, kind: str, right: bool, *told: Any) -> None:
        self.asked[kind] += 1
        if not right:
            self.wrong.append(f"{self.title}: {kind} {' '.join(map(repr, told))}"[:1000])

    def position(self) -> int:
        """Any of the log."""
        return self.chance.randint(0, len(self.brute.events))

    def entity(self) -> str:
        """Any that there has ever been."""
        return self.chance.choice(sorted(key for key in self.brute.steps if not key.startswith("symphony.")))

    async def all(self, count: int) -> None:
        """Ask so many questions of each kind."""
        for _ in range(count):
            await self.at()
            await self.diff()
            await self.history()
            await self.audit()
            await self.consequences()
            for _ in range(4):
                await self.blame()

    # -- the questions ------------------------------------------------------------------------------------------------------

    async def at(self) -> None:
        """By position and by time."""
        position = self.position()
        moment: Any = self.chance.choice([position, f"#{position}"])
        if self.brute.events and self.chance.random() < 0.5:
            moment = self.chance.choice(self.brute.events).recorded_at + timedelta(microseconds=self.chance.choice([-1, 0, 0, 1, 10**9]))
            position = self.brute.position_at(moment)
        view, due = await self.symphony.at(moment), self.brute.at(position)
        found = {reference.key: view.get(reference) for reference in view}
        right = view.position == position and found.keys() == due.keys() and all(plain_equal(found[key], due[key]) for key in due)
        self._compare("at", right, moment, position, view.position)

    async def at_checkpoints(self, checkpoints: list[tuple[str, str | None, int]]) -> None:
        """By the id of each checkpoint, and by the name: the newest one that has it."""
        newest = {name: position for _, name, position in checkpoints if name is not None}
        for checkpoint_id, _, position in checkpoints:
            self._compare("at", (await self.symphony.at(f"id:{checkpoint_id}")).position == position, checkpoint_id)
        for name, position in newest.items():
            self._compare("at", (await self.symphony.at(f"name:{name}")).position == position, name)

    async def diff(self) -> None:
        """Which entities, what of them, and by which events; in both directions."""
        one, other = self.position(), self.position()
        before, after = self.brute.at(one), self.brute.at(other)
        difference = await self.symphony.diff(one, other)
        due = [key for key in sorted(before.keys() | after.keys()) if not same(before.get(key, ABSENT), after.get(key, ABSENT))]
        self._compare("diff", [found.entity.key for found in difference] == due, one, other, due)
        low, high = sorted((one, other))
        for found in difference:
            key = found.entity.key
            kind = "added" if key not in before else "removed" if key not in after else "changed"
            left, right = before.get(key, ABSENT), after.get(key, ABSENT)
            told = [tuple(change.path) for change in found.changes]
            missed = [place for place in differing(left, right) if not covers(told, place)]
            self._compare("diff", found.kind == kind and not missed, one, other, key, missed)
            for change in found.changes:
                true = _true(left, change.path, change.before) and _true(right, change.path, change.after)
                self._compare("diff", true, one, other, change)
            events = [event.position for event in await found.events()]
            due_events = [step.event.position for step in self.brute.steps[key] if low < step.event.position <= high]
            self._compare("diff", events == due_events, one, other, key, events)
            (alone,) = await self.symphony.diff(one, other, key)
            self._compare("diff", repr(alone.changes) == repr(found.changes), one, other, key)

    async def history(self) -> None:
        """Each version once, with all that it set, and what was there before; by pages too."""
        key = self.entity()
        steps = self.brute.steps[key]
        found = await self.symphony.history(key)
        self._compare("history", [version.event.position for version in found] == [step.event.position for step in steps], key)
        for version, step in zip(found, steps, strict=True):
            told = [tuple(change.path) for change in version.changes]
            before, after = (ABSENT if state is None else state for state in (step.before, step.after))
            missed = [place for place in differing(before, after) if not covers(told, place)]
            first = not version.changes or _true(before, version.changes[0].path, version.changes[0].before)
            last = not version.changes or _true(after, version.changes[-1].path, version.changes[-1].after)
            self._compare("history", first and last and not missed, key, version.version, missed, version)
        after_version, limit = self.chance.randint(0, len(steps)), self.chance.choice([None, 1, 3])
        page = await self.symphony.history(key, after_version=after_version, limit=limit)
        due = [repr(version) for version in found[after_version:][:limit]]
        self._compare("history", [repr(version) for version in page] == due, key, after_version, limit)

    def _path(self, key: str) -> tuple[Any, ...]:
        known = {path: None for step in self.brute.steps[key] if step.after is not None for path in places(step.after)}
        return self.chance.choice(sorted(known, key=repr))

    async def blame(self) -> None:
        """Which events set a value, each with what it found and left; the newest one has left what stands there."""
        key = self.entity()
        path, (since, until) = self._path(key), sorted([self.position(), self.position()])
        since = self.chance.choice([None, None, since])
        due = self.brute.blame(key, path, since or 0, until)
        entries = await self.symphony.blame(key, path, since=since, until=until)
        found = [(entry.event.position, entry.before, entry.after) for entry in entries]
        right = [each[0] for each in found] == [each[0] for each in due] and all(
            same(one[1], other[1]) and same(one[2], other[2]) for one, other in zip(found, due, strict=True)
        )
        self._compare("blame", right, key, path, since, until, [each[0] for each in found], [each[0] for each in due])
        if path:
            versions = await self.symphony.history(key, path, since=since, until=until)
            self._compare("history", [one.event.position for one in versions] == [each[0] for each in due[::-1]], key, path, since, until)

    def _conditions(self) -> dict[str, Any]:
        chance, events = self.chance, self.brute.events
        wanted: dict[str, Any] = {}
        some = chance.choice(events)
        for name, share, given in (
            ("entity", 0.3, self.entity()),
            ("entity_type", 0.3, chance.choice(["PastThing", "symphony.Checkpoint"])),
            ("event", 0.4, chance.choice([some.name, [some.name, "Bought"], ["Odd"], []])),
            ("actor", 0.4, chance.choice([*ACTORS, "nobody"])),
            ("transaction", 0.15, text_id(some.transaction_id)),
            ("since", 0.3, chance.choice(events).recorded_at + timedelta(microseconds=chance.choice([-1, 0, 1]))),
            ("until", 0.3, chance.choice(events).recorded_at + timedelta(microseconds=chance.choice([-1, 0, 1]))),
            ("after_position", 0.25, self.position()),
            ("before_position", 0.25, self.position()),
        ):
            if chance.random() < share:
                wanted[name] = given
        if wanted.get("entity_type") == "symphony.Checkpoint" and "symphony.Checkpoint" not in {event.entity_type for event in events}:
            del wanted["entity_type"]
        return wanted

    async def audit(self) -> None:
        """From both ends, by pages and as a stream."""
        wanted, newest_first = self._conditions(), self.chance.random() < 0.5
        due, limit = self.brute.audit(wanted), self.chance.choice([1, 3, 1000])
        due = due[::-1] if newest_first else due
        found = [event.position for event in await self.symphony.audit.find(**wanted, newest_first=newest_first, limit=limit)]
        self._compare("audit", found == due[:limit], wanted, newest_first, limit, found, due)
        stream = self.symphony.audit.stream(**wanted, newest_first=newest_first, page=self.chance.choice([1, 3, 1000]))
        self._compare("audit", [event.position async for event in stream] == due, wanted, newest_first)

    async def consequences(self) -> None:
        """What followed from an event."""
        position, limit = self.chance.randint(1, len(self.brute.events)), self.chance.choice([1, 1000])
        found = [event.position for event in await self.symphony.audit.consequences(position, limit=limit)]
        self._compare("audit", found == self.brute.consequences(position)[:limit], position, limit, found)

    # -- the command line ---------------------------------------------------------------------------------------------------

    async def by_command_line(self, directory: Path, count: int = COMMANDS) -> None:
        """The same of some, as text of JSON."""
        for _ in range(count):
            await self._commands(directory)

    async def _commands(self, directory: Path) -> None:
        one, other, key = self.position(), self.position(), self.entity()
        before, after, steps = self.brute.at(one), self.brute.at(other), self.brute.steps[key]
        lines = await self._said(directory, "at", f"#{one}")
        states = {line["entity"]: line["state"] for line in lines}
        self._compare("at (command)", states == {name: _as_json(state) for name, state in before.items()}, one)
        lines = await self._said(directory, "diff", f"#{one}", f"#{other}", "--events")
        low, high = sorted((one, other))
        due = {
            name: [step.event.position for step in self.brute.steps[name] if low < step.event.position <= high]
            for name in sorted(before.keys() | after.keys())
            if not same(before.get(name, ABSENT), after.get(name, ABSENT))
        }
        told = {line["entity"]: [event["position"] for event in line["events"]] for line in lines}
        self._compare("diff (command)", told == due, one, other, told, due)
        lines = await self._said(directory, "history", key)
        self._compare("history (command)", [line["position"] for line in lines] == [step.event.position for step in steps], key)
        path = self._path(key)
        lines = await self._said(directory, "blame", key, format_path(path) if path else "", "--until", f"#{one}")
        blamed = [(line["position"], line.get("before", ABSENT), line.get("after", ABSENT)) for line in lines]
        expected = [(at, *(x if x is ABSENT else _as_json(x) for x in sides)) for at, *sides in self.brute.blame(key, path, 0, one)]
        self._compare("blame (command)", blamed == expected, key, path, one, blamed, expected)
        actor = self.chance.choice(ACTORS)
        lines = await self._said(directory, "audit", "--actor", actor, "--limit", "0", "--before", str(one + 1))
        due_audit = self.brute.audit({"actor": actor, "before_position": one + 1})
        self._compare("audit (command)", [line["position"] for line in lines] == due_audit, actor, one)

    async def _said(self, directory: Path, *arguments: str) -> list[Any]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = await asyncio.to_thread(command_line, [*arguments, "--state-dir", str(directory), "--json"])
        if code:
            self.wrong.append(f"{self.title}: {arguments} ends with {code}: {said.getvalue():.300}")
        return [json.loads(line) for line in said.getvalue().splitlines()]


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(plain_as_json(value)))


def _true(state: Any, path: Any, told: Any) -> bool:
    """Whether a side of a change is what stands there; a member of a set is told by itself."""
    path = tuple(path)
    stands = ABSENT if state is ABSENT else value_at(state, path)
    if isinstance(stands, set | frozenset) and not isinstance(told, set | frozenset):
        return told is ABSENT or any(plain_equal(told, member) for member in stands)
    return told is ABSENT or same(stands, told)
