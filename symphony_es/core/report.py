"""What a resume or a load did: the reports that `symphony.last_resume` and `symphony.last_load` hold."""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any

from symphony_es.events.changes import Change
from symphony_es.events.fold import Damage
from symphony_es.events.readable import readable
from symphony_es.events.references import EntityReference, Path
from symphony_es.events.showing import html_table, show
from symphony_es.late_dataclasses import dataclass

__all__ = ["Difference", "ResumeReport", "UnresolvedReference"]


@dataclass(frozen=True, slots=True)
class UnresolvedReference:
    """A reference whose target does not exist at that position, or cannot stand in a set; the `EntityReference` stays in place."""

    entity: str
    path: Path
    target: EntityReference


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a restored object differs from the state it came from; appended as `StateAdopted` before its next change."""

    entity: str
    paths: tuple[Path, ...]


@dataclass(slots=True, kw_only=True, repr=False)
class ResumeReport:
    """What a resume did, or a load of some entities.

    Attributes:
        position: the position whose state the world, or what was loaded, has.
        checkpoint: id of the checkpoint it went back to or recovered from, or None.
        restored: how many entities became live objects.
        unrestored: entities kept as `UnrestoredEntity`, with the reason, by key.
        damaged: entities that an event of the log does not fit, by key: which event, and why. `entities.repair` repairs one; until then
            those that have a last good state are `UnrestoredEntity` objects of it.
        unresolved: references without a target.
        different: objects that differ from their states: a field a restorer left out, or added.
        unknown_values: names of classes whose values could not be made, by entity; it is among the `unrestored`, which say what to do.
        removed_fields: paths of stored fields that no class has any more, by entity; they are among the `different`.
        dropped: changes that are given up, by entity: they could not be appended, or were made past the methods of a container (`heapq`).
        rewound: keys of the entities that were taken back by compensating events.
        damaged_snapshots: snapshots passed over because they could not be trusted, with the reason.
        lost_at_the_end: first and last position of an acknowledged commit that the log lacked when it was opened: its last one, after a
            crash that damaged the write-ahead file. None where nothing is missing. The entities are as they were before it.
        duration_s: how long it took, in seconds.
    """

    position: int
    checkpoint: str | None = None
    restored: int = 0
    unrestored: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, Damage] = field(default_factory=dict)
    unresolved: list[UnresolvedReference] = field(default_factory=list)
    different: list[Difference] = field(default_factory=list)
    unknown_values: dict[str, list[str]] = field(default_factory=dict)
    removed_fields: dict[str, list[Path]] = field(default_factory=dict)
    dropped: dict[str, list[Change]] = field(default_factory=dict)
    rewound: list[str] = field(default_factory=list)
    damaged_snapshots: list[tuple[str, str]] = field(default_factory=list)
    lost_at_the_end: tuple[int, int] | None = None
    duration_s: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every entity is a live object, equal to its state, with all its references connected, and no commit is missing.

        Not part of it: what was given up before (`dropped`), and snapshots that were passed over, since the log says the same.
        """
        found = self.unrestored or self.damaged or self.unresolved or self.different or self.unknown_values
        return not found and self.lost_at_the_end is None

    def __repr__(self) -> str:
        told = ", ".join(f"{len(found)} {what}" for what, found in self._findings() if found)
        return f"<ResumeReport position {self.position}: {self.restored} restored{', ' if told else ''}{told} in {self.duration_s:.3f} s>"

    def _findings(self) -> list[tuple[str, Any]]:
        return [
            ("unrestored", self.unrestored),
            ("damaged", self.damaged),
            ("references without a target", self.unresolved),
            ("different from their states", self.different),
            ("with unknown values", self.unknown_values),
            ("with dropped changes", self.dropped),
            ("taken back", self.rewound),
            ("damaged snapshots", self.damaged_snapshots),
            ("positions missing at the end", self._lost()),
        ]

    def _lost(self) -> range:
        return range(self.lost_at_the_end[0], self.lost_at_the_end[1] + 1) if self.lost_at_the_end is not None else range(0)

    def _repr_html_(self) -> str:
        rows: list[tuple[str, Any]] = [("position", self.position), ("restored", self.restored)]
        rows += [(what, "; ".join(map(show, found))) for what, found in self._findings() if found]
        return html_table(("", repr(self)), rows)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take."""
        plain: dict[str, Any] = readable(self.as_dict())
        return plain

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for logs and output."""
        return {
            "position": self.position,
            "checkpoint": self.checkpoint,
            "restored": self.restored,
            "unrestored": dict(self.unrestored),
            "damaged": {key: asdict(damage) for key, damage in self.damaged.items()},
            "unresolved": [(item.entity, list(item.path), item.target.key) for item in self.unresolved],
            "different": [(item.entity, [list(path) for path in item.paths]) for item in self.different],
            "unknown_values": dict(self.unknown_values),
            "removed_fields": {entity: [list(path) for path in paths] for entity, paths in self.removed_fields.items()},
            "dropped": {entity: len(changes) for entity, changes in self.dropped.items()},
            "rewound": list(self.rewound),
            "damaged_snapshots": list(self.damaged_snapshots),
            "lost_at_the_end": list(self.lost_at_the_end) if self.lost_at_the_end is not None else None,
            "duration_s": self.duration_s,
        }
