"""What a run of the suite comes to: plain text, Markdown, JSON and plots."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measuring import Contender, Goal, Result, Row, Sample

__all__ = ["as_json", "as_markdown", "as_text", "earlier", "surroundings", "write"]

PACKAGES = ("symphony-es", "eventsourcing", "msgpack", "dbos", "langgraph", "langgraph-checkpoint-sqlite", "apache-burr")
VERDICTS = {True: "reached", False: "not reached", None: ""}


def surroundings(scale: str) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "scale": scale,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "packages": versions,
    }


def number(value: float | None) -> str:
    """A number with three significant digits, thousands with commas."""
    if value is None:
        return "not measured"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bound(goal: Goal) -> str:
    """A goal's bound as text."""
    if goal.at_least is not None:
        return f">= {goal.at_least:g}"
    return f"<= {goal.at_most:g}" if goal.at_most is not None else ""


def verdicts(result: Result) -> Iterator[tuple[Goal, float | None, str, str]]:
    """For each goal: its value, its spread over the rounds, and whether it is reached."""
    for goal in result.row.goals:
        values = result.goal_values(goal)
        if not values:
            yield goal, None, "", ""
            continue
        value = statistics.median(values)
        spread = f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else ""
        yield goal, value, spread, VERDICTS[goal.reached(value)]


def measured(result: Result) -> Iterator[tuple[Contender, dict[str, float], dict[str, Any], int]]:
    """For each contender that was measured: medians of its figures, its settings, its rounds."""
    for contender in result.row.contenders:
        samples: Sequence[Sample] = result.samples.get(contender.name, ())
        if samples:
            medians = {name: result.median(f"{contender.name}.{name}") or 0.0 for name in samples[-1].figures}
            yield contender, medians, dict(samples[-1].settings), len(samples)


def as_text(result: Result) -> str:
    """A row for the terminal."""
    sizes = ", ".join(f"{name} {size:,}" for name, size in result.sizes.items())
    lines = [f"{result.row.name}: {result.row.title}" + (f"  [{sizes}]" if sizes else "")]
    for contender, figures, settings, rounds in measured(result):
        shown = ", ".join(f"{name} {number(value)}" for name, value in figures.items())
        lines.append(f"    {contender.name:24} {shown}  ({rounds} round{'s' * (rounds > 1)}{_durability(settings)})")
    for goal, value, spread, verdict in verdicts(result):
        if value is not None:
            lines.append(f"  = {goal.text:52} {number(value):>9}  {bound(goal):8} {verdict:12} {spread}".rstrip())
    lines += [f"  ! {name} failed: {why.splitlines()[-1][:200]}" for name, why in result.failures.items()]
    return "\n".join(lines)


def _durability(settings: dict[str, Any]) -> str:
    mode, level = settings.get("journal_mode"), settings.get("synchronous")
    return f"; {mode}{f', synchronous={level}' if level else ''}" if mode else ""


def as_json(results: Sequence[Result], around: dict[str, Any]) -> dict[str, Any]:
    """Everything, for other programs."""
    rows = []
    for result in results:
        contenders = [
            {
                "name": contender.name,
                "what": contender.what,
                "figures": figures,
                "rounds": [dict(sample.figures) for sample in result.samples[contender.name]],
                "settings": settings,
                "series": {name: list(points) for name, points in result.samples[contender.name][-1].series.items()},
            }
            for contender, figures, settings, _ in measured(result)
        ]
        goals = [
            {
                "text": goal.text,
                "of": goal.of,
                "to": goal.to,
                "at_least": goal.at_least,
                "at_most": goal.at_most,
                "value": value,
                "verdict": verdict,
            }
            for goal, value, _, verdict in verdicts(result)
        ]
        row = result.row
        rows.append(
            {"name": row.name, "title": row.title, "unit": row.unit, "note": row.note, "sizes": result.sizes}
            | {"contenders": contenders, "goals": goals, "failures": result.failures}
        )
    return {"surroundings": around, "rows": rows}


def as_markdown(results: Sequence[Result], around: dict[str, Any], plots: Sequence[Path]) -> str:
    """The page docs/benchmarks/README.md."""
    versions = ", ".join(f"{name} {version}" for name, version in around["packages"].items())
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` or `make bench-peers`; [results.json](results.json) has every round. What the figures mean is in",
        "[performance](../performance.md).",
        "",
        f"Scale {around['scale']}; Python {around['python']}, SQLite {around['sqlite']}, {around['system']}; {versions}.",
        "",
        "In a row all contenders run in turns, each time in a process of their own, in the same run. A ratio is that of figures of one",
        "round; the median of the rounds is shown, and from where to where it went. Durability: one fsync per acknowledgement for all;",
        "journal mode and `synchronous` are read back from the connection that writes, and stand below.",
        "",
        "| row | what | value | goal | | rounds from to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for goal, value, spread, verdict in verdicts(result):
            if value is not None:
                cells = (f"`{result.row.name}`", goal.text, number(value), bound(goal), verdict, spread)
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"![{path.stem.replace('-', ' ')}]({path.name})" for path in plots), ""]
    for result in results:
        lines += _section(result)
    return "\n".join(lines).rstrip() + "\n"


def _section(result: Result) -> list[str]:
    sizes = ", ".join(f"{name} {size:,}" for name, size in result.sizes.items())
    lines = [f"## {result.row.name}", "", f"{result.row.title[0].upper()}{result.row.title[1:]}.{f' Sizes: {sizes}.' if sizes else ''}"]
    if result.row.note:
        lines += ["", result.row.note]
    lines += ["", "| contender | what it does | medians | rounds | settings |", "| --- | --- | --- | --- | --- |"]
    for contender, figures, settings, rounds in measured(result):
        shown = ", ".join(f"{name} {number(value)}" for name, value in figures.items())
        held = ", ".join(f"{name} {value}" for name, value in settings.items())
        lines.append(f"| {contender.name} | {contender.what} | {shown} | {rounds} | {held} |")
    lines += [f"| {name} | failed | {why.splitlines()[-1][:200]} | | |" for name, why in result.failures.items()]
    return [*lines, ""]


def earlier(directory: Path, rows: Sequence[Row], around: dict[str, Any]) -> list[Result]:
    """Results of rows that another run has written there, at the same scale with the same versions: a row is measured as a whole."""
    path = directory / "results.json"
    if not path.exists():
        return []
    stored = json.loads(path.read_text())
    by_name = {row.name: row for row in rows}
    return [
        Result(
            row=by_name[row["name"]],
            sizes=row["sizes"],
            samples={
                contender["name"]: [
                    Sample(figures=figures, settings=contender["settings"], series=contender["series"]) for figures in contender["rounds"]
                ]
                for contender in row["contenders"]
            },
            failures=row["failures"],
        )
        for row in stored["rows"]
        if row["name"] in by_name and stored["surroundings"] == around
    ]


def write(results: Sequence[Result], directory: Path, around: dict[str, Any]) -> None:
    """Write results.json, README.md and, where matplotlib is installed, the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        from benchmarks.plots import draw
    except ImportError:
        print("matplotlib is not installed: no plots are drawn", file=sys.stderr)
        plots = sorted(directory.glob("*.svg"))
    else:
        plots = draw(results, directory)
    (directory / "results.json").write_text(json.dumps(as_json(results, around), indent=1) + "\n")
    (directory / "README.md").write_text(as_markdown(results, around, plots))
