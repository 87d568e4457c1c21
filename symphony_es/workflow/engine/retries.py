"""Whether another attempt follows one that has failed, and when: what the policy says, and what the error says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import get_logger
from symphony_es.failures import is_failure
from symphony_es.registry import NamedCallables, invoke
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.error_rules import retry_moment, unknown_names
from symphony_es.workflow.engine.bodies import run_body
from symphony_es.workflow.kinds.function import find_function
from symphony_es.workflow.runs.failures import error_on_record

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.retry import RetryPolicy

__all__ = ["next_attempt_at"]

_log = get_logger(__name__)


async def next_attempt_at(
    policy: RetryPolicy | None, error: BaseException, failed_attempts: int, now: datetime, functions: NamedCallables
) -> datetime | None:
    """Return when another attempt follows, or None where none does.

    What is wrong with the policy is noted on the error, and so on record with it: a predicate that fails, a class name that nothing has.
    """
    if policy is None:
        return None
    if not policy.allows(error, failed_attempts):
        if failed_attempts < policy.max_attempts:
            for name in unknown_names((*policy.on, *policy.never_on)):
                error.add_note(f"no error class that is loaded is called {quoted(name)}, which the retry policy names")
        return None
    if policy.when is not None and not await _agrees(policy.when, error, functions):
        return None
    asked = retry_moment(error, now)
    if asked is not None:
        return asked
    return now + timedelta(seconds=policy.delay_before(failed_attempts, random.random()))  # noqa: S311  jitter keeps no secret


async def _agrees(when: str | Callable[[BaseException], Any], error: BaseException, functions: NamedCallables) -> bool:
    task = asyncio.current_task()
    try:
        predicate = find_function(when, functions) if isinstance(when, str) else when
        return bool(await run_body(invoke, predicate, error))
    except BaseException as failed:
        if not is_failure(failed, task):
            raise
        said = error_on_record(failed)
        _log.warning("workflow_retry_predicate_failed", error=said)
        error.add_note(f"there is no other attempt, as the retry policy's `when` has failed: {said}")
        return False
