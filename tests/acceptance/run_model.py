"""A model of runs: what the requests to them should do, without a log, an event loop or a clock.

The workflow: wait for the signal `go`; work, which works, fails or hangs as it is told to; sleep; wait for the signals `x` and `y`
beside each other; a child run, which waits for `go` and labours; done. Who is cancelled undoes work, labour and what was done, tidies up,
rests and sweeps. Undoing work and labour, and sweeping, fails where work and labour would.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ADDRESSES", "CLEANUP", "FAILING", "NAP_S", "OF_CLEANUP", "PLANS", "REST_S", "Illegal", "Mode", "Model", "ModelRun", "NotBegun"]

Mode = Literal["works", "fails", "hangs"]
PLANS = {"whole": ("ask", "work", "nap", "both", "kid", "done"), "child": ("ask", "labour")}
ADDRESSES = {"whole": ("ask", "work", "nap", "both", "both/x", "both/y", "kid", "done"), "child": ("ask", "labour")}
CLEANUP = ("cleanup/tidy", "cleanup/rest", "cleanup/sweep")
NAP_S, REST_S = 100, 10
ENDED = ("completed", "failed", "cancelled")
_moments = itertools.count(1)
SHARED = ("outputs", "attempts", "signals", "timers", "children", "completed")
UNDONE = ("work", "done", "labour")
"""The steps that have an undo."""
OF_CLEANUP = ("undo/", "cleanup/")
FAILING = ("work", "labour", "sweep")
"""The names of the steps that fail where work is told to."""


class Illegal(Exception):
    """The request may not be made now: the run's status does not allow it, or it executes."""

    def __init__(self, run: ModelRun, leads_to: str) -> None:
        super().__init__(f"{run.name} is {run.status}: {leads_to}")
        self.status = run.status
        self.leads_to = leads_to


class NotBegun(Exception):
    """Neither has the run begun that step, nor what it was forked from."""


@dataclass
class ModelRun:
    """What is expected of one run.

    Attributes:
        active: whether it executes in the present process.
        hanging: whether its work is under way, and in the hands of the application.
        entered: whether it has taken up its child run, or is cancelling those that had not ended, since it became active.
        going: the child runs whose cancellation it waits for.
        failed: whether the last attempt at its step `kid` has failed; the next one is another.
        life: which run of its id it is: a rewind may take one away and bring it back, with others in between.
        taken_back: how often it was.
        going_back: the step that it is to be taken back to, once the child run that is dropped with it has ended.
        giving_up: the child runs that a request to take it back waits for, which was given up.
        raised: by address, its generation where it was taken back; "" stands for all of them.
        executions: by address of a step that it has begun itself, the generation that it has begun in.
        dropped: by address and generation, executions that were taken back: when they had ended, and their child run.
        undone: executions that have been undone; no rewind takes that back.
        gave_up: what has failed in its clean-up, until it is tried again.
        asked: whether somebody has asked by name that its clean-up goes on, since it became active.
        tried: child runs, cancelled before it was, the clean-ups of which went on with its own.
        opened: child runs that had something left to clean up when its clean-up began or went on.
        phase: how far it has come with its child runs while it is cancelling.
        to_undo: the child runs that it has still to undo then, the next one last: they had completed when that began.
        ended: when it has completed.
        with_parent: whether it was paused or cancelled because its parent was.
        before: by address of a step it has begun, what a fork begins with there.
        begun: by address of a step it has begun, which of all beginnings that was.
        completed: the same of completions.
    """

    name: str
    kind: str = "whole"
    parent: str | None = None
    status: str = "pending"
    active: bool = False
    hanging: bool = False
    entered: bool = False
    going: list[str] = field(default_factory=list)
    failed: bool = False
    life: int = 0
    taken_back: int = 0
    going_back: str | None = None
    giving_up: list[str] = field(default_factory=list)
    raised: dict[str, int] = field(default_factory=dict)
    executions: dict[str, int] = field(default_factory=dict)
    dropped: dict[tuple[str, int], tuple[int, str | None]] = field(default_factory=dict)
    undone: set[tuple[str, int]] = field(default_factory=set)
    gave_up: set[str] = field(default_factory=set)
    asked: bool = False
    tried: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    phase: int = 0
    to_undo: list[str] = field(default_factory=list)
    ended: tuple[int, int] = (0, 0)
    with_parent: bool = False
    outputs: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    signals: dict[str, list[int]] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    completed: dict[str, int] = field(default_factory=dict)

    def shared(self) -> dict[str, Any]:
        """What a fork takes over."""
        return {**copy.deepcopy({name: getattr(self, name) for name in SHARED}), "before": dict(self.before), "begun": dict(self.begun)}

    def generation(self, address: str) -> int:
        """The largest one of an address and those above it; an undo has at least that of its step."""
        parts = address.split("/")
        largest = max(self.raised.get("/".join(parts[:length]), 0) for length in range(len(parts) + 1))
        return max(largest, self.generation(address[5:])) if address.startswith("undo/") else largest

    def take_back(self, addresses: Iterable[str]) -> None:
        """These executions hold no longer."""
        for address in addresses:
            if address in self.executions:
                ended = self.completed.get(address, self.begun[address])
                self.dropped[address, self.executions[address]] = (ended, self.children.get(address))

    @property
    def is_open(self) -> bool:
        """Whether it was cancelled with something left to clean up in itself."""
        return self.status == "cancelled" and any(at.startswith(OF_CLEANUP) and at not in self.outputs for at in self.attempts)

    def is_now(self, then: ModelRun | None) -> None:
        """It is taken back to what it was; what has begun or completed since is of another generation.

        What it shares with another run is not: it has used none of its keys for that. A step with steps inside, which had begun before, is
        not: what was under way in it then keeps its generation. What was under way where an earlier rewind led, and has not begun again
        since, is on record as begun, and is raised once more.
        """
        begun, completed = ({}, {}) if then is None else (then.begun, then.completed)
        around = {address.rpartition("/")[0] for address in self.begun}
        ours = {address for address in self.begun if address in self.executions or address.startswith(OF_CLEANUP)}
        ours |= {address for address, moment in self.begun.items() if begun.get(address) == moment}
        ours |= {address for address, _ in self.dropped if address in self.begun}
        lost = {address for address, moment in self.begun.items() if begun.get(address) != moment}
        lost |= {address for address, moment in self.completed.items() if completed.get(address) != moment and address not in around}
        undone = {address[5:] for address in lost if address.startswith("undo/")}
        lost = {address for address in lost & ours if not address.startswith("undo/")}
        lost |= {address for address in undone if address in begun and address not in completed}
        self.take_back(lost)
        self.raised |= {address: self.generation(address) + 1 for address in sorted(lost)}

    def leave(self) -> None:
        """It is gone, and has begun nothing that could be taken back once more."""
        self.begun, self.completed, self.executions = {}, {}, {}

    def holds_again(self, then: ModelRun) -> None:
        """What it was holds: what was under way goes on under the key of now, which is another execution, once it begins."""
        for address, generation in list(then.executions.items()):
            if address in then.begun and address not in then.completed and generation != self.generation(address):
                del then.executions[address]
            else:
                self.dropped.pop((address, generation), None)

    def begin(self, address: str, *, again: bool = False) -> None:
        """A step begins; one without a body only once, however often it is entered."""
        if address not in self.before and (again or address not in self.attempts):
            self.before[address] = self.shared()
            self.begun[address] = next(_moments)
        if address not in self.executions and not address.startswith(OF_CLEANUP) and (again or address not in self.attempts):
            self.executions[address] = self.generation(address)
        if again or address not in self.attempts:
            self.attempts[address] = self.attempts.get(address, 0) + 1

    def complete(self, address: str, output: Any) -> None:
        """A step completes."""
        self.outputs[address] = output
        self.completed[address] = next(_moments)

    def take(self, name: str, address: str) -> bool:
        """Whether a wait got its signal; the oldest one first."""
        if not self.signals.get(name):
            return False
        self.complete(address, self.signals[name].pop(0))
        self.signals = {name: kept for name, kept in self.signals.items() if kept}
        return True

    def rests(self, address: str, now: int, seconds: int) -> bool:
        """Whether a sleep, whose end is fixed when it begins, goes on."""
        self.begin(address)
        if now < self.timers.setdefault(address, now + seconds):
            return True
        del self.timers[address]
        self.complete(address, None)
        return False

    def stop(self) -> None:
        """It executes no longer."""
        self.active = self.hanging = self.entered = self.asked = False
        self.going, self.to_undo = [], []
        self.phase = 0
        self.going_back = None

    def is_left_by_all(self) -> None:
        """No request of the process is under way any more, neither what drives it nor what was given up and waits for its child runs."""
        self.stop()
        self.giving_up = []


class Model:
    """All runs, by id, in the order in which they were made.

    Attributes:
        now: seconds that have passed.
        mode: what becomes of work that begins now.
        finished: by idempotency key, how often a body has come to its end.
        gone: runs that a rewind has taken away: another one of that id does not do its work under the keys of these.
        lives: by life, runs that others have taken the id of: what they have begun is theirs to undo, if a rewind brings them back.
        given_up: runs that were to be taken back, and were paused or cancelled before; the requests to take them back fail.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ModelRun] = {}
        self.now = 0
        self.mode: Mode = "works"
        self.finished: Counter[str] = Counter()
        self.given_up: list[str] = []
        self.gone: dict[str, ModelRun] = {}
        self.lives: dict[int, ModelRun] = {}

    # -- requests: each is legal, or raises with nothing changed ------------------------------------------------------

    def start(self, name: str) -> None:
        self.resume(self._make(name))

    def _make(self, name: str, kind: str = "whole", **more: Any) -> ModelRun:
        before = self.gone.pop(name, None)
        again: dict[str, Any] = {} if before is None else {"raised": dict(before.raised), "taken_back": 1}
        if before is not None:
            self.lives[before.life] = before
        made = self.runs[name] = ModelRun(name, kind, life=next(_moments), **more, **again)
        return made

    def resume(self, run: ModelRun) -> None:
        if run.status == "paused" and run.active:  # its work is under way: the request to pause is taken back
            run.status, run.with_parent = "running", False
            return
        held = (run.going_back or run.giving_up) and run.status != "cancelling"
        if run.active or run.status == "completed" or (run.status == "cancelled" and not self._is_open(run)) or held:
            raise Illegal(run, "running")
        if run.status == "cancelled":
            run.status = "cancelling"
        run.gave_up, run.tried, run.asked = set(), set(), True
        self._take_up(run)

    def _is_open(self, run: ModelRun) -> bool:
        return run.is_open or (run.status == "cancelled" and any(child.is_open for child in self._children(run)))

    def pause(self, run: ModelRun, *, with_parent: bool = False) -> None:
        if run.status != "running":
            raise Illegal(run, "paused")
        self._give_up_going_back(run)
        run.status, run.with_parent = "paused", with_parent
        if not run.hanging:
            self._stop_paused(run)

    def cancel(self, run: ModelRun, *, patient: bool = True, with_parent: bool = False) -> None:
        if run.status in ("completed", "cancelled"):
            raise Illegal(run, "cancelled")
        self._give_up_going_back(run)
        if run.status != "cancelling":
            run.with_parent = with_parent
            run.tried = set()
        if run.status != "cancelling" or not run.active:  # else its end is awaited
            run.status, run.active, run.entered = "cancelling", True, False
        run.hanging = run.hanging and patient

    def signal(self, run: ModelRun, name: str, payload: int) -> None:
        if run.status in ("completed", "cancelled"):
            raise Illegal(run, "signal")
        run.signals.setdefault(name, []).append(payload)

    def retry_from(self, run: ModelRun, step: str) -> None:
        if run.active or run.going_back or run.giving_up or run.status in ("pending", "cancelling"):
            raise Illegal(run, "running")
        if step not in run.before:
            raise NotBegun
        run.going_back = step
        if "kid" in self._dropped(run, step):
            run.going = [child.name for child in self._children(run) if child.status not in ENDED]
            for name in run.going:
                self.cancel(self.runs[name], with_parent=True)

    def retry_cleanup(self, run: ModelRun, address: str) -> None:
        """That step of a clean-up is done once more, under another key, and what has failed of the clean-up is tried again."""
        if run.active or run.going_back or run.giving_up or run.status == "pending":
            raise Illegal(run, "running")
        if address not in run.attempts:
            raise NotBegun
        run.raised[address] = run.generation(address) + 1
        run.taken_back += 1
        for held in (run.outputs, run.attempts, run.timers, run.before, run.begun, run.completed):
            held.pop(address, None)
        run.gave_up, run.tried, run.asked = set(), set(), True
        run.status, run.active = "cancelling", True

    def _dropped(self, run: ModelRun, step: str) -> list[str]:
        """What came after a step, and what has been undone; what is to undo an earlier execution stays until it has."""
        beside = {"both/x": ["both/y"], "both/y": ["both/x"]}.get(step, [])
        came = [address for address, moment in run.begun.items() if moment >= run.begun[step] and address not in beside]
        return [
            address
            for address in dict.fromkeys([*came, *self._undone(run)])
            if not (address.startswith("undo/@") and address not in run.outputs)
        ]

    def _undone(self, run: ModelRun) -> list[str]:
        """The steps of a run that hold no longer: they have been undone, or their child runs have."""
        ours = [address[5:] for address in run.attempts if address.startswith("undo/") and not address.startswith("undo/@")]
        kid = self.runs.get(run.children.get("kid", ""))
        theirs = ["kid"] if "kid" in run.outputs and kid is not None and kid.parent == run.name and self._is_cleaning(kid) else []
        return [address for address in dict.fromkeys([*ours, *theirs]) if address in run.attempts]

    @staticmethod
    def _is_cleaning(run: ModelRun) -> bool:
        return run.status in ("cancelling", "cancelled")

    def _give_up_going_back(self, run: ModelRun) -> None:
        if run.going_back is not None:
            run.going_back = None
            run.giving_up = [name for name in run.going if self.runs[name].status not in ENDED]
            self.given_up.append(run.name)

    def _go_back(self, run: ModelRun) -> None:
        """What has not begun since the step is not taken back, and keeps its generation."""
        assert run.going_back is not None
        run.going = [name for name in run.going if self.runs[name].status not in ENDED]
        if run.going:
            return
        dropped = self._dropped(run, run.going_back)
        raised = {address: run.generation(address) + 1 for address in dropped if not address.startswith("undo/@")}
        for undo in [at for at in dropped if at.startswith("undo/") and not at.startswith("undo/@") and at not in run.outputs]:
            moved = f"undo/@{run.generation(undo)}/{undo[5:]}"
            run.attempts[moved] = run.attempts[undo]
        run.take_back(dropped)
        run.gave_up = set()
        for address in dropped:
            run.executions.pop(address, None)
            for held in (run.outputs, run.attempts, run.timers, run.children, run.before, run.begun, run.completed):
                held.pop(address, None)
            run.failed = run.failed and address != "kid"
        if run.going_back.startswith("both/"):
            run.outputs.pop("both", None)
            run.completed.pop("both", None)
        run.raised.update(raised)
        run.taken_back += 1
        run.status, run.active, run.going_back = "running", True, None

    def fork(self, run: ModelRun, step: str, name: str, *, signals: bool) -> None:
        if step not in run.before:
            raise NotBegun
        shared = copy.deepcopy(run.before[step])
        made = self._make(name, run.kind, **(shared if signals else {**shared, "signals": {}}))
        if made.taken_back:
            made.raised[""] = 1
        made.children = {address: child for address, child in made.children.items() if address in made.outputs}
        cleaned = [address for address in made.attempts if address.startswith(OF_CLEANUP)]
        for address in [*self._undone(run), *cleaned]:
            for held in (made.outputs, made.attempts, made.timers, made.children, made.before, made.begun, made.completed):
                held.pop(address, None)

    def moment(self) -> dict[str, ModelRun]:
        """All runs as they are, to go back to."""
        return copy.deepcopy(self.runs)

    def rewind(self, then: dict[str, ModelRun], taken_back: set[str]) -> None:
        """Every run is what it was, and none executes.

        Args:
            then: a moment.
            taken_back: the runs of which that is on record; of the others nothing differs.
        """
        self.crash()
        self.given_up.clear()
        known = {**self.gone, **self.runs}
        self.runs = {name: copy.deepcopy(run) if name in taken_back else known[name] for name, run in then.items()}
        for name in taken_back:
            run, left = self.runs.get(name), known[name]
            left.is_now(run)
            if run is not None and run.life != left.life:
                left.leave()
                self.lives[left.life], known[name] = left, self.lives[run.life]
                known[name].raised, known[name].taken_back = left.raised, left.taken_back
            if run is not None:
                known[name].holds_again(run)
            known[name].taken_back += 1
        for name, run in self.runs.items():
            run.is_left_by_all()  # at that moment requests may have been under way
            run.raised = known[name].raised
            run.dropped = known[name].dropped
            run.undone = known[name].undone
            run.taken_back = known[name].taken_back
        self.gone = {name: run for name, run in known.items() if name not in self.runs}
        for run in self.gone.values():
            run.leave()

    def recover(self) -> list[str]:
        taken_up = [run for run in self.runs.values() if self._is_left(run)]
        for run in taken_up:
            self._take_up(run)
        return [run.name for run in taken_up]

    # -- what else happens --------------------------------------------------------------------------------------------

    def crash(self) -> None:
        for run in self.runs.values():
            run.is_left_by_all()

    def release(self, run: ModelRun, *, works: bool) -> None:
        """Work that hangs comes to its end."""
        run.hanging = False
        self._end_body(run, "work", works=works)

    def settle(self) -> None:
        """Every run does what it can do by itself."""
        moves = True
        while moves:
            moves = False
            for run in list(self.runs.values()):
                moves = self._goes_on(run) or moves

    # -- inside -------------------------------------------------------------------------------------------------------

    def _goes_on(self, run: ModelRun) -> bool:
        if run.going_back is not None:
            self._go_back(run)
            return run.active
        if run.giving_up:
            run.giving_up = [name for name in run.giving_up if self.runs[name].status not in ENDED]
        if not run.active or run.hanging:
            return False
        before = (run.shared(), run.status, run.entered, run.phase, set(run.gave_up))
        if run.status == "paused":
            self._stop_paused(run)
        elif run.status == "cancelling":
            self._clean_up(run)
        else:
            step = next((step for step in PLANS[run.kind] if step not in run.outputs), None)
            if step is None:
                run.status, run.ended = "completed", (self.now, next(_moments))
                run.stop()
            else:
                self._do(run, step)
        return not run.active or run.hanging or (run.shared(), run.status, run.entered, run.phase, run.gave_up) != before

    def _do(self, run: ModelRun, step: str) -> None:
        if step in ("work", "labour", "done"):
            self._begin_body(run, step)
        elif step == "nap":
            run.rests(step, self.now, NAP_S)
        elif step == "ask":
            run.begin(step)
            run.take("go", step)
        elif step == "kid":
            self._do_child(run)
        else:
            for address in ("both", "both/x", "both/y"):
                run.begin(address)
            got = [f"both/{name}" in run.outputs or run.take(name, f"both/{name}") for name in ("x", "y")]
            if all(got):
                run.complete("both", {name: run.outputs[f"both/{name}"] for name in ("x", "y")})

    def _begin_body(self, run: ModelRun, address: str) -> None:
        run.begin(address, again=True)
        if address == "work" and self.mode == "hangs":
            run.hanging = True
        else:
            self._end_body(run, address, works=address.rpartition("/")[2] not in FAILING or self.mode != "fails")

    def _end_body(self, run: ModelRun, address: str, *, works: bool) -> None:
        if works:
            run.complete(address, address)
            step, generation = address, run.generation(address)
            if address.startswith("undo/@"):
                before, _, step = address[6:].partition("/")
                step, generation = f"undo/{step}", int(before)
            self.finished[f"{run.name}:{step}:{generation}"] += 1
            if step.startswith("undo/"):
                run.undone.add((step[5:], generation))
        elif address.startswith(OF_CLEANUP):
            run.gave_up.add(address)
        elif run.status != "cancelling":
            self._fail(run)

    def _do_child(self, run: ModelRun) -> None:
        goes_on = "kid" in run.attempts and not run.failed  # a child run that has failed since has failed this attempt
        run.begin("kid", again=run.failed)
        run.failed = False
        if not run.entered:
            run.entered = True
            if "kid" not in run.children or self._is_cleaned_up(self.runs[run.children["kid"]]):
                generation = run.generation("kid")
                wanted = f"{run.name}/kid" + (f"@{generation}" if generation else "")
                taken = [f"{wanted}~{number}" for number in range(2, 100)]
                name = next(name for name in (wanted, *taken) if name not in self.runs and name not in self.gone)
                run.children["kid"] = name
                self._make(name, "child", parent=run.name)
            child = self.runs[run.children["kid"]]
            if child.status == "cancelled" and child.with_parent:
                child.status = "running"
            paused_by_itself = child.status == "paused" and not child.with_parent
            over = ENDED if goes_on else ("completed", "cancelled")
            if child.status not in over and not child.active and not paused_by_itself:
                self._take_up(child)
        child = self.runs[run.children["kid"]]
        if child.active or child.status == "paused":
            return
        if child.status == "completed":
            run.complete("kid", "labour")
            run.entered = False
        elif child.status in ENDED:
            run.failed = True
            self._fail(run)

    def _clean_up(self, run: ModelRun) -> None:
        if not run.entered:
            run.entered, run.phase = True, 0
            tried = [] if run.asked else [child for child in self._all_children(run) if child.with_parent or child.name in run.tried]
            run.opened = [child.name for child in self._all_children(run) if child.is_open and child not in tried]
            run.going = self._ends_with(run)
        while run.going or run.phase < 3 or run.to_undo:
            run.going = [name for name in run.going if self.runs[name].status not in ENDED]
            if run.going:
                return
            if run.phase < 3:
                run.phase += 1
                run.going = (self._fails_with, self._opens_with, self._undoes)[run.phase - 1](run)
            else:
                run.going = self._undoes_next(run)
        for address in (*self._undos(run), *CLEANUP):
            if address not in run.outputs and address not in run.gave_up:
                if address == "cleanup/rest":
                    if run.rests(address, self.now, REST_S):
                        return
                else:
                    self._begin_body(run, address)
        run.status = "cancelled"
        run.stop()

    def _all_children(self, run: ModelRun) -> list[ModelRun]:
        """Its own, and those of steps that were taken back."""
        dropped = (self.runs.get(child) for _, child in run.dropped.values() if child is not None)
        found = [*self._children(run), *(child for child in dropped if child is not None and child.parent == run.name)]
        return list({child.name: child for child in found}.values())

    def _ends_with(self, run: ModelRun) -> list[str]:
        return self._cancel_all([child for child in self._children(run) if child.status not in ENDED])

    def _fails_with(self, run: ModelRun) -> list[str]:
        return self._cancel_all([child for child in self._all_children(run) if child.status == "failed"])

    def _cancel_all(self, children: list[ModelRun]) -> list[str]:
        for child in children:
            if child.status != "cancelling" or not child.active:
                self.cancel(child, with_parent=True)
        return [child.name for child in children]

    def _opens_with(self, run: ModelRun) -> list[str]:
        run.tried.update(name for name in run.opened if not self.runs[name].with_parent)
        found = [self.runs[name] for name in run.opened if self.runs[name].is_open]
        for child in found:
            self.resume(child)
        return [child.name for child in found]

    def _undoes(self, run: ModelRun) -> list[str]:
        """The child runs that have completed by now are undone, one after the other, the one that did last first."""
        completed = [child for child in self._all_children(run) if child.status == "completed"]
        run.to_undo = [child.name for child in sorted(completed, key=lambda child: child.ended)]
        return self._undoes_next(run)

    def _undoes_next(self, run: ModelRun) -> list[str]:
        """One that was taken back since, by its name, ends with its parent."""
        if not run.to_undo:
            return []
        child = self.runs[run.to_undo.pop()]
        if child.status == "completed":
            child.status, child.active, child.entered, child.with_parent = "cancelling", True, False, True
        elif child.status != "cancelled":
            self._cancel_all([child])
        return [child.name]

    def _undos(self, run: ModelRun) -> list[str]:
        """What undoes its executions: those that have not completed first, the others in the reverse order of their ends."""
        found = []
        for address, generation in run.executions.items():
            if address in UNDONE and (address, generation) not in run.undone:
                done = run.completed.get(address)
                undo = f"undo/{address}" if run.generation(f"undo/{address}") == generation else f"undo/@{generation}/{address}"
                found.append(((done is None, run.begun[address] if done is None else done), undo))
        for (address, generation), (ended, _) in run.dropped.items():
            if address in UNDONE and (address, generation) not in run.undone:
                found.append(((False, ended), f"undo/@{generation}/{address}"))
        return [address for _, address in sorted(found, reverse=True)]

    @staticmethod
    def _is_cleaned_up(child: ModelRun) -> bool:
        """Cancelled with its parent, with something cleaned up: another one begins in its place."""
        return child.status == "cancelled" and child.with_parent and any(address.startswith(OF_CLEANUP) for address in child.attempts)

    def _take_up(self, run: ModelRun) -> None:
        run.active = True
        if run.status != "cancelling":
            run.status, run.with_parent = "running", False

    def _stop_paused(self, run: ModelRun) -> None:
        run.stop()
        for child in self._children(run):
            if child.status == "running":
                self.pause(child, with_parent=True)

    def _is_left(self, run: ModelRun) -> bool:
        return run.status in ("running", "cancelling") and not run.active and not run.going_back and not self._has_driver(run)

    @staticmethod
    def _fail(run: ModelRun) -> None:
        run.status = "failed"
        run.stop()

    def _has_driver(self, run: ModelRun) -> bool:
        """Whether the run that started it takes it up: one that goes on, and has it as its step's."""
        parent = self.runs[run.parent] if run.parent is not None else None
        going = parent is not None and parent.status in ("running", "cancelling") and "kid" not in parent.outputs
        return parent is not None and going and parent.children.get("kid") == run.name

    def _children(self, run: ModelRun) -> list[ModelRun]:
        """Its own: a fork shares what the child run of its original gave, not the child run."""
        return [child for child in map(self.runs.__getitem__, run.children.values()) if child.parent == run.name]
