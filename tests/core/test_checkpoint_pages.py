"""Pages of the list of checkpoints: all filters, by the library and on the command line, while checkpoints come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError
from symphony_es.events.references import EntityReference
from tests.application import Customer
from tests.cli.document import answer


async def filled(symphony: Symphony, count: int = 7) -> list[str]:
    """Ids of so many checkpoints, the newest first; every second one is of run r1, every third one is called `third`."""
    ada = symphony.entities.add(Customer(id="ada"))
    made = []
    for number in range(count):
        ada.name = f"Ada {number}"
        metadata = {"run_id": "r1"} if number % 2 else {}
        made.append(await symphony.create_checkpoint("third" if number % 3 == 0 else f"number-{number}", metadata))
    return made[::-1]


def ids(entries: list[dict[str, Any]]) -> list[str]:
    """Their ids."""
    return [entry["id"] for entry in entries]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("deleted", [False, True])
async def test_pages_are_the_whole_list(reopen: Callable[..., Awaitable[Symphony]], limit: int, deleted: bool) -> None:
    """Page behind page gives each checkpoint once, also where the last one of each page is deleted before the next is asked for."""
    symphony = await reopen()
    made = await filled(symphony)
    assert ids(await symphony.list_checkpoints()) == made
    found: list[str] = []
    page = await symphony.list_checkpoints(limit=limit)
    while page:
        assert len(page) <= limit
        found += ids(page)
        if deleted:
            await symphony.delete_checkpoint(found[-1])
        page = await symphony.list_checkpoints(limit=limit, before=found[-1])
    assert found == made


@pytest.mark.parametrize("run", ["r1", "Workflow:r1", EntityReference("Workflow", "r1")])
async def test_filters_hold_together(reopen: Callable[..., Awaitable[Symphony]], run: Any) -> None:
    """Run, name, limit and the cursor are all meant; a run or name without checkpoints has none."""
    symphony = await reopen()
    made = await filled(symphony)
    assert ids(await symphony.list_checkpoints(run=run)) == made[1::2]
    assert ids(await symphony.list_checkpoints(name="third")) == made[::3]
    assert ids(await symphony.list_checkpoints(name="third", run=run)) == [made[3]]
    assert ids(await symphony.list_checkpoints(run=run, before=made[1], limit=1)) == [made[3]]
    assert ids(await symphony.list_checkpoints(before="third")) == made[1:]  # the newest of that name
    assert await symphony.list_checkpoints(run="r2") == await symphony.list_checkpoints(name="Third") == []


async def test_moments(reopen: Callable[..., Awaitable[Symphony]]) -> None:
    """`before` takes a position, a time and its ISO text, and the head means all."""
    symphony = await reopen()
    made = await filled(symphony)
    entry = (await symphony.list_checkpoints())[2]
    assert ids(await symphony.list_checkpoints(before=entry["position"])) == made[3:]
    assert ids(await symphony.list_checkpoints(before=str(entry["position"]))) == made[3:]
    assert ids(await symphony.list_checkpoints(before=entry["created_at"])) == made[3:]
    assert ids(await symphony.list_checkpoints(before=datetime.fromisoformat(entry["created_at"]))) == made[3:]
    later = datetime.now(UTC) + timedelta(days=1)
    assert ids(await symphony.list_checkpoints(before=later)) == ids(await symphony.list_checkpoints(before="latest")) == made


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"limit": 0}, "limit=0"), ({"limit": True}, "limit=True"), ({"limit": "3"}, "limit='3'"), ({"name": 3}, "name=3"),
        ({"before": 3.5}, "before=3.5"), ({"before": {"id": "ckpt_x"}}, r"\['id'\]"), ({"before": datetime(2026, 1, 1)}, "time zone"),
        ({"before": "2026-13-01"}, "no time"), ({"run": 7}, "a run is named by"),
    ],
)  # fmt: skip
async def test_what_means_nothing_is_an_error(reopen: Callable[..., Awaitable[Symphony]], given: dict[str, Any], says: str) -> None:
    """A filter that means nothing says so, also where there is no checkpoint."""
    symphony = await reopen()
    with pytest.raises(ConfigurationError, match=says):
        await symphony.list_checkpoints(**given)


@pytest.mark.parametrize("before", ["nobody", "ckpt_", "ckpt_no-such-id", ""])
async def test_before_no_checkpoint(reopen: Callable[..., Awaitable[Symphony]], before: str) -> None:
    """A cursor that never was a checkpoint is an error that names it."""
    symphony = await reopen()
    await filled(symphony, 2)
    with pytest.raises(CheckpointNotFoundError, match=f"no checkpoint '{before}'"):
        await symphony.list_checkpoints(before=before)


async def test_a_reader_pages(reopen: Callable[..., Awaitable[Symphony]], tmp_path: Path) -> None:
    """Who only reads gets the same pages as the process that writes."""
    symphony = await reopen()
    made = await filled(symphony)
    async with Symphony({"state_dir": tmp_path / "state"}, read_only=True) as reader:
        assert ids(await reader.list_checkpoints(run="r1", before=made[1], limit=2)) == [made[3], made[5]]


def test_the_command_pages(tmp_path: Path) -> None:
    """`checkpoints` has the same filters, names the next page, and what is written like a name that there is not."""

    async def fill() -> list[str]:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            return await filled(symphony)

    made = asyncio.run(fill())

    def listed(options: str) -> list[str]:
        told, code = answer(f"checkpoints --json {options}", tmp_path)
        assert code == 0
        return [json.loads(line)["id"] for line in told.splitlines() if line.startswith("{")]

    assert listed("") == listed("--limit 0") == made
    assert listed("--limit 3") == made[:3]
    assert listed(f"--limit 2 --before {made[2]}") == made[3:5]
    assert listed("--run Workflow:r1 --name third") == [made[3]]
    assert answer("checkpoints --limit 3", tmp_path)[0].endswith(f"the next page: --before {made[2]}\n")
    assert "next page" not in answer("checkpoints --limit 7", tmp_path)[0]
    assert answer("checkpoints --name tird", tmp_path)[0] == "no checkpoint is called tird; did you mean third?\n"
    assert answer("checkpoints create x --limit 3", tmp_path)[1] == 2
