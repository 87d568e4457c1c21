"""Definitions, runs and the engine that executes them."""

from symphony_es.workflow.definitions.builder import WorkflowBuilder
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.steps import Step, register_step_kind
from symphony_es.workflow.definitions.stored import StoredDefinition
from symphony_es.workflow.engine.engine import WorkflowEngine
from symphony_es.workflow.engine.hooks import AutoCheckpoint, RunMoment, WorkflowHook
from symphony_es.workflow.kinds.function import FunctionStep
from symphony_es.workflow.kinds.task import TaskStep
from symphony_es.workflow.runs.context import RunContext
from symphony_es.workflow.runs.run import Workflow, WorkflowStatus

__all__ = [
    "AutoCheckpoint",
    "FunctionStep",
    "RunContext",
    "RunMoment",
    "Step",
    "StoredDefinition",
    "TaskStep",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowDefinition",
    "WorkflowEngine",
    "WorkflowHook",
    "WorkflowStatus",
    "register_step_kind",
]
