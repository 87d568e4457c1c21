"""Plots of the results as SVG. The same results give the same files, byte for byte, so that a difference is one of the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.figure import Figure

from benchmarks.measuring import Result
from benchmarks.report import number, verdicts

__all__ = ["draw"]

Points = Sequence[tuple[float, float]]
COLOURS = {
    "ours": "#0072B2",
    "floor": "#6B6B6B",
    "dbos": "#D55E00",
    "dbos_wal": "#E69F00",
    "langgraph": "#009E73",
    "burr": "#CC79A7",
    "burr_wal": "#8C4A72",
}
LABELS = {
    "ours": "symphony_es",
    "dbos": "DBOS as shipped",
    "dbos_wal": "DBOS on WAL",
    "langgraph": "LangGraph, durability sync",
    "burr": "Burr as shipped",
    "burr_wal": "Burr on WAL",
}
REACHED, MISSED = "#0072B2", "#D55E00"
STYLE = {
    "svg.hashsalt": "symphony_es",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def draw(results: Iterable[Result], directory: Path) -> list[Path]:
    """Draw what the results have the data for; paths of the plots, also of those that earlier runs have drawn."""
    by_name = {result.row.name: result for result in results}
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for draw_one in (_append_cost, _step_time, _late_steps, _disk, _resume, _ratios):
            draw_one(by_name, directory)
    return sorted(directory.glob("*.svg"))


def _series(results: dict[str, Result], row: str, contender: str, name: str) -> Points:
    samples = results[row].samples.get(contender) if row in results else None
    return [(x, y) for x, y in samples[-1].series.get(name, ())] if samples else []


def _lines(
    lines: Sequence[tuple[str, str, Points]], path: Path, title: str, x: str, y: str, *, scale: tuple[str, str] = ("linear", "linear")
) -> None:
    lines = [line for line in lines if line[2]]
    if not lines:
        return
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for label, colour, points in lines:
        marker = "o" if len(points) < 10 else None
        style = "--" if label.startswith("Burr") else "-"  # Burr's sizes lie on LangGraph's
        axes.plot(*zip(*points, strict=True), style, label=label, color=colour, marker=marker, markersize=4, linewidth=1.5)
    axes.set(title=title, xlabel=x, ylabel=y, xscale=scale[0], yscale=scale[1])
    if scale[1] == "linear":
        axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    figure.legend(loc="outside right upper")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def _append_cost(results: dict[str, Result], directory: Path) -> None:
    names = (("single_us", "one event, awaited", "#0072B2"), ("grouped_us", "one of a commit of 256", "#009E73"))
    lines = [(label, colour, _series(results, "append_growth", "ours", name)) for name, label, colour in names]
    axes = ("events in the log", "microseconds per event")
    _lines(lines, directory / "append-cost.svg", "Cost of an append by length of the log", *axes, scale=("log", "linear"))


def _step_time(results: dict[str, Result], directory: Path) -> None:
    lines = [(label, COLOURS[name], _series(results, "engine_steps", name, "step_ms")) for name, label in LABELS.items()]
    _lines(lines, directory / "step-time.svg", "Time of a step of 200 bytes by its number", "step", "milliseconds")


def _late_steps(results: dict[str, Result], directory: Path) -> None:
    lines = [(LABELS["ours"], COLOURS["ours"], _series(results, "late_steps", "ours", "step_ms"))]
    _lines(lines, directory / "late-steps.svg", "Time of a step of 200 bytes in a long run", "step", "milliseconds")


def _disk(results: dict[str, Result], directory: Path) -> None:
    lines = []
    for name, label in LABELS.items():
        points = [(steps, size / 1e6) for steps, size in _series(results, "disk_per_step", name, "total_bytes")]
        lines.append((label, COLOURS[name], points))
    axes = ("steps of 200 bytes", "megabytes")
    _lines(lines, directory / "disk-bytes.svg", "Size on disk by number of steps", *axes, scale=("log", "log"))


def _resume(results: dict[str, Result], directory: Path) -> None:
    lines = [(LABELS["ours"], COLOURS["ours"], _series(results, "after_kill", "ours", "resume_s"))]
    if "after_kill" in results:
        result = results["after_kill"]
        seconds = result.median("dbos.small_first_new_step_after_imports_s")
        if seconds is not None:
            lines.append((LABELS["dbos"], COLOURS["dbos"], [(result.sizes["small"] // 2, seconds)]))
    axes = ("steps completed before the kill", "seconds, imports excluded")
    _lines(lines, directory / "resume-time.svg", "First new step after kill -9, in a new process", *axes, scale=("log", "linear"))


def _ratios(results: dict[str, Result], directory: Path) -> None:
    bars: list[tuple[str, float, bool]] = []
    for result in results.values():
        for goal, value, _, verdict in verdicts(result):
            least, most = goal.at_least, goal.at_most
            if value and verdict and (least or most):
                sign = f">= {least:g}" if least else f"<= {most:g}"
                bars.append((f"{result.row.name}: {goal.text}: {number(value)} ({sign})", _share(value, least, most), verdict == "reached"))
    if not bars:
        return
    bars.reverse()
    figure = Figure(figsize=(9, 0.6 + 0.24 * len(bars)), layout="constrained")
    axes: Any = figure.subplots()
    axes.barh(
        range(len(bars)), [share - 1 for _, share, _ in bars], left=1, color=[REACHED if bar[2] else MISSED for bar in bars], height=0.7
    )
    axes.set_yticks(range(len(bars)), [bar[0] for bar in bars])
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set(
        xscale="log",
        title="Goals: right of 1 is better than the goal",
        xlabel="how many times better than the goal",
        ylim=(-0.6, len(bars) - 0.4),
    )
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.grid(visible=False, axis="y")
    _save(figure, directory / "ratios.svg")


def _share(value: float, least: float | None, most: float | None) -> float:
    """How many times better than its bound a value is."""
    return value / least if least else (most or 0) / value
