"""What is taken out of what the library itself puts on record of inputs and failures: keys and secrets, by their usual names.

A name is looked at word by word: `apiKey`, `X-API-Key` and `stripe_api_key` are one. Texts, such as the messages of errors, are
searched for such names with a value behind them, for passwords in URLs, and for tokens of well-known shapes. The application's own
fields, contexts and outputs are its own: they are stored as they are.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, Literal, get_args

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown, type_shown

__all__ = ["REDACTED", "ErrorDetails", "Redaction", "current_redaction", "records_inputs"]

REDACTED = "[redacted]"
ErrorDetails = Literal["type", "message", "traceback"]
_DETAILS = get_args(ErrorDetails)

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ANYWHERE = frozenset({
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "authorization", "apikey",
    "apikeys", "privatekey", "cookie", "cookies", "jwt", "bearer",
})  # fmt: skip
_AT_THE_END = ("password", "passwd", "passphrase")
"""What ends a name that is written in one: `PGPASSWORD`."""
_TOKEN_OF = frozenset({"access", "api", "auth", "bearer", "csrf", "id", "refresh", "session", "xsrf"})
_NO_TOKEN = frozenset({
    "budget", "count", "counter", "counts", "estimate", "index", "input", "kind", "length", "limit", "max", "min", "model", "number",
    "output", "page", "per", "price", "rate", "total", "type", "types", "usage", "used",
})  # fmt: skip
_KEY_OF = frozenset(
    {"access", "account", "api", "auth", "client", "encryption", "license", "private", "secret", "shared", "signing", "ssh"}
)
_MAX_KNOWN = 10_000

_URL = r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/:@'\"]{0,200}:)[^\s/'\"]{1,500}@"
_USER_OF_URL = r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?=[^\s/:@'\"]{0,200}[0-9])[^\s/:@'\"]{12,500}@"
_SIGNED_URL = r"(?i)([?&](?:x-(?:amz|goog)-)?sig(?:nature)?=)[^\s&#'\"<>]{1,4000}"
_STATEMENT = r"(?i)(\b(?:password|passphrase|identified\s{1,5}by)\s{1,5})(?:'[^']{1,4000}'|\"[^\"]{1,4000}\")"
_NETRC = r"(?i)(\blogin\s{1,9}\S{1,200}\s{1,9}password\s{1,9})(?=\S{0,200}[0-9])\S{1,4000}"
_INVALID = r"(?m)^([\w.\[\]-]{1,200})(\n\s{1,8}[^\n]{0,1000}?\[type=[\w.]{1,80}, input_value=)[^\n]{1,4000}?(?=, input_type=)"
"""A field that did not validate, and what was given for it, as pydantic says it."""
_COLOURS = r"\x1b\[[0-9;]{0,40}m"
_SCHEME = r"\b(Bearer|Basic|Digest|Token)(\s+)(?=[^\s\"']{0,200}[0-9=_.])[A-Za-z0-9._~+/=-]{8,}"
_SHAPES = (
    r"(?s)\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?!-----END).){0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
)
_NAMED = r"""(?x)
    (?P<quote>\\?["']?)-{0,2}(?P<name>[A-Za-z_][\w.-]{0,80})(?P=quote)\s{0,3}
    (?P<sign>=>|=(?!=)|:(?!/)|,(?=\s?b?["']))\s{0,3}
    | (?<![\w-])--?(?P<option>[A-Za-z][\w.-]{0,80})\s{1,3}(?![-\s])
    | <(?P<element>[A-Za-z_][\w.:-]{0,80})(?:\s[^<>]{0,200})?>(?!\s{0,200}<)"""
_VALUE = r"""(?x)
    (?:(?:Bearer|Basic|Digest|Token)\s+)?
    (?:\[redacted\]|\\"[^"\\]{0,4000}(?:\\")?|b?"(?:[^"\\]|\\.){0,4000}"?|b?'(?:[^'\\]|\\.){0,4000}'?|[^\s,;&"')\]}<]{1,4000})"""
_PAIRS = r"[^\r\n\"'\]})>]{1,4000}"
"""All that stands behind `Cookie:`, not its first pair alone."""
_PLAIN_WORD = r"[A-Za-z]{1,12}[.!?]?$"


class Redaction:
    """Which names are those of secrets, and what texts hide.

    Args:
        names: further names whose values are secrets; compared by their words, so `patient-name` is `patientName`.
        keep: names that look like those of secrets and are none.
        patterns: further regular expressions; what they find in texts is taken out.
        enabled: False to take out nothing by these rules.
        error_details: how much of an error is put on record: its class alone (`"type"`), with its message, or with both and its traceback.
        redact: a function of the application that each such text passes through last, `(text) -> text`. Where it fails, nothing of the
            text is put on record. It is called wherever an error is recorded, and must not wait for anything.

    Raises:
        ConfigurationError: a name without letters, a pattern that is none, unknown details, or a `redact` that is no function.
    """

    def __init__(
        self,
        *,
        names: Iterable[str] = (),
        keep: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        enabled: bool = True,
        error_details: ErrorDetails = "traceback",
        redact: Callable[[str], str] | None = None,
    ) -> None:
        if error_details not in _DETAILS:
            raise ConfigurationError(f"error_details={shown(error_details)}: it is one of {', '.join(map(repr, _DETAILS))}")
        given: object = redact
        if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
            raise ConfigurationError(f"redact={shown(redact)}: it is a plain function that takes a text and returns one")
        self.enabled = enabled
        self.error_details = error_details
        self._redact = redact
        self._names = frozenset(_read_name(name) for name in _several(names))
        self._keep = frozenset(_read_name(name) for name in _several(keep))
        self._patterns = [_read_pattern(pattern) for pattern in _several(patterns)]
        self._known: dict[str, bool] = {}

    def is_secret(self, name: str) -> bool:
        """Return whether what stands under a name is taken out."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()  # keys of data are without number
            known = self._known[name] = self.enabled and self._looks_secret(name[:200])
        return known

    def _looks_secret(self, name: str) -> bool:
        words = [word.lower() for word in _WORDS.findall(name)]
        joined = "".join(words)
        if joined in self._keep:
            return False
        if joined in self._names or not _ANYWHERE.isdisjoint(words) or any(word.endswith(_AT_THE_END) for word in words):
            return True
        pairs = list(pairwise(words))
        if any(second in ("key", "keys") and first in _KEY_OF for first, second in pairs):
            return True
        if any(second == "tokens" and first in _TOKEN_OF for first, second in pairs):
            return True
        return "token" in words and _NO_TOKEN.isdisjoint(words)

    def text(self, text: str) -> str:
        """Return a text without what it hides."""
        if self.enabled:
            text = self._by_rules(text)
        if self._redact is None or not text:
            return text
        try:
            redacted: object = self._redact(text)
        except Exception as error:  # noqa: BLE001  it is code of the application, and the text may be what it fails at
            return f"[left out: redact raised {type(error).__name__}]"
        return redacted if type(redacted) is str else f"[left out: redact returned {type_shown(redacted)}]"

    def _by_rules(self, text: str) -> str:
        if "\x1b[" in text:  # colours stand between a name and its value; where nothing is found, they stay
            plain = re.sub(_COLOURS, "", text)
            return text if (found := self._without_hidden(plain)) == plain else found
        return self._without_hidden(text)

    def _without_hidden(self, text: str) -> str:
        text = re.sub(_URL, rf"\1{REDACTED}@", text)  # compiled with the first text that is searched
        text = re.sub(_USER_OF_URL, rf"\1{REDACTED}@", text)
        text = re.sub(_SIGNED_URL, rf"\1{REDACTED}", text)
        text = re.sub(_STATEMENT, rf"\1{REDACTED}", text)
        text = re.sub(_NETRC, rf"\1{REDACTED}", text)
        text = re.sub(_INVALID, lambda found: f"{found[1]}{found[2]}{REDACTED}" if self.is_secret(found[1]) else found[0], text)
        text = self._without_named(text)
        text = re.sub(_SCHEME, rf"\1\2{REDACTED}", text)
        text = re.sub(_SHAPES, REDACTED, text)
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text

    def _without_named(self, text: str) -> str:
        """Take out what stands behind the name of a secret. Behind another name the search goes on: `error: password=x` has two."""
        named, one, pairs = re.compile(_NAMED), re.compile(_VALUE), re.compile(_PAIRS)
        kept: list[str] = []
        begin = 0
        position = 0
        while (found := named.search(text, position)) is not None:
            name = found["name"] or found["option"] or found["element"]
            if not self.is_secret(name):
                position = found.end("element") if found["element"] else found.end()  # its attributes have names of their own
                continue
            position = found.end()
            behind = pairs if found["sign"] == ":" and "cookie" in name.lower() and text[position : position + 1] not in ("'", '"') else one
            value = behind.match(text, position)
            if value is not None and not _tells_nothing(found, value[0]):
                kept += text[begin:position], _in_its_quotes(value[0])
                begin = position = value.end()
        return "".join((*kept, text[begin:])) if kept else text


def _tells_nothing(found: re.Match[str], value: str) -> bool:
    """Return whether what stands behind the name of a secret is none."""
    if value in ("None", "null", "True", "False", "true", "false") or value.startswith(REDACTED):
        return True
    # "unexpected token: colon" tells of no secret, nor does "--token is missing"
    return found["sign"] in (":", None) and "token" in found[0].lower() and re.match(_PLAIN_WORD, value) is not None


def _in_its_quotes(value: str) -> str:
    quote = value[0] if value[0] in "\"'" else value[:2] if value[:2] in ("b'", 'b"', '\\"') else ""
    return f"{quote}{REDACTED}{quote.removeprefix('b')}"


def _several(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | re.Pattern) else list(given)


def _read_name(name: Any) -> str:
    words = _WORDS.findall(name) if isinstance(name, str) else []
    if not words:
        raise ConfigurationError(f"{shown(name)} is not a name whose values could be taken out: give text with letters")
    return "".join(words).lower()


def _read_pattern(pattern: Any) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"{shown(pattern)} is not a regular expression: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise ConfigurationError(f"{shown(pattern)} is an expression for bytes: give one for text")
    return compiled


current_redaction: ContextVar[Redaction] = ContextVar("symphony_es_redaction", default=Redaction())  # noqa: B039 - nothing of it changes but what it has looked at
"""What counts in a run's task: the engine's."""

records_inputs: ContextVar[bool] = ContextVar("symphony_es_records_inputs", default=False)
"""Whether the steps of a run's task put their inputs on record, where neither they nor their definition say: as the engine does."""
