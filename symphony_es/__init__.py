"""An event-sourced state system for workflows and agents."""

from typing import TYPE_CHECKING

from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es.app import Symphony
    from symphony_es.core.state.tracking.entity import entity, part, value
    from symphony_es.events.references import EntityReference

__all__ = ["EntityReference", "Symphony", "entity", "part", "value"]
__version__ = "0.1.0"

_HOMES = {
    "EntityReference": "symphony_es.events.references",
    "Symphony": "symphony_es.app",
    "entity": "symphony_es.core.state.tracking.entity",
    "part": "symphony_es.core.state.tracking.entity",
    "value": "symphony_es.core.state.tracking.entity",
}
if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
