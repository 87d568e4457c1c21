"""What a step sees of its run: the names of its surroundings, and the outputs of the steps before it.

A *frame* is the place of a sequence of steps in a run: what their addresses begin with, the frame around it, the names that a loop
or a map adds, and whether what its steps write stays in a key space of its own. A name is looked up from the innermost frame to the run,
so a step of a branch sees its siblings first. Frames are made anew by whoever drives the run; nothing of them is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from symphony_es.shown import message, quoted
from symphony_es.workflow.language.parts import NamedParts, NumberedParts, Parts, complete
from symphony_es.workflow.runs.parts import output_at, seen_at
from symphony_es.workflow.runs.spaces import space_at
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import handed

if TYPE_CHECKING:
    from symphony_es.core.world.members import Members
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.record.reads import Reads
    from symphony_es.workflow.runs.context import UndoneStep
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Frame", "StepOutputs", "TemplateScope"]

_NONE: Mapping[str, Any] = MappingProxyType({})


class Frame:
    """One sequence of steps in a run, and what lies around it.

    Attributes:
        run: the run.
        prefix: what the addresses of its steps begin with: empty, or ending with "/".
        steps: the siblings.
        outer: the frame around it; None for the first level.
        key_space: address of the key space that writes go to; None for the run's context.
        then: the run as it was, where its steps see that: `names` are all the values of the context then. None where they see it as it is.
        undoes: of what undoes a step that was taken back, that step; else None.
    """

    __slots__ = ("_by_name", "key_space", "names", "opens", "outer", "prefix", "run", "steps", "then", "undoes")

    def __init__(
        self,
        run: Workflow,
        prefix: str = "",
        steps: Sequence[Step] = (),
        outer: Frame | None = None,
        *,
        names: Mapping[str, Any] | None = None,
        key_space: str | None = None,
        then: Workflow | None = None,
        undoes: UndoneStep | None = None,
    ) -> None:
        self.run = run
        self.then = then
        self.undoes = undoes
        self.prefix = prefix
        self.steps = steps
        self.outer = outer
        self.names = names or _NONE
        self.opens = key_space is not None
        self.key_space: str | None = key_space if outer is None or key_space is not None else outer.key_space
        self._by_name: dict[str, Step] | None = None

    def find(self, name: str) -> tuple[str, Step] | None:
        """Return address and step of a sibling by its name or id, or None."""
        if self._by_name is None:
            self._by_name = {step.name: step for step in self.steps} | {step.id: step for step in self.steps}
        step = self._by_name.get(name)
        return None if step is None else (self.prefix + step.id, step)

    def around(self) -> Iterator[Frame]:
        """Yield this frame and those around it, from the innermost."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.outer

    def layers(self) -> Iterator[Mapping[str, Any]]:
        """Return where a key of the context is looked up, in this order."""
        if self.then is not None:
            yield self.names
            return
        for frame in self.around():
            if frame.opens and frame.key_space is not None:
                written = space_at(self.run, frame.key_space)
                if written is not None:
                    yield written
            if frame.names:
                yield frame.names
        yield self.run.context

    def placed_layers(self) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
        """Yield the same, each with the place that has it: the address of a branch, or of an iteration; None for the run's context."""
        if self.then is not None:
            yield None, self.names
            return
        for frame in self.around():
            if frame.opens and frame.key_space is not None:
                written = space_at(self.run, frame.key_space)
                if written is not None:
                    yield frame.key_space, written
            if frame.names:
                yield frame.key_space if frame.opens else frame.prefix.rstrip("/"), frame.names
        yield None, self.run.context

    def written(self) -> Mapping[str, Any] | None:
        """Return what stands as a whole where writes go, or None while nothing does."""
        return self.run.context if self.key_space is None else self.run.scopes.get(self.key_space)

    @property
    def seen(self) -> Workflow:
        """The run whose outputs its steps see."""
        return self.run if self.then is None else self.then

    @property
    def root(self) -> tuple[str, ...]:
        """The path in the run where writes go."""
        return ("context",) if self.key_space is None else ("scopes", self.key_space)


class StepOutputs(Mapping[str, Any]):
    """Outputs of a run's completed steps: by the name or id of a step in a frame or around it, or by address.

    Attributes:
        noted: called with the address of each output that is read; None where nobody takes note.
        world: the run's, where the outputs are handed to code; None where they are not.
    """

    def __init__(
        self, frame: Frame, *, copies: bool = True, noted: Callable[[str], None] | None = None, world: Members | None = None
    ) -> None:
        self._world = world
        self._frame = frame
        self._run = frame.seen
        self._copies = copies
        self.noted = noted

    def __getitem__(self, name: str) -> Any:
        address = self.find(name)[0]
        output = output_at(self._run, address)
        if self.noted is not None:
            self.noted(address)
        if self._world is not None:
            handed(output, self._world)
        return thaw(output) if self._copies else output

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.recorded_outputs)

    def __len__(self) -> int:
        return len(self._run.recorded_outputs)

    def find(self, name: str) -> tuple[str, Step | None]:
        """Return the address of a completed step, and the step where a name or id was given.

        Raises:
            KeyError: no such step has completed; the message tells which have.
        """
        known = False
        for frame in self._frame.around():
            found = frame.find(name)
            if found is not None:
                if found[0] in self._run.recorded_outputs:
                    return found
                known = True
        if name in self._run.recorded_outputs:
            return name, None
        done = ", ".join(list(self._run.recorded_outputs)[:50]) or "none"
        why = f"step {quoted(name)} has not completed yet" if known else f"there is no step {quoted(name)} (completed: {done})"
        raise KeyError(message(why))


class TemplateScope(Mapping[str, Any]):
    """The names that templates and conditions read: the keys of the context as a frame sees it, and `step`.

    `step.<name or id>.result` is an output; of a parallel, loop or map also `.results`, its branches' outputs as a list in order, and
    `.contexts`, what the branches wrote. A context key `step` is hidden by it and can be reached as `context.step`.

    Attributes:
        reads: takes up what is read, or None.
    """

    def __init__(self, frame: Frame, reads: Reads | None = None) -> None:
        self._frame = frame
        self.reads = reads

    def __getitem__(self, name: str) -> Any:
        reads = self.reads
        if name == "step":
            return _StepResults(self._frame, reads.output if reads is not None else None)
        for place, layer in self._frame.placed_layers():
            if name in layer:
                if reads is not None:
                    reads.key(place, name)
                return layer[name]
        if name == "context":
            if reads is not None:
                reads.context()
            return self._frame.seen.context
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        keys = dict.fromkeys(key for layer in self._frame.layers() for key in layer if key != "step")
        yield from keys
        yield "step"

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _StepResults(Mapping[str, Any]):
    def __init__(self, frame: Frame, noted: Callable[[str], None] | None) -> None:
        self._frame = frame
        self._noted = noted
        self._outputs = StepOutputs(frame, copies=False)

    def __getitem__(self, name: str) -> Any:
        address, step = self._outputs.find(name)
        if self._noted is not None:
            self._noted(address)
        return _StepResult(self._frame.seen, address, step)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


class _StepResult(Mapping[str, Any]):
    """What can be read of one completed step."""

    def __init__(self, run: Workflow, address: str, step: Step | None) -> None:
        self._run = run
        self._address = address
        self._step = step

    def __getitem__(self, name: str) -> Any:
        output = self._output()
        if name == "result":
            return output
        if name == "results" and isinstance(output, (list, NumberedParts)):
            return output
        if name == "results" and isinstance(output, (dict, NamedParts)):
            branches = [branch.id for part in self._step.children().values() for branch in part] if self._step is not None else []
            output = complete(output)
            return [output[branch] for branch in branches if branch in output] or list(output.values())
        if name == "contexts":
            return _Contexts(self._run, self._address)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield "result"
        if isinstance(self._output(), (list, dict, Parts)):
            yield "results"

    def _output(self) -> Any:
        return seen_at(self._run.recorded_outputs, self._run.failures, self._address)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Contexts(Mapping[str, Any]):
    """What the branches of a step wrote, by the rest of their addresses; one of them is found without a look at the others."""

    def __init__(self, run: Workflow, address: str) -> None:
        self._run = run
        self._before = f"{address}/"

    def __getitem__(self, branch: object) -> Any:  # a template may ask for a number
        found = space_at(self._run, f"{self._before}{branch}") if isinstance(branch, str) else None
        if found is None:
            raise KeyError(branch)
        return found

    def __iter__(self) -> Iterator[str]:
        known = dict.fromkeys([*self._run.scopes, *self._run.appended]) if self._run.appended else self._run.scopes
        return (address[len(self._before) :] for address in known if address.startswith(self._before))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
