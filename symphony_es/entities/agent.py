"""Agent: who performs tasks.

What an agent is, its `config` says, a dict that an application may add keys to; what happened to it is `interaction_history`.
Its memory is another entity, held as a live reference. Nothing of a client or a connection is part of its state: `model` is
a name, and the process registers what stands behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from symphony_es.core.objects.entity import entity
from symphony_es.entities.memory import Memory

__all__ = ["Agent", "complete_config"]

_DEFAULTS: dict[str, Any] = {
    "name": "",
    "role": "",
    "description": "",
    "instruction_template": "",
    "capabilities": {},
    "model": "echo",
    "agent_type": "",
}


@entity(type="Agent")
class Agent:
    """An agent, configured by a dict.

    Attributes:
        id: made when left empty.
        config: `name role description instruction_template capabilities model agent_type` and any key of the application's.
        memory: its Memory, or None. Where the memory could not be restored, an EntityReference to it.
        tools: names of tools.
        interaction_history: what it was asked and answered, oldest first.
    """

    id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    memory: Memory | None = None
    tools: list[str] = field(default_factory=list)
    interaction_history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self._configured("name"))

    @property
    def role(self) -> str:
        """What it is there for."""
        return str(self._configured("role"))

    @property
    def description(self) -> str:
        """For readers."""
        return str(self._configured("description"))

    @property
    def instruction_template(self) -> str:
        """Its instructions; `{key}` stands for a value, see `system_prompt`."""
        return str(self._configured("instruction_template"))

    @property
    def capabilities(self) -> Any:
        """What it can do: a list of words, or a dict of such lists (`tools`, `expertise`, …)."""
        return self._configured("capabilities")

    @property
    def model(self) -> str:
        """Name of the model client that it performs tasks through."""
        return str(self._configured("model") or _DEFAULTS["model"])

    @property
    def agent_type(self) -> str:
        """The kind of agent it is, which a task step can ask for."""
        return str(self._configured("agent_type"))

    @property
    def _interaction_history(self) -> list[dict[str, Any]]:
        """`interaction_history`, under the name by which older restorers set it."""
        return self.interaction_history

    @_interaction_history.setter
    def _interaction_history(self, history: list[dict[str, Any]]) -> None:
        self.interaction_history = history

    def has_capability(self, capability: str) -> bool:
        """Return whether the word is among its capabilities, whatever its case; a dict's `limitations` are none."""
        held = self.capabilities
        words: list[Any] = []
        if isinstance(held, Mapping):
            for kind, listed in held.items():
                if kind == "limitations":
                    continue
                words.extend(listed if isinstance(listed, (list, tuple, set)) else [kind] if listed is True else [listed])
        elif isinstance(held, (list, tuple, set)):
            words.extend(held)
        return capability.casefold() in {word.casefold() for word in words if isinstance(word, str)}

    def system_prompt(self, **values: Any) -> str:
        """Return the instructions with `{key}` replaced by the given values and by the config's; other braces stay."""
        prompt = self.instruction_template
        for key, value in {**self.config, **values}.items():
            prompt = prompt.replace(f"{{{key}}}", str(value))
        return prompt

    def _configured(self, key: str) -> Any:
        return self.config.get(key, _DEFAULTS[key])


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config` with the keys that every agent has filled in where they are missing or None."""
    given = {key: value for key, value in config.items() if value is not None or key not in _DEFAULTS}
    return {**_DEFAULTS, **given}
