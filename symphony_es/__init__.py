"""An event-sourced state system for workflows and agents."""

from symphony_es.app import Symphony
from symphony_es.core.state.tracking.entity import entity, part, value
from symphony_es.events.references import EntityReference

__all__ = ["EntityReference", "Symphony", "entity", "part", "value"]
__version__ = "0.1.0"
