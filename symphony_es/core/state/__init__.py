"""The names of the core that applications import; what stands behind them is in the rooms beside this one."""

from typing import TYPE_CHECKING

from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es.core.objects.restorers import (
        EntityRestorer,
        RestorationContext,
        RestoreManager,
        UnrestoredEntity,
        register_entity_restorer,
        restore_manager,
    )
    from symphony_es.core.report import ResumeReport
    from symphony_es.events.references import EntityReference

__all__ = [
    "EntityReference",
    "EntityRestorer",
    "RestorationContext",
    "RestoreManager",
    "ResumeReport",
    "UnrestoredEntity",
    "register_entity_restorer",
    "restore_manager",
]

_HOMES = {
    "EntityReference": "symphony_es.events.references",
    "ResumeReport": "symphony_es.core.report",
    "EntityRestorer": "symphony_es.core.objects.restorers",
    "RestorationContext": "symphony_es.core.objects.restorers",
    "RestoreManager": "symphony_es.core.objects.restorers",
    "UnrestoredEntity": "symphony_es.core.objects.restorers",
    "register_entity_restorer": "symphony_es.core.objects.restorers",
    "restore_manager": "symphony_es.core.objects.restorers",
}
if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
