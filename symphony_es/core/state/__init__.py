"""State: tracking, capture, transactions, snapshots, checkpoints and restoring."""

from symphony_es.core.state.files.bundle import StateBundle
from symphony_es.core.state.files.storage import FileStorageProvider, StorageTransaction
from symphony_es.core.state.report import ResumeReport
from symphony_es.core.state.restore import (
    EntityRestorer,
    RestorationContext,
    RestoreManager,
    UnrestoredEntity,
    register_entity_restorer,
    restore_manager,
)
from symphony_es.events.references import EntityReference

__all__ = [
    "EntityReference",
    "EntityRestorer",
    "FileStorageProvider",
    "RestorationContext",
    "RestoreManager",
    "ResumeReport",
    "StateBundle",
    "StorageTransaction",
    "UnrestoredEntity",
    "register_entity_restorer",
    "restore_manager",
]
