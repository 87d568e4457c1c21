"""Keys and secrets are taken out of what the library puts on record of inputs and failures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.events.rows import decode_row
from symphony_es.events.values import Redacted
from symphony_es.workflow import step, step_with
from symphony_es.workflow.record.redaction import REDACTED, Redaction
from symphony_es.workflow.record.shown import MAX_INPUT_BYTES, shown_input

SECRETS = [
    "password", "Password", "db_password", "PGPASSWORD", "sshpassphrase", "user-password-hash", "passwd", "pwd", "passphrase", "secret",
    "client_secret", "clientSecret",
    "SECRET_KEY", "api_key", "apikey", "apiKey", "API-Key", "X-Api-Key", "x_api_key", "OPENAI_API_KEY", "token", "access_token",
    "accessToken", "refresh_tokens", "auth-token", "Authorization", "Proxy-Authorization", "private_key", "privateKey", "aws_access_key",
    "signing_key", "credentials", "Cookie", "Set-Cookie", "jwt", "bearer",
]  # fmt: skip
NO_SECRETS = [
    "key", "keys", "primary_key", "name", "tokens", "input_tokens", "max_tokens", "token_count", "tokens_used", "total_tokens", "author",
    "authors", "keyboard", "monkey", "pass", "passenger", "compass", "secretary", "id", "url", "next_page_token", "",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_names_of_secrets_are_known_however_they_are_written(name: str) -> None:
    """What stands under such a name is taken out."""
    assert Redaction().is_secret(name)


@pytest.mark.parametrize("name", NO_SECRETS)
def test_names_that_only_look_like_it_are_kept(name: str) -> None:
    """Counts of tokens, keys of tables, and words that contain such a word are no secrets."""
    assert not Redaction().is_secret(name)


TEXTS = [
    "cannot connect to postgresql://user:{}@db:5432/x",
    "redis://:{}@host/0 refused",
    "api_key={}",
    "api_key: {}",
    "?access_token={}&page=3",
    '{{"password": "{}"}}',
    "{{'password': '{}', 'user': 'ann'}}",
    "Client(api_key='{}', timeout=3)",
    "headers: Authorization: Bearer {}",
    "{{'Authorization': 'Bearer {}'}}",
    "('authorization', 'Bearer {}')",
    "(b'x-api-key', b'{}')",
    "curl -H 'Authorization: Basic {}'",
    "OPENAI_API_KEY={} python main.py",
    'escaped {{\\"token\\": \\"{}\\"}}',
    "password = {}",
    "password => {}",
    "RuntimeError: password={}",
    "error: DB_PASSWORD={} is wrong",
    "connection failed: host=db, user=app password={} dbname=x",
    'ValueError: "{{\\"client_secret\\": \\"{}\\"}}"',
    "mysql --password {} -h db",
    "Command ['mysql', '--password', '{}'] failed",
    "Command ['mysql', '--password={}'] failed",
    "<password>{}</password>",
    "<wsse:Password Type='text'>{}</wsse:Password>",
    '<user name="ann" password="{}"/>',
    '<a href="x" title="y" api-key="{}">text</a>',
    "Cookie: theme=dark; session={}\nAccept: */*",
    "Set-Cookie: theme=dark; sid={}; Path=/",
    "fatal: unable to access 'https://{}@git.example.org/a/b.git/'",
    "403 for https://bucket/x?X-Amz-Expires=60&X-Amz-Signature={}",
    "403 for https://blob/x?sv=2020&sig={}%3D&se=1",
    "1 validation error for Login\nuser.password\n  Input should be valid [type=string_type, input_value='{}', input_type=str]",
    "[SQL: ALTER USER ann WITH PASSWORD '{}']",
    "CREATE USER ann IDENTIFIED BY '{}'",
    "machine h login ann password {}",
    "\x1b[36mpassword\x1b[0m=\x1b[35m{}\x1b[0m",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("secret", ["hunter2hunter2", "p4ss.w0rd-x_y9"])
def test_texts_are_searched_for_secrets(text: str, secret: str) -> None:
    """A secret in a message, however it stands there, is gone; the name in front of it is still there."""
    found = Redaction().text(text.format(secret))
    assert secret not in found
    assert REDACTED in found


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234", "ghp_" + "a1" * 18, "github_pat_" + "a1" * 12, "xoxb-1234567890-abcdef", "AKIA" + "A1" * 8,
        "AIza" + "a1" * 18, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1",
        "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_tokens_of_well_known_shapes_are_found_anywhere(secret: str) -> None:
    """No name has to stand before them."""
    assert secret not in Redaction().text(f"the server said {secret} is wrong")


@pytest.mark.parametrize(
    "text",
    [
        "unexpected token: colon",
        "used 300 tokens: 20 too many",
        "https://host:8080/path?x=1",
        "mail to ann@example.org: done",
        "Bearer authentication is needed",
        "KeyError: 'name'",
        "the key=value form, tokens=3, max_tokens=100",
        "password == None",
        "password=None",
        "12:30:00 a@b",
        "File \"x.py\", line 3, in f",
        "error: host=db: user=app",
        "--token is missing",
        "<password></password>",
        "run with --max-tokens 300 -v",
        "https://ann@host/x, ssh://git@github.com/a/b.git",
        "x?page=3&signed=no&design=blue",
        "1 validation error for Login\nname\n  Input should be valid [type=string_type, input_value='ann', input_type=str]",
        "the password was not found",
        "login failed: password expired",
        "<a title='x'>text</a>",
        "\x1b[31mred\x1b[0m: it failed",
    ],
)  # fmt: skip
def test_texts_without_secrets_stay_as_they_are(text: str) -> None:
    """Nothing is taken out of what tells of no secret."""
    assert Redaction().text(text) == text


FURTHER = (
    "<a " * 13_000,
    "<a b=c>" * 6_000,
    "x\n" * 20_000,
    "login a password " * 2_500,
    "?sig=" * 8_000,
    "Cookie: a" * 4_000,
    "\x1b[1m" * 8_000,
)


def test_searching_takes_time_in_proportion() -> None:
    """Texts that are made to mislead the search are searched in linear time: the steps of none of the expressions multiply."""
    for text in (
        "a" * 40_000,
        "://" * 13_000,
        "password" * 5_000,
        "x:" * 20_000,
        "'" * 40_000,
        "Bearer " * 6_000,
        "sk-" * 13_000,
        *FURTHER,
    ):
        assert Redaction().text(text)


def test_rules_are_extensible() -> None:
    """Further names and patterns are taken out, names may be kept, and all of it can be left out."""
    rules = Redaction(names=["patient_name"], keep=["page token", "cookie"], patterns=[r"\d{3}-\d{2}"])
    assert (rules.is_secret("patientName"), rules.is_secret("page_token"), rules.is_secret("cookie")) == (True, False, False)
    assert rules.text("patient-name: Ann, 123-45") == f"patient-name: {REDACTED}, {REDACTED}"
    assert Redaction(enabled=False).text("password=x") == "password=x"
    assert not Redaction(enabled=False).is_secret("password")
    for wrong in ({"names": [3]}, {"names": ["-"]}, {"patterns": ["("]}, {"patterns": [re.compile(b"a")]}):
        with pytest.raises(ConfigurationError):
            Redaction(**wrong)  # type: ignore[arg-type]


@dataclass
class Login:
    """A dataclass with a secret in it."""

    user: str
    password: str


SECRET = "hunter2hunter2"
HIDDEN = Redacted("secret")


async def rows_of(symphony: Symphony) -> bytes:
    """All that the log holds, as bytes."""
    return b"".join(row[4] for row in await symphony.log.read_rows(0, symphony.log.head))


async def test_no_secret_of_an_input_is_on_record(symphony: Symphony) -> None:
    """Nested dicts, dataclasses, headers, positions and keywords: the names are on record, the secrets nowhere."""
    got: list[Any] = []

    async def call(url: str, api_key: str, headers: Any, login: Login, **more: Any) -> None:
        got.append((api_key, headers, login, more))

    @symphony.workflow(record_inputs=True)
    async def flow() -> None:
        headers = {"Authorization": f"Bearer {SECRET}", "Accept": "text"}
        await step(call, "https://host", SECRET, headers, Login("ann", SECRET), options=[{"token": SECRET, "n": 1}])

    run = await symphony.workflows.execute_workflow(flow)
    assert run.status == "completed", run.error
    assert got[0][0] == SECRET
    assert SECRET.encode() not in await rows_of(symphony)
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert attempt.input["url"] == "https://host"
    assert str(attempt.input["headers"]["Authorization"]).startswith("Redacted")
    assert attempt.input["headers"]["Accept"] == "text"
    assert attempt.input["login"].data["user"] == "ann"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (f"https://ann:{SECRET}@host/x", f"https://ann:{REDACTED}@host/x"),
        ([f"password={SECRET}", "x"], [f"password={REDACTED}", "x"]),
        ([("Accept", "text"), ("Authorization", f"Bearer {SECRET}")], [("Accept", "text"), ("Authorization", HIDDEN)]),
        ([[b"x-api-key", SECRET.encode()]], [[b"x-api-key", HIDDEN]]),
        (["mysql", "-h", "db", "--password", SECRET, "shop"], ["mysql", "-h", "db", "--password", HIDDEN, "shop"]),
        ({"env": [{"name": "DB_PASSWORD", "value": SECRET}]}, {"env": [{"name": "DB_PASSWORD", "value": HIDDEN}]}),
        (["token", "count", "of"], ["token", "count", "of"]),
        ([("name", "ann")], [("name", "ann")]),
    ],
)
def test_secrets_inside_of_inputs_are_found_by_what_stands_before_them(given: Any, shown: Any) -> None:
    """Texts are searched as those of failures are; pairs, options of commands and `name` with `value` count as fields do."""
    assert shown_input({"given": given}, None) == {"given": shown}


async def test_no_secret_of_a_failure_is_on_record(symphony: Symphony) -> None:
    """Message, traceback, chained errors, notes and groups; what waits behind a step's failure is told the same."""

    async def connect(context: Any) -> None:
        try:
            raise ValueError(f"postgresql://ann:{SECRET}@db")
        except ValueError as error:
            failure = RuntimeError(f"no way in with password={SECRET}")
            failure.add_note(f"token: {SECRET}")
            raise ExceptionGroup("both", [failure]) from error

    symphony.functions.register("connect", connect)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "function", "name": "c", "function": "connect"}]})
    assert run.status == "failed"
    assert SECRET.encode() not in await rows_of(symphony)
    assert f"password={REDACTED}" in run.error["message"]  # type: ignore[index]


async def test_the_engine_s_rules_count(symphony: Symphony) -> None:
    """Rules that are assigned to the engine hold for the runs that begin after that."""
    engine = symphony.registry.get("workflow_engine")
    engine.redaction = Redaction(names=["patient"])
    engine.record_inputs = True

    async def treat(patient: str) -> None:
        raise ValueError(f"patient={patient}")

    @symphony.workflow
    async def flow() -> None:
        await step(treat, "Ann Ulrich")

    run = await symphony.workflows.execute_workflow(flow)
    assert run.status == "failed"
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert "Ulrich" not in str(attempt.input)
    assert run.error["message"] == f"patient={REDACTED} Ulrich"  # type: ignore[index]


@pytest.mark.parametrize("where", ["engine", "definition", "step", "nowhere", "refused by the step"])
async def test_inputs_are_on_record_where_asked(symphony: Symphony, where: str) -> None:
    """By the engine, the definition or the step, of which the innermost that says something counts; by default they are not."""

    async def give(context: Any) -> Any:
        return context.inputs["n"]

    symphony.functions.register("give", give)
    symphony.registry.get("workflow_engine").record_inputs = where in ("engine", "refused by the step")
    step_ = {"kind": "function", "name": "a", "function": "give", "inputs": {"n": "{{ n }}"}}
    if where in ("step", "refused by the step"):
        step_["record_inputs"] = where == "step"
    definition = {"name": "w", "steps": [step_], **({"record_inputs": True} if where == "definition" else {})}
    run = await symphony.workflows.execute_workflow(definition, {"n": 5})
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert attempt.input == ({"inputs": {"n": 5}} if where in ("engine", "definition", "step") else None)


async def test_a_large_input_is_cut_and_says_so(symphony: Symphony) -> None:
    """Its beginning is on record, and how much there was; no event grows with it."""

    async def use(text: str, other: int) -> int:
        return len(text)

    @symphony.workflow
    async def flow() -> None:
        await step_with(record_inputs=True)(use, "x" * 1_000_000, 3)

    run = await symphony.workflows.execute_workflow(flow)
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert attempt.input["bytes"] > 1_000_000
    assert attempt.input["cut"].startswith("other=3, text='xxx") or attempt.input["cut"].startswith("text='xxx")
    rows = [row for row in await symphony.log.read_entity_rows(f"Workflow:{run.id}") if row[3] == "WorkflowStepStarted"]
    assert all(len(row[4]) < MAX_INPUT_BYTES for row in rows)
    assert decode_row(rows[0]).data[-1]["input"]["bytes"] == attempt.input["bytes"]
