"""Random definitions, and a plain interpreter of them: what a run of one gives, what its functions see and are called for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONDITIONS", "Plain", "definition"]

DEEPEST = 2
CONDITIONS = {
    "k == 'start'": lambda frame: frame.read("k") == "start",
    "len(trail) > 2": lambda frame: len(frame.read("trail")) > 2,
    "True": lambda frame: True,
}
Steps = list[dict[str, Any]]


def definition(seed: int) -> dict[str, Any]:
    """The definition of a seed."""
    chosen = random.Random(seed)
    steps = _steps(chosen, 0, (2, 5))
    output = "{{ [" + ", ".join(f"step.{step['name']}.result" for step in steps) + "] }}"
    return {"id": "random", "name": "random", "context": {"k": "start", "m": 0, "trail": []}, "steps": steps, "output": output}


def _steps(chosen: random.Random, depth: int, count: tuple[int, int]) -> Steps:
    return [_step(chosen, f"s{number}", depth) for number in range(chosen.randint(*count))]


def _function(name: str, body: str = "work", **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": body, **more}


def _step(chosen: random.Random, name: str, depth: int) -> dict[str, Any]:
    def inside(least: int = 1, most: int = 3) -> Steps:
        return _steps(chosen, depth + 1, (least, most))

    kinds = ["work"] * 4 + ["flaky", "collect", "parallel", "map", "loop", "conditional", "sleep", "wait", "task", "child"]
    kind = chosen.choice(kinds if depth <= DEEPEST else ["work"])
    match kind:
        case "flaky":
            return _function(name, "flaky", retry={"max_attempts": 40, "delay_s": 0.001})
        case "collect":
            return {"kind": "parallel", "name": name, "on_error": "collect", "branches": [_function("bad", "bad"), _function("fine")]}
        case "parallel":
            return {"kind": "parallel", "name": name, "branches": inside()}
        case "map":
            nested = {"kind": "sequence", "name": "each", "steps": inside(1, 2)}
            limit = chosen.choice([{}, {"max_concurrency": 1}, {"max_concurrency": 2}])
            return {"kind": "map", "name": name, "over": list(range(chosen.randint(0, 3))), **limit, "step": nested}
        case "loop":
            ends = chosen.choice([{}, {"until": "iteration >= 1"}, {"while": "len(results) < 2"}])
            return {"kind": "loop", "name": name, "max_iterations": chosen.randint(1, 3), **ends, "steps": inside(1, 2)}
        case "conditional":
            branches = {"then": inside(1, 2), "else": inside(0, 1)}
            return {"kind": "conditional", "name": name, "condition": chosen.choice(list(CONDITIONS)), **branches}
        case "sleep":
            return {"kind": "sleep", "name": name, "seconds": 60}
        case "wait":
            return {"kind": "wait", "name": name, "signal": "nobody sends it", "within_s": 5, "default": "late"}
        case "task":
            return {"kind": "task", "name": name, "template": "{{ k }} {{ len(trail) }}"}
        case "child":
            child = {"id": "child", "name": "child", "context": {"k": "start", "m": 0, "trail": []}, "steps": inside()}
            return {"kind": "workflow", "name": name, "definition": child}
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
    """

    def __init__(self, defined: dict[str, Any], run_id: str) -> None:
        self.calls: set[tuple[str, str, str]] = set()
        self.result, self.context = self._run(defined, run_id)

    def _run(self, defined: dict[str, Any], run_id: str) -> tuple[Any, dict[str, Any]]:
        context = {name: list(value) if isinstance(value, list) else value for name, value in defined["context"].items()}
        given = [self._step(step, step["name"], Frame([context]), run_id) for step in defined["steps"]]
        return (given if "output" in defined else given[-1]), context

    def _sequence(self, steps: Steps, prefix: str, frame: Frame, run_id: str) -> Any:
        given = None
        for step in steps:
            given = self._step(step, f"{prefix}/{step['name']}", frame, run_id)
        return given

    def _step(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        output: Any = getattr(self, f"_{step['kind']}")(step, at, frame, run_id)
        if "output_key" in step:
            frame.spaces[-1][step["output_key"]] = output
        return output

    def _function(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        seen = f"{frame.read('k')}|{frame.read('m')}|{len(frame.read('trail'))}"
        self.calls.add((run_id, at, seen))
        if step["function"] == "work":
            frame.spaces[-1]["trail"] = [*frame.read("trail"), at]
            return at
        return "ok" if step["function"] == "flaky" else {"error": {"type": "ValueError", "message": "bad"}}

    def _parallel(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return {branch["name"]: self._step(branch, f"{at}/{branch['name']}", frame.inside(), run_id) for branch in step["branches"]}

    def _map(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return [self._sequence(step["step"]["steps"], f"{at}/{item}", frame.inside(item=item), run_id) for item in step["over"]]

    def _loop(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        results: list[Any] = []
        for iteration in range(step["max_iterations"]):
            if "while" in step and not len(results) < 2:
                break
            results.append(self._sequence(step["steps"], f"{at}/{iteration}", frame, run_id))
            if "until" in step and iteration >= 1:
                break
        return results

    def _conditional(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        branch = "then" if CONDITIONS[step["condition"]](frame) else "else"
        return self._sequence(step[branch], f"{at}/{branch}", frame, run_id)

    def _sleep(self, *_: Any) -> None:
        return None

    def _wait(self, step: dict[str, Any], *_: Any) -> Any:
        return step["default"]

    def _task(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return f"{frame.read('k')} {len(frame.read('trail'))}"

    def _workflow(self, step: dict[str, Any], at: str, frame: Frame, run_id: str) -> Any:
        return self._run(step["definition"], f"{run_id}/{at}")[0]
