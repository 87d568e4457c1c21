"""Random damages to what stands beside a log, and what is answered then: `python -m tests.faults.side_files --count 2000`.

Audit trail, lists of runs and checkpoints, a projection of the application's own, snapshots, an export: a bit flipped, a sector zeroed, the
end cut off, pages swapped or doubled, a page or a whole file of an earlier time, a file removed, rows deleted or changed through SQLite. It
is done to files of a log that was closed, to those of a killed process, and under a Symphony that has them open. Then everything is
asked, by who reads and by who writes. Each answer is the log's; an export is refused. Another answer, or an error, makes the
command end with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import structlog

from symphony_es import Symphony, entity
from symphony_es.errors import ExportDamagedError, ProjectionUnavailableError
from symphony_es.events.event import Event
from symphony_es.projections import SQLiteProjection, open_current
from symphony_es.transfer import export_jsonl, import_jsonl
from tests.faults.damage import cut, flip, zero

PAGE = 4096
ACTORS = ("ann", "bob", "cid")
STEPS = {"name": "one", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}
Answers = dict[str, Any]


@entity
class BesideProbe:
    """An entity whose state tells its whole history."""

    id: str = ""
    n: int = 0
    notes: dict[str, str] = field(default_factory=dict)


class DeedsPerActor(SQLiteProjection):
    """A read model of an application's own, with an index that answers."""

    name = "deeds"
    schema = (
        "CREATE TABLE deeds (position INTEGER PRIMARY KEY, actor TEXT, what TEXT)",
        "CREATE INDEX deeds_actor ON deeds (actor, what)",
    )

    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """A row for each event of an actor."""
        rows = [(event.position, event.metadata.actor, event.name) for event in events if event.metadata.actor]
        db.executemany("INSERT INTO deeds VALUES (?, ?, ?)", rows)


OWN = "SELECT actor, what, count(*) FROM deeds WHERE actor = ? GROUP BY actor, what"


def opened(directory: Path, *, read_only: bool = False) -> Symphony:
    """A Symphony over a directory."""
    return Symphony({"state_dir": str(directory)}, persistence_enabled=True, read_only=read_only)


async def work(symphony: Symphony, begin: int, end: int) -> None:
    """Change things, each on behalf of somebody, with runs and checkpoints between."""
    for number in range(begin, end):
        with symphony.acting_as(ACTORS[number * 5 % 3]):
            key = f"BesideProbe:{number * 7 % 10}"
            if number < 10:
                symphony.entities.add(BesideProbe(id=key.partition(":")[2]))
            probe = symphony.entities.get(key)
            probe.n = number
            probe.notes[str(number)] = "v" * (number % 50)
            await symphony.flush()
        if number % 15 == 0:
            await symphony.create_checkpoint(f"at {number}")
        if number % 20 == 0:
            await symphony.workflows.execute_workflow(STEPS, run_id=f"run{number}", auto_checkpoint=False)


async def ask(symphony: Symphony) -> Answers:
    """Everything that what stands beside a log may answer."""
    audit, answers = symphony.audit, Answers()
    for actor in (*ACTORS, "nobody"):
        answers[actor] = [event.position for event in await audit.find(actor=actor, limit=1000)]
    answers["newest"] = [event.position for event in await audit.find(actor="bob", limit=20, newest_first=True)]
    answers["type"] = [event.position for event in await audit.find(entity_type="BesideProbe", limit=1000)]
    answers["name"] = [event.position for event in await audit.find(event="CheckpointCreated", limit=1000)]
    answers["run"] = [event.position for event in await audit.find(run="run20", limit=1000)]
    answers["followed"] = [event.position for event in await audit.consequences(answers["run"][0])] if answers["run"] else []
    answers["checkpoints"] = [(entry["name"], entry["position"]) for entry in await symphony.list_checkpoints()]
    answers["runs"] = [(run.id, str(run.status), run.name) for run in await symphony.workflows.list_runs(limit=100)]
    answers["counts"] = await symphony.workflows.count_runs()
    for moment in ("at 15", answers["checkpoints"][0][1], "latest"):
        view = await symphony.at(moment)
        answers[f"state {moment}"] = {one.entity_id: view.get(one) for one in view.all("BesideProbe")}
    return answers


async def ask_own(symphony: Symphony, own: DeedsPerActor) -> Answers:
    """The same, and what the application's own read model says, once it is up to date."""
    await symphony.projections.catch_up()
    told = [tuple(row) for actor in ACTORS for row in await own.read(OWN, (actor,))]
    return {**await ask(symphony), "own": told}


async def make(base: Path) -> tuple[dict[str, Path], Answers]:
    """A log at three times: `old`, `crashed` and `closed`, each with an export; and the answers of the last two."""
    working = base / "working"
    async with opened(working) as symphony:
        symphony.projections.add(own := DeedsPerActor())
        await work(symphony, 0, 40)
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
        await ask_own(symphony, own)
        await export_jsonl(symphony.log, working / "export.jsonl")
    shutil.copytree(working, base / "old")
    async with opened(working) as symphony:
        symphony.projections.add(own := DeedsPerActor())
        await symphony.resume()
        await work(symphony, 40, 90)
        await ask_own(symphony, own)
        await work(symphony, 90, 100)
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
        answers = await ask_own(symphony, own)
        await export_jsonl(symphony.log, working / "export.jsonl", overwrite=True)
        shutil.copytree(working, base / "crashed")
    working.rename(base / "closed")
    return {name: base / name for name in ("old", "crashed", "closed")}, answers


# -- damages ----------------------------------------------------------------------------------------------------------------


def _pages(content: bytearray, rng: random.Random) -> tuple[int, int]:
    pages = max(len(content) // PAGE, 1)
    return rng.randrange(pages) * PAGE, rng.randrange(pages) * PAGE


def swap(content: bytearray, rng: random.Random) -> None:
    """Swap two pages."""
    one, other = _pages(content, rng)
    content[one : one + PAGE], content[other : other + PAGE] = content[other : other + PAGE], content[one : one + PAGE]


def double(content: bytearray, rng: random.Random) -> None:
    """Put a page in the place of another one."""
    one, other = _pages(content, rng)
    content[other : other + PAGE] = content[one : one + PAGE]


def _rows(*statements: str) -> Callable[[Path, Path, random.Random], None]:
    def changed(file: Path, old: Path, rng: random.Random) -> None:
        with contextlib.closing(sqlite3.connect(file)) as database, contextlib.suppress(sqlite3.OperationalError):
            database.execute(rng.choice(statements))
            database.commit()

    return changed


def _in_content(how: Callable[[bytearray, random.Random], None]) -> Callable[[Path, Path, random.Random], None]:
    def done(file: Path, old: Path, rng: random.Random) -> None:
        content = bytearray(file.read_bytes())
        if content:
            how(content, rng)
            file.write_bytes(content)

    return done


def stale_file(file: Path, old: Path, rng: random.Random) -> None:
    """Put the file of an earlier time in its place."""
    if old.is_file():
        shutil.copyfile(old, file)


def stale_page(file: Path, old: Path, rng: random.Random) -> None:
    """Put a page of an earlier time in its place."""
    before = old.read_bytes() if old.is_file() else b""
    content = bytearray(file.read_bytes())
    at = rng.randrange(max(min(len(before), len(content)) // PAGE, 1)) * PAGE
    content[at : at + PAGE] = before[at : at + PAGE] or content[at : at + PAGE]
    file.write_bytes(content)


def remove(file: Path, old: Path, rng: random.Random) -> None:
    """Remove the file."""
    file.unlink()


ROWS = {
    "audit": _rows(
        "DELETE FROM audit WHERE position % 7 = 3", "UPDATE audit SET actor = 'cid' WHERE actor = 'bob' AND position % 5 = 1",
        "UPDATE audit SET cause = NULL", "DELETE FROM audit WHERE actor = 'ann'", "UPDATE audit SET position = position + 1000",
    ),
    "deeds": _rows("DELETE FROM deeds WHERE position % 5 = 2", "UPDATE deeds SET actor = 'ann'", "UPDATE deeds SET what = 'x'"),
    "run_list": _rows("DELETE FROM runs WHERE number % 2", "UPDATE runs SET status = 'failed'", "UPDATE progress SET position = 10"),
    "checkpoint_list": _rows(
        "DELETE FROM checkpoints WHERE number % 2", "UPDATE checkpoints SET position = 3", "UPDATE checkpoints SET name = 'x'"
    ),
}  # fmt: skip
KINDS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "flip": _in_content(flip),
    "zero": _in_content(zero),
    "cut": _in_content(cut),
    "swap": _in_content(swap),
    "double": _in_content(double),
    "stale page": stale_page,
    "stale file": stale_file,
    "remove": remove,
}


def choose(directory: Path, rng: random.Random, *, live: bool) -> Path:
    """A file beside the log. SQLite looks at a write-ahead file when it opens it: it is not damaged under who has it open."""
    files = [
        file
        for folder in ("projections", "snapshots")
        for file in sorted((directory / folder).iterdir())
        if file.is_file() and file.name != "LOCK" and not (live and file.name.endswith(("-wal", "-shm")))
    ]
    databases = [file for file in files if file.suffix == ".db"]
    return rng.choice([directory / "export.jsonl"] if rng.random() < 0.1 else databases if rng.random() < 0.4 else files)


def damage(file: Path, old: Path, rng: random.Random) -> str:
    """Do one damage to a file; what was done."""
    kinds = [*KINDS, *(["rows"] * 3 if file.suffix == ".db" else [])]
    kind = rng.choice(kinds if file.name != "export.jsonl" else [kind for kind in KINDS if kind not in ("stale file", "remove")])
    (ROWS[file.name.partition(".")[0]] if kind == "rows" else KINDS[kind])(file, old, rng)
    return kind


# -- outcomes ---------------------------------------------------------------------------------------------------------------


async def _imported(export: Path, target: Path, truth: bytes) -> str:
    try:
        await import_jsonl(export, target)
    except ExportDamagedError:
        return "refused"
    async with opened(target, read_only=True) as symphony:
        await export_jsonl(symphony.log, target.with_suffix(".again"))
    same = target.with_suffix(".again").read_bytes().splitlines()[1:-1] == truth.splitlines()[1:-1]  # but for the time of the export
    target.with_suffix(".again").unlink()
    return "right" if same else "WRONG: what was imported is another log"


def _compared(found: Answers, truth: Answers) -> str:
    wrong = [name for name, answer in truth.items() if name in found and found[name] != answer]
    return f"WRONG: {', '.join(wrong)}" if wrong else "right"


async def _asked_by_reader(directory: Path, truth: Answers) -> str:
    async with opened(directory, read_only=True) as symphony:
        answers = await ask(symphony)
    try:
        with open_current(directory / "projections", "deeds") as reader:
            answers["own"] = [tuple(row) for actor in ACTORS for row in await reader.read(OWN, (actor,))]
    except ProjectionUnavailableError:
        pass  # nothing is said of it
    else:
        if [*map(list, answers["own"])] in truth["earlier"]:
            answers["own"] = truth["own"]
    return _compared(answers, truth)


async def _asked_by_writer(directory: Path, truth: Answers, harm: Callable[[], None] = lambda: None) -> str:
    async with opened(directory) as symphony:
        symphony.projections.add(own := DeedsPerActor())
        await symphony.resume()
        if harm.__name__ != "<lambda>":
            await ask_own(symphony, own)
            harm()
        return _compared(await ask_own(symphony, own), truth)


async def outcome(directory: Path, old: Path, truth: Answers, exported: bytes, rng: random.Random) -> tuple[str, str]:
    """Damage one file of a log, ask everything, and ask again when it has been mended: what was done, and what it came to."""
    live = rng.random() < 0.3
    done: list[str] = []
    file = choose(directory, rng, live=live)

    def harm() -> None:
        done.append(damage(file, old / file.relative_to(directory), rng))

    if file.name == "export.jsonl":
        harm()
        return f"export {done[0]}", await _imported(file, directory / "imported", exported)
    if live:
        found = await _asked_by_writer(directory, truth, harm)
    else:
        harm()
        found = await _asked_by_reader(directory, truth)
    if found == "right":
        found = await _asked_by_writer(directory, truth)
    if found == "right":
        found = await _asked_by_reader(directory, truth)
    name = file.name.partition(".")[0] + "." + file.name.rpartition(".")[2]
    return f"{'live ' if live else ''}{file.parent.name}/{name if file.parent.name == 'projections' else 'snap'} {done[0]}", found


async def damage_all(numbers: range, seed: int, base: Path) -> tuple[Counter[str], Counter[str], list[str]]:
    """Do random damages: how often each was done, how often each outcome was, and what is needed to do each wrong one again."""
    sources, truth = await make(base)
    exported = (sources["closed"] / "export.jsonl").read_bytes()
    truth["earlier"] = await _earlier(base, sources)
    kinds: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        source = sources[rng.choice(["crashed", "closed"])]
        work_in = base / f"work{number}"
        shutil.copytree(source, work_in)
        try:
            kind, found = await outcome(work_in, sources["old"], truth, exported, rng)
        except Exception as error:
            kind, found = "?", f"ERROR: {error!r:.200}"
        shutil.rmtree(work_in)
        kinds[kind] += 1
        outcomes[found.partition(": ")[0]] += 1
        if found not in ("right", "refused"):
            wrong.append(f"{number}: {source.name} {kind}: {found}")
    return kinds, outcomes, wrong


async def _earlier(base: Path, sources: dict[str, Path]) -> list[Any]:
    """What the application's read model said at each earlier commit: a reader may be behind."""
    async with opened(shutil.copytree(sources["closed"], base / "whole")) as symphony:
        found: list[dict[tuple[str, str], int]] = [{}]
        async for page in symphony.log.read():
            for event in page:
                counted = dict(found[-1])
                if event.metadata.actor:
                    key = (event.metadata.actor, event.name)
                    counted[key] = counted.get(key, 0) + 1
                found.append(counted)
    return [[[*key, counted[key]] for key in sorted(counted)] for counted in found]


def run(numbers: range, seed: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """Do random damages in a directory of its own, in memory where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="symphony-beside-", dir=shared if shared.is_dir() else None) as base:
        return asyncio.run(damage_all(numbers, seed, Path(base)))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.side_files", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    kinds, outcomes, wrong = run(range(given.first, given.first + given.count), given.seed)
    print(json.dumps({"count": given.count, "seed": given.seed, "kinds": dict(kinds.most_common()), "outcomes": dict(outcomes)}, indent=1))
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
