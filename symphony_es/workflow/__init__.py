"""Definitions, runs and the engine that executes them; the names that applications import."""

from typing import TYPE_CHECKING

from symphony_es.guesses import answers_calls
from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es.workflow.code.calls import (
        gather,
        patched,
        run_workflow,
        sleep,
        sleep_until,
        step,
        step_context,
        step_with,
        wait_for_signal,
    )
    from symphony_es.workflow.code.workflow import CodeWorkflow
    from symphony_es.workflow.definitions.builder import WorkflowBuilder
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.definitions.reading import DataReader
    from symphony_es.workflow.definitions.retry import RetryPolicy
    from symphony_es.workflow.definitions.step_list import StepList
    from symphony_es.workflow.definitions.steps import Step, register_step_kind
    from symphony_es.workflow.definitions.stored import StoredDefinition
    from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
    from symphony_es.workflow.engine.clock import Clock, SystemClock
    from symphony_es.workflow.engine.draining import DrainReport
    from symphony_es.workflow.engine.engine import WorkflowEngine
    from symphony_es.workflow.engine.execution import Branch, StepExecution
    from symphony_es.workflow.engine.handle import RunHandle
    from symphony_es.workflow.engine.hooks import RunMoment, WorkflowHook
    from symphony_es.workflow.engine.progress import RunProgress
    from symphony_es.workflow.kinds.conditional import ConditionalStep
    from symphony_es.workflow.kinds.function import FunctionStep
    from symphony_es.workflow.kinds.loop import LoopStep
    from symphony_es.workflow.kinds.map import MapStep
    from symphony_es.workflow.kinds.parallel import ParallelStep
    from symphony_es.workflow.kinds.sequence import SequenceStep
    from symphony_es.workflow.kinds.sleep import SleepStep
    from symphony_es.workflow.kinds.sub_workflow import SubWorkflowStep
    from symphony_es.workflow.kinds.task import TaskStep
    from symphony_es.workflow.kinds.wait import WaitStep
    from symphony_es.workflow.record.attempts import StepAttempt
    from symphony_es.workflow.record.reads import Read
    from symphony_es.workflow.record.redaction import Redaction
    from symphony_es.workflow.record.usage import ModelUsage, RunUsage
    from symphony_es.workflow.runs.context import RunContext
    from symphony_es.workflow.runs.pruning import PruneReport
    from symphony_es.workflow.runs.run import Workflow
    from symphony_es.workflow.runs.summary import RunPage, RunSummary
    from symphony_es.workflow.runs.transitions import WorkflowStatus

__all__ = [
    "AutoCheckpoint",
    "Branch",
    "Clock",
    "CodeWorkflow",
    "ConditionalStep",
    "DataReader",
    "DrainReport",
    "FunctionStep",
    "LoopStep",
    "MapStep",
    "ModelUsage",
    "ParallelStep",
    "PruneReport",
    "Read",
    "Redaction",
    "RetryPolicy",
    "RunContext",
    "RunHandle",
    "RunMoment",
    "RunPage",
    "RunProgress",
    "RunSummary",
    "RunUsage",
    "SequenceStep",
    "SleepStep",
    "Step",
    "StepAttempt",
    "StepExecution",
    "StepList",
    "StoredDefinition",
    "SubWorkflowStep",
    "SystemClock",
    "TaskStep",
    "WaitStep",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowDefinition",
    "WorkflowEngine",
    "WorkflowHook",
    "WorkflowStatus",
    "gather",
    "patched",
    "register_step_kind",
    "run_workflow",
    "sleep",
    "sleep_until",
    "step",
    "step_context",
    "step_with",
    "wait_for_signal",
]

_HOMES = {
    "ModelUsage": "symphony_es.workflow.record.usage",
    "Read": "symphony_es.workflow.record.reads",
    "Redaction": "symphony_es.workflow.record.redaction",
    "RunUsage": "symphony_es.workflow.record.usage",
    "StepAttempt": "symphony_es.workflow.record.attempts",
    "AutoCheckpoint": "symphony_es.workflow.engine.auto_checkpoint",
    "Branch": "symphony_es.workflow.engine.execution",
    "Clock": "symphony_es.workflow.engine.clock",
    "CodeWorkflow": "symphony_es.workflow.code.workflow",
    "ConditionalStep": "symphony_es.workflow.kinds.conditional",
    "DataReader": "symphony_es.workflow.definitions.reading",
    "DrainReport": "symphony_es.workflow.engine.draining",
    "FunctionStep": "symphony_es.workflow.kinds.function",
    "LoopStep": "symphony_es.workflow.kinds.loop",
    "MapStep": "symphony_es.workflow.kinds.map",
    "ParallelStep": "symphony_es.workflow.kinds.parallel",
    "RetryPolicy": "symphony_es.workflow.definitions.retry",
    "RunContext": "symphony_es.workflow.runs.context",
    "RunHandle": "symphony_es.workflow.engine.handle",
    "RunMoment": "symphony_es.workflow.engine.hooks",
    "RunPage": "symphony_es.workflow.runs.summary",
    "PruneReport": "symphony_es.workflow.runs.pruning",
    "RunProgress": "symphony_es.workflow.engine.progress",
    "RunSummary": "symphony_es.workflow.runs.summary",
    "SequenceStep": "symphony_es.workflow.kinds.sequence",
    "SleepStep": "symphony_es.workflow.kinds.sleep",
    "Step": "symphony_es.workflow.definitions.steps",
    "StepExecution": "symphony_es.workflow.engine.execution",
    "StepList": "symphony_es.workflow.definitions.step_list",
    "StoredDefinition": "symphony_es.workflow.definitions.stored",
    "SubWorkflowStep": "symphony_es.workflow.kinds.sub_workflow",
    "SystemClock": "symphony_es.workflow.engine.clock",
    "TaskStep": "symphony_es.workflow.kinds.task",
    "WaitStep": "symphony_es.workflow.kinds.wait",
    "Workflow": "symphony_es.workflow.runs.run",
    "WorkflowBuilder": "symphony_es.workflow.definitions.builder",
    "WorkflowDefinition": "symphony_es.workflow.definitions.definition",
    "WorkflowEngine": "symphony_es.workflow.engine.engine",
    "WorkflowHook": "symphony_es.workflow.engine.hooks",
    "WorkflowStatus": "symphony_es.workflow.runs.transitions",
    "gather": "symphony_es.workflow.code.calls",
    "patched": "symphony_es.workflow.code.calls",
    "register_step_kind": "symphony_es.workflow.definitions.steps",
    "run_workflow": "symphony_es.workflow.code.calls",
    "sleep": "symphony_es.workflow.code.calls",
    "sleep_until": "symphony_es.workflow.code.calls",
    "step": "symphony_es.workflow.code.calls",
    "step_context": "symphony_es.workflow.code.calls",
    "step_with": "symphony_es.workflow.code.calls",
    "wait_for_signal": "symphony_es.workflow.code.calls",
}
if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
    answers_calls(__name__, "@symphony.workflow over the function, where symphony is a Symphony: symphony = Symphony(state_dir)")
