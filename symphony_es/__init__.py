"""An event-sourced state system for workflows and agents: the names that programs import.

Each is imported at its first use. `symphony_es.errors` has all errors, `symphony_es.workflow` all names of workflows.
"""

from typing import TYPE_CHECKING

from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es.app import Symphony
    from symphony_es.core.state.restore import EntityRestorer, restore_manager
    from symphony_es.core.state.tracking.entity import entity, part, value
    from symphony_es.errors import (
        CheckpointNotFoundError,
        ConcurrencyError,
        ConfigurationError,
        DamagedEventError,
        DetachedEntityError,
        EntityBusyError,
        EntityError,
        EntityExistsError,
        EntityNotFoundError,
        EntityOutOfStepError,
        EntityTypeError,
        ForkedProcessError,
        LimitExceededError,
        LogError,
        LogInUseError,
        LogUnavailableError,
        NotReadyError,
        NotRegisteredError,
        PersistenceDisabledError,
        ReadOnlyError,
        RestorationError,
        RunCancelledError,
        RunFailedError,
        RunInterruptedError,
        SignalTimeoutError,
        StepFailedError,
        StepTimeoutError,
        SymphonyError,
        UnstorableValueError,
        WorkflowError,
    )
    from symphony_es.events.references import EntityReference
    from symphony_es.workflow.code.calls import gather, patched, run_workflow, sleep, sleep_until, step, step_context, wait_for_signal
    from symphony_es.workflow.code.workflow import CodeWorkflow
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.definitions.retry import RetryPolicy
    from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
    from symphony_es.workflow.engine.handle import RunHandle
    from symphony_es.workflow.engine.hooks import WorkflowHook
    from symphony_es.workflow.runs.context import RunContext
    from symphony_es.workflow.runs.run import Workflow
    from symphony_es.workflow.runs.transitions import WorkflowStatus

__all__ = [
    "AutoCheckpoint",
    "CheckpointNotFoundError",
    "CodeWorkflow",
    "ConcurrencyError",
    "ConfigurationError",
    "DamagedEventError",
    "DetachedEntityError",
    "EntityBusyError",
    "EntityError",
    "EntityExistsError",
    "EntityNotFoundError",
    "EntityOutOfStepError",
    "EntityReference",
    "EntityRestorer",
    "EntityTypeError",
    "ForkedProcessError",
    "LimitExceededError",
    "LogError",
    "LogInUseError",
    "LogUnavailableError",
    "NotReadyError",
    "NotRegisteredError",
    "PersistenceDisabledError",
    "ReadOnlyError",
    "RestorationError",
    "RetryPolicy",
    "RunCancelledError",
    "RunContext",
    "RunFailedError",
    "RunHandle",
    "RunInterruptedError",
    "SignalTimeoutError",
    "StepFailedError",
    "StepTimeoutError",
    "Symphony",
    "SymphonyError",
    "UnstorableValueError",
    "Workflow",
    "WorkflowDefinition",
    "WorkflowError",
    "WorkflowHook",
    "WorkflowStatus",
    "entity",
    "gather",
    "part",
    "patched",
    "restore_manager",
    "run_workflow",
    "sleep",
    "sleep_until",
    "step",
    "step_context",
    "value",
    "wait_for_signal",
]
__version__ = "0.1.0"

_HOMES = {
    "AutoCheckpoint": "symphony_es.workflow.engine.auto_checkpoint",
    "CheckpointNotFoundError": "symphony_es.errors",
    "CodeWorkflow": "symphony_es.workflow.code.workflow",
    "ConcurrencyError": "symphony_es.errors",
    "ConfigurationError": "symphony_es.errors",
    "DamagedEventError": "symphony_es.errors",
    "DetachedEntityError": "symphony_es.errors",
    "EntityBusyError": "symphony_es.errors",
    "EntityError": "symphony_es.errors",
    "EntityExistsError": "symphony_es.errors",
    "EntityNotFoundError": "symphony_es.errors",
    "EntityOutOfStepError": "symphony_es.errors",
    "EntityReference": "symphony_es.events.references",
    "EntityRestorer": "symphony_es.core.state.restore",
    "EntityTypeError": "symphony_es.errors",
    "ForkedProcessError": "symphony_es.errors",
    "LimitExceededError": "symphony_es.errors",
    "LogError": "symphony_es.errors",
    "LogInUseError": "symphony_es.errors",
    "LogUnavailableError": "symphony_es.errors",
    "NotReadyError": "symphony_es.errors",
    "NotRegisteredError": "symphony_es.errors",
    "PersistenceDisabledError": "symphony_es.errors",
    "ReadOnlyError": "symphony_es.errors",
    "RestorationError": "symphony_es.errors",
    "RetryPolicy": "symphony_es.workflow.definitions.retry",
    "RunCancelledError": "symphony_es.errors",
    "RunContext": "symphony_es.workflow.runs.context",
    "RunFailedError": "symphony_es.errors",
    "RunHandle": "symphony_es.workflow.engine.handle",
    "RunInterruptedError": "symphony_es.errors",
    "SignalTimeoutError": "symphony_es.errors",
    "StepFailedError": "symphony_es.errors",
    "StepTimeoutError": "symphony_es.errors",
    "Symphony": "symphony_es.app",
    "SymphonyError": "symphony_es.errors",
    "UnstorableValueError": "symphony_es.errors",
    "Workflow": "symphony_es.workflow.runs.run",
    "WorkflowDefinition": "symphony_es.workflow.definitions.definition",
    "WorkflowError": "symphony_es.errors",
    "WorkflowHook": "symphony_es.workflow.engine.hooks",
    "WorkflowStatus": "symphony_es.workflow.runs.transitions",
    "entity": "symphony_es.core.state.tracking.entity",
    "gather": "symphony_es.workflow.code.calls",
    "part": "symphony_es.core.state.tracking.entity",
    "patched": "symphony_es.workflow.code.calls",
    "restore_manager": "symphony_es.core.state.restore",
    "run_workflow": "symphony_es.workflow.code.calls",
    "sleep": "symphony_es.workflow.code.calls",
    "sleep_until": "symphony_es.workflow.code.calls",
    "step": "symphony_es.workflow.code.calls",
    "step_context": "symphony_es.workflow.code.calls",
    "value": "symphony_es.core.state.tracking.entity",
    "wait_for_signal": "symphony_es.workflow.code.calls",
}
if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
