"""Where the library's log lines go."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from symphony_es.diagnostics import error_text, get_logger

NAME = "symphony_es.test"


@pytest.fixture(autouse=True)
def as_at_first() -> Iterator[None]:
    """structlog as nobody has configured it, before and after."""
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_until_structlog_is_configured_lines_go_to_logging(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was bound as attributes of the record, and nothing on standard output."""
    structlog.contextvars.bind_contextvars(run_id="r")
    with caplog.at_level(logging.INFO, logger=NAME):
        get_logger(NAME).info("snapshot_written", position=7)
        get_logger(NAME).debug("below_the_level")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message) == (NAME, "INFO", "snapshot_written position=7 run_id=r")
    assert (record.__dict__["position"], record.__dict__["run_id"]) == (7, "r")
    assert capsys.readouterr().out == ""


def test_an_application_may_configure_structlog_later(caplog: pytest.LogCaptureFixture) -> None:
    """A logger that has been used goes to structlog from the moment that it is configured."""
    logger = get_logger(NAME)
    logger.warning("first")
    lines = structlog.testing.LogCapture()
    structlog.configure(processors=[lines])
    logger.error("second", position=7)
    assert lines.entries == [{"event": "second", "position": 7, "log_level": "error"}]
    assert [record.message for record in caplog.records] == ["first"]


def test_structlog_is_imported_with_the_first_line_that_is_wanted() -> None:
    """A line below the level does not import it; a warning does, and is written by logging, with its values, by whatever formatter."""
    program = (
        "import sys\nfrom symphony_es.diagnostics import get_logger\nlogger = get_logger('symphony_es')\n"
        "logger.info('not_wanted', position=6)\nassert 'structlog' not in sys.modules\n"
        "logger.warning('said', position=7)\nassert 'structlog' in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "said position=7\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (7, "7"),
        ("two words", '"two words"'),
        ("a\nb", '"a\\nb"'),
        ("", '""'),
        ("x" * 600, "x" * 500 + "..."),
        ("a=b", '"a=b"'),
        ("100 %s %d", '"100 %s %d"'),
        (None, "None"),
    ],
)
def test_a_line_is_one_line_whatever_its_values_are(caplog: pytest.LogCaptureFixture, value: object, shown: str) -> None:
    """What has spaces or line ends is in quotation marks; what is long is cut; the record has the value itself."""
    get_logger(NAME).warning("something_failed", error=value)
    (record,) = caplog.records
    assert record.getMessage() == f"something_failed error={shown}"
    assert record.__dict__["error"] == value


@pytest.mark.parametrize(("message", "shown"), [("plain", "plain"), ("file \udcff", "file \\udcff"), ("", "")])
def test_the_text_of_an_error_can_be_written_anywhere(message: str, shown: str) -> None:
    """Lone surrogates, as in a file name that cannot be decoded, are shown as escapes: a handler could not write them."""
    assert error_text(ValueError(message)) == f"ValueError: {shown}"
