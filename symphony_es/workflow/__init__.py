"""Definitions, runs and the engine that executes them."""

from symphony_es.workflow.builder import WorkflowBuilder
from symphony_es.workflow.context import RunContext
from symphony_es.workflow.definition import WorkflowDefinition
from symphony_es.workflow.engine import WorkflowEngine
from symphony_es.workflow.function_step import FunctionStep
from symphony_es.workflow.hooks import AutoCheckpoint, RunMoment, WorkflowHook
from symphony_es.workflow.run import Workflow, WorkflowStatus
from symphony_es.workflow.steps import Step, register_step_kind
from symphony_es.workflow.stored import StoredDefinition
from symphony_es.workflow.task_step import TaskStep

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
