"""How much of an error is put on record, and what the application takes out of it; the library's own messages show no values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StepFailedError, UnstorableValueError
from symphony_es.shown import type_shown
from symphony_es.workflow import WorkflowHook, gather, run_workflow, step
from symphony_es.workflow.record.redaction import Redaction
from symphony_es.workflow.runs.failures import describe_error
from tests.application import Customer

NEEDLE = "needle-in-the-log"
"""Nothing announces it as a secret, so that the library's own rules let it pass."""


async def fail(context: Any = None) -> None:
    """Raise an error whose message, cause, note and traceback have what the application keeps to itself."""
    try:
        raise LookupError(f"cause {NEEDLE}")
    except LookupError as error:
        failure = ExceptionGroup(f"several {NEEDLE}", [ValueError(f"inside {NEEDLE}")])
        failure.add_note(f"note {NEEDLE}")
        raise failure from error


class Faulty(WorkflowHook):
    """Fails whenever it is told something."""

    async def on_step_failed(self, moment: Any) -> None:
        raise RuntimeError(f"hook {NEEDLE}")


async def fail_everywhere(symphony: Symphony) -> None:
    """A step, a code-first step and its run, a child, a hook, a task in a run and one by itself: all fail."""

    async def client(prompt: str) -> str:
        raise ConnectionError(f"the model says {NEEDLE}")

    @symphony.workflow
    async def inner() -> None:
        await step(fail)

    @symphony.workflow
    async def outer() -> None:
        await run_workflow(inner)

    @symphony.workflow
    async def code() -> None:
        raise StepFailedError("made up", "KeyError", f"made up {NEEDLE}")

    @symphony.workflow
    async def several() -> None:
        await gather(step(fail), step(fail))

    symphony.functions.register("fail", fail)
    symphony.models.register("client", client)
    declared = {"name": "d", "steps": [{"kind": "function", "name": "f", "function": "fail", "retry": {"max_attempts": 2, "delay_s": 0}}]}
    asks = {"name": "t", "steps": [{"kind": "task", "name": "t", "template": "x", "model": "client"}]}
    for each in (declared, asks, outer, code, several):
        run = await symphony.workflows.execute_workflow(each, hooks=[Faulty()])
        assert run.status == "failed"
        assert run.error["type"]  # type: ignore[index]
        assert NEEDLE not in repr(run)
    task = await symphony.tasks.create_task("greet", "Say hello")
    await symphony.tasks.execute_task(task, model="client")
    assert task.error.startswith("ConnectionError")


async def rows_of(symphony: Symphony) -> bytes:
    """All that the log holds, as bytes."""
    await symphony.flush()
    return b"".join(row[4] for row in await symphony.log.read_rows(0, symphony.log.head))


def cut(text: str) -> str:
    """What an application may take out."""
    return text.replace(NEEDLE, "(cut)")


@pytest.mark.parametrize(
    ("settings", "on_record", "gone"),
    [
        ({}, [NEEDLE, "Traceback (most", "the model says"], []),
        ({"error_details": "traceback"}, [NEEDLE, "Traceback (most", "cause "], []),
        ({"error_details": "message"}, [NEEDLE, "several "], ["Traceback (most", "cause ", "note "]),
        ({"error_details": "type"}, ["ExceptionGroup", "ConnectionError"], [NEEDLE, "Traceback", "several ", "inside ", "the model says"]),
        ({"redact": cut}, ["(cut)", "Traceback (most", "the model says"], [NEEDLE]),
        ({"redact": cut, "error_details": "message"}, ["(cut)"], [NEEDLE, "Traceback (most"]),
    ],
)
async def test_as_much_of_an_error_is_on_record_as_the_settings_say(
    settings: dict[str, Any], on_record: list[str], gone: list[str]
) -> None:
    """Of steps, code, children, hooks and tasks."""
    async with Symphony(**settings) as symphony:
        await fail_everywhere(symphony)
        written = await rows_of(symphony)
        assert [text for text in on_record if text.encode() not in written] == []
        assert [text for text in gone if text.encode() in written] == []


async def test_setup_takes_the_settings_too(tmp_path: Path) -> None:
    """They win over those of the configuration."""
    symphony = Symphony({"state_dir": tmp_path / "state", "error_details": "message"}, persistence_enabled=True)
    await symphony.setup(error_details="type")
    symphony.functions.register("fail", fail)
    run = await symphony.workflows.execute_workflow({"name": "d", "steps": [{"kind": "function", "name": "f", "function": "fail"}]})
    assert (run.error["type"], run.error["message"], run.error["traceback"]) == ("ExceptionGroup", "", "")  # type: ignore[index]
    await symphony.close()


async def test_what_is_shown_of_runs_and_steps_holds_no_payload(symphony: Symphony, caplog: pytest.LogCaptureFixture) -> None:
    """The run, its handle, attempts, moments and what the program's log says of a failure, by the same rules."""
    engine = symphony.registry.get("workflow_engine")
    engine.redaction, engine.record_inputs = Redaction(error_details="type"), True
    shown: list[str] = []

    class Seeing(Faulty):
        async def on_step_failed(self, moment: Any) -> None:
            shown.append(repr(moment))
            await super().on_step_failed(moment)

    def refuse(error: BaseException) -> bool:
        raise ValueError(NEEDLE)

    async def take(what: str) -> None:
        raise ValueError(NEEDLE)

    symphony.functions.register("refuse", refuse)

    @symphony.workflow(retry={"max_attempts": 2, "when": "refuse"})
    async def flow(what: str) -> None:
        await step(take, what)

    handle = await symphony.workflows.start(flow, {"what": NEEDLE}, hooks=[Seeing()])
    with pytest.raises(Exception, match="take"):
        await handle.result()
    attempts = await symphony.workflows.step_attempts(handle.run)
    assert NEEDLE in str(attempts[0].input)
    page = await symphony.workflows.list_runs()
    shown += [repr(each) for each in (handle, handle.run, *attempts, *page, handle.run.error)]
    assert len(shown) >= 5
    assert [text for text in shown if NEEDLE in text] == []
    assert NEEDLE not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [{"error_details": "all"}, {"error_details": ["type"]}, {"error_details": True}, {"redact": "secret"}, {"redact": asyncio.sleep}],
)
async def test_a_setting_that_makes_no_sense_is_refused_before_anything_is_opened(wrong: dict[str, Any], tmp_path: Path) -> None:
    """The message says what there is; no directory has been made."""
    with pytest.raises(ConfigurationError, match=r"error_details=|redact="):
        await Symphony({"state_dir": tmp_path / "state", **wrong}, persistence_enabled=True).setup()
    assert not (tmp_path / "state").exists()
    with pytest.raises(ConfigurationError):
        Redaction(**wrong)


def broken(text: str) -> str:
    """Fail, with the text."""
    raise ValueError(text)


@pytest.mark.parametrize("redact", [broken, lambda text: None, lambda text: [text], lambda text: type("Text", (str,), {})(text)])
def test_nothing_is_on_record_where_the_function_fails(redact: Callable[[str], Any]) -> None:
    """A text that cannot be looked at is left out whole, and the record says so."""
    found = Redaction(redact=redact).text(f"x {NEEDLE}")
    assert NEEDLE not in found
    assert found.startswith("[left out: redact r")


@pytest.mark.parametrize(
    "text", ["api_key=[redacted]", "Authorization: [redacted]", "Bearer [redacted]", "password='[redacted]', x", "https://a:[redacted]@b"]
)
def test_what_was_taken_out_is_not_taken_out_again(text: str) -> None:
    """What is on record of a step is put on record of its run."""
    assert Redaction().text(text) == text


def test_an_error_may_become_longer() -> None:
    """What the function makes of it is cut as the error's own text is, and is text that can be stored."""
    from symphony_es.workflow.record import redaction

    token = redaction.current_redaction.set(Redaction(redact=lambda text: "\ud800" + text * 1000))
    try:
        told = describe_error(ValueError("long"), None)
    finally:
        redaction.current_redaction.reset(token)
    assert len(told["message"]) < 10_000
    assert len(told["traceback"]) < 10_000
    "".join((told["message"], told["traceback"])).encode()


# -- the library's own messages ---------------------------------------------------------------------------------------

STEPS = [
    {"kind": "sleep", "seconds": "{{ value }}"},
    {"kind": "sleep", "until": "{{ value }}"},
    {"kind": "sleep", "until": "{{ listed }}"},
    {"kind": "wait", "signal": "{{ listed }}"},
    {"kind": "wait", "signal": "go", "within_s": "{{ value }}"},
    {"kind": "map", "over": "{{ value }}", "step": {"kind": "function", "name": "f", "function": "keyed"}},
    {"kind": "loop", "while": "value > 1", "steps": [{"kind": "function", "name": "f", "function": "keyed"}], "max_iterations": 1},
    {"kind": "function", "function": "keyed"},
    {"kind": "conditional", "condition": "value + 1", "then": [{"kind": "function", "name": "f", "function": "keyed"}]},
]


@pytest.mark.parametrize("written", STEPS)
async def test_a_message_of_the_library_shows_no_value_of_the_run(written: dict[str, Any], symphony: Symphony) -> None:
    """What a template has given, a key or an argument that does not fit: the message says what it is, and not which."""

    def keyed(context: Any) -> Any:
        return {("a", NEEDLE): 1}

    symphony.functions.register("keyed", keyed)
    context = {"value": NEEDLE, "listed": [NEEDLE]}
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"name": "s", **written}], "context": context})
    assert run.status == "failed"
    assert NEEDLE not in str(run.error)


async def test_nor_does_one_about_arguments(symphony: Symphony) -> None:
    """Arguments of code, of a type that they cannot have; what is gathered and is no step."""

    @symphony.workflow
    async def flow(number: int) -> None:
        await step(fail)

    with pytest.raises(ConfigurationError) as caught:
        await symphony.workflows.execute_workflow(flow, {"number": NEEDLE})
    assert "it is a str" in str(caught.value)
    assert NEEDLE not in str(caught.value)

    @symphony.workflow
    async def gathers() -> None:
        await gather(NEEDLE)  # type: ignore[call-overload]

    run = await symphony.workflows.execute_workflow(gathers)
    assert NEEDLE not in run.error["message"]  # type: ignore[index]
    with pytest.raises(UnstorableValueError, match="one of its dict keys is a tuple") as refused:
        symphony.entities.add(Customer(id="ann")).notes[("a", NEEDLE)] = 1  # type: ignore[index]
    assert NEEDLE not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [(None, "None"), ("", "an empty str"), ("x", "a str"), (5, "an int"), ([], "an empty list"), (asyncio.Lock, "a type")],
)
def test_what_a_value_is(given: object, said: str) -> None:
    """Its class, and whether it is empty."""
    assert type_shown(given) == said
