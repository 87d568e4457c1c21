"""The restorers, by the path that the first document of this library names; they live in `symphony_es.core.objects.restorers`."""

from symphony_es.core.objects.restorers import (
    EntityRestorer,
    RestorationContext,
    RestoreManager,
    UnrestoredEntity,
    register_entity_restorer,
    restore_manager,
)

__all__ = ["EntityRestorer", "RestorationContext", "RestoreManager", "UnrestoredEntity", "register_entity_restorer", "restore_manager"]
