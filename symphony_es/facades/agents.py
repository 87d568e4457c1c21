"""Agents and memories: `symphony.agents`. What is awaited here is durable when it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.entities.agent import Agent, complete_config
from symphony_es.entities.memory import Memory
from symphony_es.errors import ConfigurationError
from symphony_es.events.references import EntityReference
from symphony_es.facades.lookup import entity_to_hold, find_entity, flush_added, get_entity, given_mapping, given_texts
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["Agents"]

_FIELDS = ("memory", "tools", "interaction_history")


class Agents:
    """Creating, finding and changing agents.

    Threads: the calls that are awaited belong to the event loop of the `Symphony`, others may be made in any thread; see there.
    """

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony

    async def create_agent(self, config: Mapping[str, Any] | None = None, **fields: Any) -> Agent:
        """Create an agent and save it: one `AgentCreated` event.

        Args:
            config: what it is: `name role description instruction_template capabilities model agent_type` and any key of the
                application's own.
            **fields: further keys of the config; but `id`, `memory` (a Memory, its reference or id), `tools` (names) and
                `interaction_history` are the agent's own fields, here and in `config`.

        Raises:
            EntityExistsError: the id is taken.
            EntityNotFoundError: the memory is not there.
            UnstorableValueError: a value cannot be stored. In all cases nothing has been appended.
        """
        agent = self.make_agent({**given_mapping("config", config), **fields})
        world = self._symphony.world
        world.add(agent)
        await flush_added(self._symphony, agent)
        return agent

    def make_agent(self, given: Mapping[str, Any]) -> Agent:
        """Return an agent that is not saved yet, from the keys that `create_agent` takes."""
        given = given_mapping("config", given)
        own = {key: given[key] for key in _FIELDS if given.get(key) is not None}
        config = {key: value for key, value in given.items() if key not in (*_FIELDS, "id")}
        if "memory" in own:
            own["memory"] = entity_to_hold(self._symphony.world, Memory, "Memory", own["memory"])
        own["tools"] = given_texts("tools", own.get("tools", ()), "names of tools, which symphony.tools.register(name, fn) makes known")
        return Agent(id=given.get("id") or "", config=complete_config(config), **own)

    async def save_agent(self, agent: Agent) -> str:
        """Save an agent, also one that is saved already, and return its id.

        Raises:
            EntityExistsError: another agent has the id.
            EntityOutOfStepError: its changes cannot be appended.
        """
        world = self._symphony.world
        world.add(agent)
        await flush_added(self._symphony, agent)
        return agent.id

    async def get_agent(self, agent: Agent | EntityReference | str) -> Agent:
        """Return an agent by its id, reference or `"Agent:id"`.

        Raises:
            EntityNotFoundError: there is none.
        """
        return get_entity(self._symphony.world, Agent, "Agent", agent)

    async def get_all_agents(self) -> list[Agent]:
        """Return all agents, in the order of `entities.all`."""
        return [agent for agent in self._symphony.world.all("Agent") if isinstance(agent, Agent)]

    async def get_agents_by_capability(self, capability: str) -> list[Agent]:
        """Return agents that have a capability, whatever its case."""
        given: object = capability
        if not isinstance(given, str):
            raise ConfigurationError(f"a capability is a text, not {shown(capability)}")
        return [agent for agent in await self.get_all_agents() if agent.has_capability(capability)]

    async def update_agent(self, agent: Agent | EntityReference | str, config: Mapping[str, Any] | None = None, **fields: Any) -> Agent:
        """Change an agent: one `AgentUpdated` event with what differs.

        Without arguments, what was changed on the object is saved.

        Args:
            agent: object, reference or id.
            config: keys to set; others stay.
            **fields: as for `create_agent`.

        Raises:
            EntityNotFoundError: there is none.
            UnstorableValueError: a value cannot be stored; nothing has been changed.
        """
        world = self._symphony.world
        found = await self.get_agent(agent)
        await world.claim(found)
        given = {**given_mapping("config", config), **fields}
        if given.pop("id", found.id) != found.id:
            raise ConfigurationError("an agent's id cannot be changed: create another agent")
        with world.recording("AgentUpdated"):
            for key, value in given.items():
                if key == "memory":
                    found.memory = None if value is None else self._memory(value)
                elif key in _FIELDS:
                    setattr(found, key, value)
                elif key not in found.config or found.config[key] != value:
                    found.config[key] = value
        await world.flush(found)
        return found

    async def delete_agent(self, agent: Agent | EntityReference | str) -> bool:
        """Remove an agent: `AgentDeleted`; False when there is none. Its history stays readable."""
        world = self._symphony.world
        found = find_entity(world, Agent, "Agent", agent)
        if found is None:
            return False
        await world.claim(found)
        world.remove(found, event_name="AgentDeleted")
        await world.flush()
        return True

    async def create_memory(self, kind: str = "working", items: Mapping[str, Any] | None = None, **fields: Any) -> Memory:
        """Create a memory and save it; assign it to `agent.memory`.

        Args:
            kind: the application's word for what it is.
            items: what it holds from the start.
            **fields: `id` and `metadata`.

        Raises:
            EntityExistsError: the id is taken. Nothing has been appended.
        """
        memory = Memory(kind=kind, items=dict(given_mapping("items", items)), **fields)
        world = self._symphony.world
        world.add(memory)
        await world.flush(memory)
        return memory

    async def get_memory(self, memory: Memory | EntityReference | str) -> Memory:
        """Return a memory by its id, reference or `"Memory:id"`.

        Raises:
            EntityNotFoundError: there is none.
        """
        return self._memory(memory)

    def _memory(self, memory: Any) -> Memory:
        return get_entity(self._symphony.world, Memory, "Memory", memory)
