"""Names that people try first on what runs are started and asked by, and what the same thing is called here; see `symphony_es.guesses`."""

from __future__ import annotations

__all__ = ["ON_CODE_WORKFLOWS", "ON_HANDLES", "ON_REQUESTS", "ON_WORKFLOWS"]

_EXECUTE = "await symphony.workflows.execute_workflow(workflow, context), which waits for the end, or await symphony.workflows.start(…)"
_CANCEL = "await symphony.workflows.cancel(run)"
_RETRY = "await symphony.workflows.resume(run), which tries again what has failed, or await symphony.workflows.retry_from(run, step)"
_HISTORY = "await symphony.history('Workflow:<run id>')"
_RESULT = "await symphony.workflows.handle(run).result()"

ON_WORKFLOWS = {
    **dict.fromkeys(("run", "execute", "run_workflow"), _EXECUTE),
    **dict.fromkeys(("start_workflow", "submit", "enqueue"), "await symphony.workflows.start(workflow, context), which returns a handle"),
    **dict.fromkeys(("status", "get_status"), "symphony.workflows.handle(run).status"),
    **dict.fromkeys(("result", "get_result"), _RESULT),
    "wait": "await symphony.workflows.handle(run).wait()",
    **dict.fromkeys(("stop", "kill", "terminate", "abort", "interrupt"), _CANCEL),
    **dict.fromkeys(("retry", "rerun", "restart"), _RETRY),
    "resume_run": "await symphony.workflows.resume(run)",
    "rewind": "await symphony.workflows.retry_from(run, step), or await symphony.rewind(moment) for all that there is",
    "get": "await symphony.workflows.get_run(run_id), or get_definition(id)",
    **dict.fromkeys(("list", "find", "all", "runs"), "await symphony.workflows.list_runs(), or get_all_workflows() for definitions"),
    **dict.fromkeys(("create", "define"), "symphony.workflows.build(name), or @symphony.workflow over a function"),
    **dict.fromkeys(("save", "register"), "await symphony.workflows.save_workflow(definition)"),
    "delete": "await symphony.workflows.prune_runs(…), which takes ended runs away",
    "send_signal": "await symphony.workflows.signal(run, name, payload)",
    **dict.fromkeys(("history", "events"), _HISTORY),
}

ON_HANDLES = {
    **dict.fromkeys(("get_result", "await_result", "output", "join"), "await handle.result()"),
    "state": "handle.status, or handle.run for all that the run has",
    **dict.fromkeys(("error", "context", "outputs", "steps", "attempts"), "the run itself: handle.run, or await handle.load()"),
    **dict.fromkeys(("done", "is_done"), "await handle.wait(), or handle.status"),
    **dict.fromkeys(("stop", "kill", "terminate", "abort"), "await handle.cancel()"),
    **dict.fromkeys(("retry", "rerun", "restart"), "await handle.resume(), or await symphony.workflows.retry_from(handle.run, step)"),
    "retry_from": "await symphony.workflows.retry_from(handle.run, step)",
    "send": "await handle.signal(name, payload)",
    "history": "handle.events(), or await symphony.history('Workflow:<run id>')",
}

ON_CODE_WORKFLOWS = dict.fromkeys(("run", "execute", "start", "submit", "delay", "apply_async"), _EXECUTE)

ON_REQUESTS = {
    **dict.fromkeys(
        ("start", "run", "execute", "execute_workflow", "submit", "enqueue"),
        "a process of your own to start runs: one that has the log open for writing. Others ask for what is to become of its runs: "
        "signal, cancel, pause, resume, retry",
    ),
    **dict.fromkeys(("status", "get", "list", "list_runs"), "symphony.workflows of this reader: await symphony.workflows.list_runs()"),
    **dict.fromkeys(("retry_from", "rerun", "restart"), "await symphony.requests.retry(run, step)"),
    **dict.fromkeys(("stop", "kill", "terminate", "abort"), "await symphony.requests.cancel(run)"),
    **dict.fromkeys(("send", "send_signal"), "await symphony.requests.signal(run, name, payload)"),
}
