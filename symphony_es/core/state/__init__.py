"""State: tracking, capture, transactions, snapshots, checkpoints and restoring."""

from symphony_es.core.state.restore import (
    EntityRestorer,
    RestorationContext,
    RestoreManager,
    UnrestoredEntity,
    register_entity_restorer,
    restore_manager,
)

__all__ = [
    "EntityRestorer",
    "RestorationContext",
    "RestoreManager",
    "UnrestoredEntity",
    "register_entity_restorer",
    "restore_manager",
]
