"""Entities in the values of a run that no object could be made of: no code is handed one, and the run waits for who knows the class."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from symphony_es.core.objects.plain import objects_in
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.errors import UnknownValueError
from symphony_es.failures import NobodysFailure

if TYPE_CHECKING:
    from symphony_es.core.world.members import Members
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Lacking", "check_made", "handed", "unmade_error", "unmade_of"]

T = TypeVar("T")


class Lacking(NobodysFailure):
    """Takes a run out of its steps because this process lacks what they need; raised and caught by the engine, and nobody's event.

    Attributes:
        error: what is missing, for those who wait for the run.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def unmade_of(run: Workflow, world: Members) -> list[UnrestoredEntity]:
    """Return the entities of which no object could be made, among those that the values refer to which a run hands to its code."""
    if not world.has_unrestored:
        return []
    values = (run.context, run.arguments, run.recorded_outputs, run.signals, run.progress, run.scopes, run.appended)
    found = (kept for value in values for kept in objects_in(value, UnrestoredEntity))
    return list({kept.reference.key: kept for kept in found}.values())


def check_made(run: Workflow, world: Members) -> None:
    """Refuse a run that would hand its code an entity of which no object could be made.

    Raises:
        UnknownValueError: it would; the message says what to do.
    """
    for kept in unmade_of(run, world):
        raise unmade_error(kept)


def handed(value: T, world: Members) -> T:
    """Return a value, as it is handed to code.

    Raises:
        Lacking: it holds an entity of which no object could be made.
    """
    if world.has_unrestored:
        for kept in objects_in(value, UnrestoredEntity):
            raise Lacking(unmade_error(kept))
    return value


def unmade_error(kept: UnrestoredEntity) -> UnknownValueError:
    """Return the error that says why there is no object, and what to do."""
    key = kept.reference.key
    return UnknownValueError(kept.missing or {key: f"{key} could not be restored: {kept.reason}"})
