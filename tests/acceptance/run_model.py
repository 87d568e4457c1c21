"""A simple model of runs: what the requests to them should do, without a log, an event loop or a clock of its own.

The workflow: wait for the signal `go`, work (which fails while it is told to), sleep 100 s, wait for the signals `x` and `y` beside each
other, finish; when it is cancelled, tidy up.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

__all__ = ["NAP_S", "STEPS", "Illegal", "ModelRun"]

STEPS = ("ask", "work", "nap", "both", "done")
NAP_S = 100


class Illegal(Exception):
    """The request may not be made now."""


@dataclass
class ModelRun:
    """What is expected of one run.

    Attributes:
        active: whether it executes in the present process.
        failing: whether its work fails; shared by all runs of a test.
        now: seconds of the clock.
        before: by step that has begun, the run as it was before; what a fork begins with.
    """

    name: str
    status: str = "pending"
    active: bool = False
    completed: set[str] = field(default_factory=set)
    signals: dict[str, int] = field(default_factory=dict)
    wakes_at: int | None = None
    tidied: int = 0
    generation: int = 0
    before: dict[str, ModelRun] = field(default_factory=dict)

    # -- requests -----------------------------------------------------------------------------------------------------

    def resume(self, now: int, *, failing: bool) -> None:
        if self.active or self.status not in ("pending", "running", "paused", "failed"):
            raise Illegal
        self.status, self.active = "running", True
        self.go_on(now, failing=failing)

    def pause(self) -> None:
        if self.status != "running":
            raise Illegal
        self.status, self.active = "paused", False

    def cancel(self) -> None:
        if self.status not in ("pending", "running", "paused", "failed"):
            raise Illegal
        self.status, self.active = "cancelled", False
        self.tidied += 1

    def signal(self, name: str, now: int, *, failing: bool) -> None:
        if self.status not in ("pending", "running", "paused", "failed"):
            raise Illegal
        self.signals[name] = self.signals.get(name, 0) + 1
        self.go_on(now, failing=failing)

    def retry_from(self, step: str, now: int, *, failing: bool) -> None:
        if self.active or self.status == "pending":
            raise Illegal
        place = STEPS.index(step)
        for later in STEPS[place:]:
            self.completed.discard(later)
            self.before.pop(later, None)
        if place <= STEPS.index("both"):
            self.completed -= {"both/x", "both/y"}
        if place <= STEPS.index("nap"):
            self.wakes_at = None
        self.generation += 1
        self.status, self.active = "running", True
        self.go_on(now, failing=failing)

    def fork(self, step: str, name: str) -> ModelRun:
        made = copy.deepcopy(self.before[step])
        made.name, made.status, made.active, made.tidied, made.generation = name, "pending", False, 0, 0
        return made

    def crash(self) -> None:
        self.active = False

    def recover(self, now: int, *, failing: bool) -> None:
        if self.status == "running" and not self.active:
            self.active = True
            self.go_on(now, failing=failing)

    # -- what a run does by itself ------------------------------------------------------------------------------------

    def go_on(self, now: int, *, failing: bool) -> None:
        """Everything up to the next wait."""
        while self.active and self.status == "running":
            step = next((step for step in STEPS if step not in self.completed), None)
            if step is None:
                self.status, self.active = "completed", False
                return
            if step not in self.before:
                snapshot = copy.deepcopy(self)
                self.before[step] = snapshot
            if step == "work" and failing:
                self.status, self.active = "failed", False
                return
            if not self._does(step, now):
                return
            self.completed.add(step)

    def _does(self, step: str, now: int) -> bool:
        if step == "ask":
            return self._take("go")
        if step == "nap":
            self.wakes_at = self.wakes_at if self.wakes_at is not None else now + NAP_S
            return now >= self.wakes_at
        if step == "both":
            for name in ("x", "y"):
                if f"both/{name}" not in self.completed and self._take(name):
                    self.completed.add(f"both/{name}")
            return {"both/x", "both/y"} <= self.completed
        return True

    def _take(self, name: str) -> bool:
        if not self.signals.get(name):
            return False
        self.signals[name] -= 1
        return True

    @property
    def begun(self) -> list[str]:
        """Steps that a retry or a fork may name, in order."""
        return [step for step in STEPS if step in self.before]
