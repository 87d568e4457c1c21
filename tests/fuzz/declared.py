"""Random definitions, and a plain interpreter of them: what a run of one gives, what its functions see and are called for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

__all__ = ["CONDITIONS", "Plain", "definition"]

DEEPEST = 2
KINDS = ("work",) * 4 + ("flaky", "collect", "parallel", "map", "loop", "conditional", "sleep", "wait", "task", "child")
CONTEXT = {"context": {"k": "start", "m": 0, "trail": []}}
FAILING = (*KINDS, "once", "once", "once", "collect failing", "child")
ENDING = (*KINDS, "collect failing", "collect failing", "child")
CONDITIONS = {
    "k == 'start'": lambda frame: frame.read("k") == "start",
    "len(trail) > 2": lambda frame: len(frame.read("trail")) > 2,
    "True": lambda frame: True,
}
Steps = list[dict[str, Any]]


class StepFails(Exception):
    """A step of the plain interpreter has failed for good."""

    def __init__(self, step: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.error = {"type": kind, "message": message}


def definition(seed: int, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The definition of a seed, of steps of some kinds: `once` fails the run a few times, `collect failing` collects what fails."""
    chosen = random.Random(seed)
    steps = _steps(chosen, 0, (2, 5), kinds)
    output = "{{ [" + ", ".join(f"step.{step['name']}.result" for step in steps) + "] }}"
    return {"id": "random", "name": "random", "context": {"k": "start", "m": 0, "trail": []}, "steps": steps, "output": output}


def _steps(chosen: random.Random, depth: int, count: tuple[int, int], kinds: Sequence[str]) -> Steps:
    return [_step(chosen, f"s{number}", depth, kinds) for number in range(chosen.randint(*count))]


def _function(name: str, body: str = "work", **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": body, **more}


def _child(name: str, steps: Steps, **more: Any) -> dict[str, Any]:
    return {"kind": "workflow", "name": name, "definition": {"id": "child", "name": "child", **CONTEXT, "steps": steps}, **more}


def _step(chosen: random.Random, name: str, depth: int, kinds: Sequence[str]) -> dict[str, Any]:
    def inside(least: int = 1, most: int = 3) -> Steps:
        return _steps(chosen, depth + 1, (least, most), kinds)

    def retried() -> dict[str, Any]:
        """Some steps fail at once, where they do; whoever collects that has them tried again, or what is around them."""
        attempts = chosen.choice((1, 1, 1, 2, 3)) if "collect failing" in kinds else 1
        return {} if attempts == 1 else {"retry": {"max_attempts": attempts, "delay_s": 0.001}}

    kind = chosen.choice(kinds if depth <= DEEPEST else [kind for kind in kinds if kind in ("work", "once")])
    match kind:
        case "once":
            return _function(name, "once")
        case "collect failing":
            kinds = [kind for kind in kinds if kind != "once"]  # it would be collected
            ending = {
                "kind": "sequence",
                "name": "ending",
                "steps": [*inside(), _function("bad", "bad", **retried()), _function("never")],
                **retried(),
            }
            nested = _child("nested", [*inside(0, 1), _function("bad", "bad", **retried())], **retried())
            branches = [ending, *chosen.choice([[], [nested]]), _function("fine")]
            return {"kind": "parallel", "name": name, "on_error": "collect", "branches": branches}
        case "flaky":
            return _function(name, "flaky", retry={"max_attempts": 40, "delay_s": 0.001})
        case "collect":
            return {"kind": "parallel", "name": name, "on_error": "collect", "branches": [_function("bad", "bad"), _function("fine")]}
        case "parallel":
            return {"kind": "parallel", "name": name, "branches": inside(), **retried()}
        case "map":
            nested = {"kind": "sequence", "name": "each", "steps": inside(1, 2)}
            limit = chosen.choice([{}, {"max_concurrency": 1}, {"max_concurrency": 2}])
            return {"kind": "map", "name": name, "over": list(range(chosen.randint(0, 3))), **limit, "step": nested, **retried()}
        case "loop":
            ends = chosen.choice([{}, {"until": "iteration >= 1"}, {"while": "len(results) < 2"}])
            return {"kind": "loop", "name": name, "max_iterations": chosen.randint(1, 3), **ends, "steps": inside(1, 2), **retried()}
        case "conditional":
            branches = {"then": inside(1, 2), "else": inside(0, 1)}
            return {"kind": "conditional", "name": name, "condition": chosen.choice(list(CONDITIONS)), **branches, **retried()}
        case "sleep":
            return {"kind": "sleep", "name": name, "seconds": 60}
        case "wait":
            return {"kind": "wait", "name": name, "signal": "nobody sends it", "within_s": 5, "default": "late"}
        case "task":
            return {"kind": "task", "name": name, "template": "{{ k }} {{ len(trail) }}"}
        case "child":
            return _child(name, inside(), **retried())
        case _:
            key = chosen.choice([{}, {"output_key": "k"}, {"output_key": "m"}])
            return _function(name, **key)


@dataclass
class Frame:
    """What a step sees: key spaces from the outermost to its own, and the names that a loop or map around it gives."""

    spaces: list[dict[str, Any]]
    names: dict[str, Any] = field(default_factory=dict)

    def read(self, name: str) -> Any:
        """The innermost value."""
        return next(space[name] for space in ({}, *reversed(self.spaces)) if name in space)

    def inside(self, **names: Any) -> Frame:
        """That of a branch or an item, whose writes stay there."""
        return Frame([*self.spaces, {}], {**self.names, **names})


class Plain:
    """Interprets a definition as a program without a log, processes or an event loop.

    Attributes:
        calls: run, step, and what it reads, of each function that is called to success or, where it always fails, at all.
        failures: how often each step fails, by run and address.
    """

    def __init__(self, defined: dict[str, Any], run_id: str) -> None:
        self.calls: set[tuple[str, str, str]] = set()
        self.failures: Counter[str] = Counter()
        self._kept: dict[tuple[str, str, str], Any] = {}
        self.result, self.context = self._run(defined, run_id)

    def _run(self, defined: dict[str, Any], run_id: str) -> tuple[Any, dict[str, Any]]:
        context = self._once("context", run_id, "", lambda: dict(defined["context"]))
        given = [self._step(step, step["name"], Frame([context]), run_id) for step in defined["steps"]]
        return (given if "output" in defined else given[-1]), context

    def _once(self, what: str, run_id: str, at: str, make: Callable[[], Any]) -> Any:
        """What another attempt at a step that has failed finds as the first one has left it."""
        key = what, run_id, at
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _inside(self, frame: Frame, run_id: str, at: str, **names: Any) -> Frame:
        return cast(Frame, self._once("frame", run_id, at, lambda: frame.inside(**names)))

    def _sequence(self, steps: Steps, prefix: str, frame: Frame, run_id: str) -> Any:
        given = None
        for step in steps:
            given = self._step(step, f"{prefix}/{step['name']}", frame, run_id)
        return given

    def _step(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return self._once("output", run_id, at, lambda: self._attempts(step, at, frame, run_id))

    def _attempts(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        left = step.get("retry", {}).get("max_attempts", 1)
        while True:
            try:
                output = getattr(self, f"_perform_{step['kind']}")(step, at, frame, run_id)
                break
            except StepFails:
                self.failures[f"{run_id}:{at}"] += 1
                left -= 1
                if not left:
                    raise
        if "output_key" in step:
            frame.spaces[-1][step["output_key"]] = output
        return output

    def _perform_function(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        seen = f"{frame.read('k')}|{frame.read('m')}|{len(frame.read('trail'))}"
        self.calls.add((run_id, at, seen))
        if step["function"] == "bad":
            raise StepFails(at, "ValueError", "bad")
        if step["function"] in ("work", "once"):
            frame.spaces[-1]["trail"] = [*frame.read("trail"), at]
            return at
        return "ok"

    def _perform_parallel(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return {
            branch["name"]: self._branch(
                step, branch, f"{at}/{branch['name']}", self._inside(frame, run_id, f"{at}/{branch['name']}"), run_id
            )
            for branch in step["branches"]
        }

    def _branch(self, step: dict[str, Any], branch: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        try:
            return self._step(branch, at, self._inside(frame, run_id, at), run_id)
        except StepFails as error:
            if step.get("on_error") != "collect":
                raise
            return {"error": error.error}

    def _perform_sequence(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return self._sequence(step["steps"], at, frame, run_id)

    def _perform_map(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return [
            self._sequence(step["step"]["steps"], f"{at}/{item}", self._inside(frame, run_id, f"{at}/{item}", item=item), run_id)
            for item in step["over"]
        ]

    def _perform_loop(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        results: list[Any] = []
        for iteration in range(step["max_iterations"]):
            if "while" in step and not len(results) < 2:
                break
            results.append(self._sequence(step["steps"], f"{at}/{iteration}", frame, run_id))
            if "until" in step and iteration >= 1:
                break
        return results

    def _perform_conditional(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        branch = self._once("branch", run_id, at, lambda: "then" if CONDITIONS[step["condition"]](frame) else "else")
        return self._sequence(step[branch], f"{at}/{branch}", frame, run_id)

    def _perform_sleep(self, *_: Any) -> None:
        return None

    def _perform_wait(self, step: dict[str, Any], *_: Any) -> Any:
        return step["default"]

    def _perform_task(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return f"{frame.read('k')} {len(frame.read('trail'))}"

    def _perform_workflow(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        child = f"{run_id}/{at}"
        try:
            return self._run(step["definition"], child)[0]
        except StepFails as error:
            message = f"run {child} failed at step {error.step}: {error.error['type']}: {error}"
            raise StepFails(at, "RunFailedError", message) from error
