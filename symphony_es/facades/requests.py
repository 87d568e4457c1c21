"""Asking the process that writes a log for something, from one that reads it: `symphony.requests`.

What the command line does, for a program: each call leaves a request in the log's inbox, and waits for the answer, which is an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import current_attribution
from symphony_es.core.world.inbox import PRUNE, Request
from symphony_es.core.world.requesting import Answer, send_request
from symphony_es.errors import ConfigurationError, EntityNotFoundError, RequestRefusedError
from symphony_es.events.identifiers import entity_key
from symphony_es.facades.lookup import key_of
from symphony_es.guesses import pointing_out
from symphony_es.workflow.guessed import ON_REQUESTS
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.events.references import EntityReference
    from symphony_es.facades.pruning import Age
    from symphony_es.log.log import EventLog
    from symphony_es.workflow.runs.filters import Named, StatusLike
    from symphony_es.workflow.runs.pruning import PruneReport
    from symphony_es.workflow.runs.run import Workflow
    from symphony_es.workflow.runs.summary import RunSummary

__all__ = ["Requests"]

TIMEOUT_S = 10.0


class Requests:
    """Requests to the process that has the log open for writing, each carried out once, whoever is killed when.

    Each call waits for the answer, `timeout_s` seconds at most, and returns it; `acting_as` around it says who asks, and why. A run is
    named by its id, reference, object or summary. A call that is made again under the same `request_id` changes nothing, and gives the
    first answer; whoever asks and why may differ, the run and what is asked of it may not.

    All of them raise:
        RequestPendingError: nobody has the log open for writing, or there is no answer yet. The request stays for the one who does it.
        RequestRefusedError: it cannot be done, or its id is that of another request; nothing was changed.
        EntityNotFoundError: there is no such run.
        UnstorableValueError: a request travels as JSON, which would change the payload or the metadata. Nothing has been left.
        ConfigurationError, LimitExceededError, StorageUnavailableError: it cannot be left. Nothing has been.
    """

    def __init__(self, log: EventLog, state_dir: Path) -> None:
        self._log = log
        self._state_dir = state_dir

    async def signal(
        self,
        run: Workflow | RunSummary | EntityReference | str,
        name: str,
        payload: Any = None,
        *,
        request_id: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Send a signal; the payload is what JSON has, and arrives as it was given: no tuples, and keys are texts."""
        return await self._ask("signal", run, {"name": name, "payload": thaw(payload)}, request_id, timeout_s)

    async def cancel(
        self,
        run: Workflow | RunSummary | EntityReference | str,
        *,
        cleanup: bool = True,
        grace_s: float | None = None,
        request_id: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Cancel a run; it is answered when that is on record, and the clean-up runs then."""
        grace = {} if grace_s is None else {"grace_s": grace_s}
        return await self._ask("cancel", run, {"cleanup": cleanup, **grace}, request_id, timeout_s)

    async def pause(
        self, run: Workflow | RunSummary | EntityReference | str, *, request_id: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Pause a run: steps under way come to their end, no other begins."""
        return await self._ask("pause", run, {}, request_id, timeout_s)

    async def resume(
        self, run: Workflow | RunSummary | EntityReference | str, *, request_id: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Go on with a run that is paused, pending, interrupted, blocked or has failed; it is answered when it goes on."""
        return await self._ask("resume", run, {}, request_id, timeout_s)

    async def retry(
        self,
        run: Workflow | RunSummary | EntityReference | str,
        step: str | Sequence[str] | None = None,
        *,
        request_id: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Try a failed run again where it failed, or from a step on, or several together; it is answered when it goes on."""
        steps = list(step) if isinstance(step, tuple) else step
        return await self._ask("retry", run, {} if steps is None else {"step": steps}, request_id, timeout_s)

    async def prune_runs(
        self,
        *,
        older_than: Age,
        status: StatusLike = None,
        name: Named = None,
        metadata: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> PruneReport:
        """Prune the runs that fit, see `workflows.prune_runs`; it is answered when all is done. The report names 100 ids at the most."""
        from symphony_es.workflow.runs.filters import RunFilter, age_arguments, prune_filter, read_statuses  # late: few programs prune
        from symphony_es.workflow.runs.pruning import PruneReport

        prune_filter(RunFilter(status=status, name=name, metadata=metadata))
        given = age_arguments(older_than)
        statuses, names = read_statuses(status), RunFilter(name=name).names
        chosen = {"status": sorted(statuses) if statuses else None, "name": names or None, "metadata": thaw(metadata) if metadata else None}
        given |= {key: value for key, value in chosen.items() if value is not None}
        answer = await self._send(PRUNE, "", given, request_id, timeout_s)
        return PruneReport.from_dict(answer.pruned or {})

    async def _ask(self, verb: str, run: Any, arguments: dict[str, Any], request_id: str | None, timeout_s: float) -> Answer:
        return await self._send(verb, key_of("Workflow", run).partition(":")[2], arguments, request_id, timeout_s)

    async def _send(self, verb: str, run_id: str, arguments: dict[str, Any], request_id: str | None, timeout_s: float) -> Answer:
        said, chosen = current_attribution.get(), {} if request_id is None else {"id": request_id}
        request = Request(verb=verb, run=run_id, arguments=arguments, actor=said.actor, reason=said.reason, **chosen)
        answer = await send_request(self._log, self._state_dir, request, timeout_s=timeout_s)
        if answer.error_type == EntityNotFoundError.__name__:
            raise EntityNotFoundError(entity_key("Workflow", run_id), "the process that writes the log has no such run")
        if not answer.done:
            raise RequestRefusedError(verb, request.id, answer.error_type, answer.message)
        return answer

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(ON_REQUESTS)


def requests_of(log: EventLog, state_dir: Path | None, *, read_only: bool) -> Requests:
    """Return the requests of a Symphony that reads.

    Raises:
        ConfigurationError: it writes the log itself, or the log is in memory.
    """
    if not read_only or state_dir is None:
        raise ConfigurationError("requests are for another process than the one that writes the log: call symphony.workflows here")
    return Requests(log, state_dir)
