"""What stands in an object and no event has set: what its class's upcast makes of the stored state, and defaults of newer fields.

The log says it with the entity's next change (`StateAdopted`). Until then a question about the value has no event to name, and says this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.core.past.renames import path_before, renames_in
from symphony_es.errors import format_path
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.values import plain_equal
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

__all__ = ["Unrecorded", "unrecorded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """A value that an object has and no event has set.

    Attributes:
        path: where it stands.
        source: `"upcast 1 to 2"`, or `"default"`: the log's state has no such field, and the class declares it.
        value: what the upcast puts there; `ABSENT` where it removes what stands there, and for a default.
    """

    path: Path
    source: str
    value: Any = ABSENT

    def __str__(self) -> str:
        where = format_path(self.path)
        if self.source == "default":
            return f"no event has set {where}: the class declares it, and the object has its default"
        what = f"removes {where}" if self.value is ABSENT else f"gives {where} its value"
        return f"the {self.source} {what}, which is no event before the entity's next change"


async def unrecorded(history: StateHistory, names: Names, key: str, path: Path) -> Unrecorded | None:
    """Find what stands at a path of an entity's object by no event's doing; None where the last event has left it."""
    state = await history.entity_at(key, history.log.head)
    if state is None or state.data is None:
        return None
    current = names.upcast(state)
    if current is not None:
        stored = value_at(state.data, path_before(path, renames_in(names.pending_upcast(state))))
        value = value_at(current, path)
        if value is not stored and (ABSENT in (value, stored) or not plain_equal(value, stored)):
            return Unrecorded(path=path, source=f"upcast {state.state_version} to {names.state_version(state.entity_type)}", value=value)
    held = state.data if current is None else current
    if len(path) == 1 and path[0] in names.declared_fields(state.entity_type) and value_at(held, path) is ABSENT:
        return Unrecorded(path=path, source="default")
    return None
