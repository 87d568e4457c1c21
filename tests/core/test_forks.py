"""A child process leaves alone what its parent has open: each call is a typed error at once, and the parent's files are the parent's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.programs import run, stored

OPEN = """
import json, signal
signal.alarm(60)

async def begin():
    global s, note, plain, view, handle, log, audit, block, projections
    s = symphony()
    await s.setup()
    note = s.entities.add(Note(id="a"))
    plain = s.entities.add(Plain("p"))
    await s.create_checkpoint("first")
    for _ in range(5):
        await s.history(note)
    await s.audit.find(entity="Note:a")
    log, audit, projections, view = s.log, s.audit, s.projections, await s.at("latest")
    block = s.transaction("Begun")

def in_child(function):
    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        signal.alarm(20)
        os._exit(function())
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)

def refused(call):
    async def work():
        found = call()
        if asyncio.iscoroutine(found):
            await found
    def child():
        began = time.monotonic()
        try:
            asyncio.run(work())
        except ForkedProcessError as error:
            assert str(os.getppid()) in str(error) and error.opened_by == os.getppid()
            return 7 if time.monotonic() - began < 5 else 8
        return 9
    return in_child(child)
"""
CALLS = [
    "setattr(note, 'n', 9)",
    "s.entities.add(Note(id='b'))",
    "s.entities.find('Note:a')",
    "s.entities.remove(note)",
    "s.flush()",
    "s.refresh(note)",
    "s.create_checkpoint('c')",
    "s.list_checkpoints()",
    "s.delete_checkpoint('first')",
    "s.resume()",
    "s.resume_latest_checkpoint()",
    "s.resume_from_checkpoint('first')",
    "s.rewind(1)",
    "s.at('latest')",
    "s.at(1)",
    "s.history('Note:a')",
    "s.blame('Note:a', 'n')",
    "s.diff(1, 'latest')",
    "s.fork(into=directory + '-fork')",
    "s.audit.find()",
    "audit.find()",
    "s.transaction('X')",
    "block.__aenter__()",
    "s.setup()",
    "s.close()",
    "s.log",
    "s.world",
    "s.agents.get_all_agents()",
    "log.append([])",
    "log.read_rows()",
    "log.refresh_head()",
    "log.wait_for(10**9)",
    "s.entities.record(plain)",
    "s.entities.load('Note:a')",
    "s.workflows.recover()",
    "s.projections",
]


async def test_every_call_in_a_child_is_refused_at_once(tmp_path: Path) -> None:
    """No call returns, none hangs, and the parent goes on writing and closes."""
    calls = ", ".join(f"{call!r}: refused(lambda: {call})" for call in CALLS)
    program = f"""{OPEN}
asyncio.run(begin())
print(json.dumps({{{calls}}}))
async def on():
    note.n = 5
    await s.close()
asyncio.run(on())
"""
    result = await run(program, tmp_path / "log")
    assert result.stderr == ""
    outcomes = json.loads(result.stdout)
    assert {call: code for call, code in outcomes.items() if code != 7} == {}
    assert set(outcomes) == set(CALLS)
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 5


ENDS = {
    "os._exit": "os._exit(3)",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise SystemExit(3)",
    "collected first": "del s, note, plain, log, audit, block, view, projections; gc.collect(); sys.exit(3)",
    "closed": "log.end(); sys.exit(3)",
}
STATES = {
    "idle": "pass",
    "with changes that wait": "note.n = 4",
    "while commits are under way": (
        "threading.Thread(target=lambda: [note.__setattr__('n', 4) for _ in range(500)] and asyncio.run(s.flush())).start()"
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_a_child_changes_nothing(tmp_path: Path, end: str, state: str) -> None:
    """However a child ends, also when the parent has closed the log before: nothing is flushed, unlocked or tidied up by it."""
    program = f"""{OPEN}
asyncio.run(begin())
{STATES[state]}
read, write = os.pipe()
children = []
for waits in (False, True):
    child = os.fork()
    if child == 0:
        if waits:
            os.close(write)
            os.read(read, 1)
        {ENDS[end]}
    children.append(child)
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 3
assert open(directory + "/LOCK").read().startswith("open by process " + str(os.getpid()))
note.n = 5
asyncio.run(s.close())
assert open(directory + "/LOCK").read() == "clean\\n"
async def anew():
    async with symphony() as other:
        await other.resume()
        other.entities.get("Note:a").text = "anew"
asyncio.run(anew())  # while the second child lives
before = {{name: open(os.path.join(directory, name), "rb").read() for name in ("events.db", "LOCK")}}
os.close(write)
assert os.waitstatus_to_exitcode(os.waitpid(children[1], 0)[1]) == 3
assert before == {{name: open(os.path.join(directory, name), "rb").read() for name in ("events.db", "LOCK")}}
print("whole")
"""
    result = await run(program, tmp_path / "log")
    assert (result.stdout, result.stderr) == ("whole\n", "")
    note = (await stored(tmp_path / "log"))["Note:a"]
    assert (note["n"], note["text"]) == (5, "anew")


async def test_pools_of_forked_processes_hand_the_error_on(tmp_path: Path) -> None:
    """`multiprocessing` with fork, both pools: the parent gets the error that says what to do."""
    program = f"""{OPEN}
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
asyncio.run(begin())
def work(n):
    note.n = n
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    try:
        pool.map(work, range(4))
    except ForkedProcessError as error:
        print("refused", error.opened_by == os.getpid())
with ProcessPoolExecutor(1, mp_context=context) as pool:
    print(repr(pool.submit(work, 1).exception())[:18])
asyncio.run(s.close())
"""
    result = await run(program, tmp_path / "log")
    assert (result.stdout, result.stderr) == ("refused True\nForkedProcessError\n", "")


@pytest.mark.parametrize("state", STATES)
async def test_a_child_opens_what_it_needs_itself(tmp_path: Path, state: str) -> None:
    """The parent's directory for reading, beside the parent, and one of its own for writing; what the parent writes later is read."""
    program = f"""{OPEN}
from pathlib import Path
from symphony_es.log.log import EventLog
asyncio.run(begin())
{STATES[state]}
ready, wrote = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(30)
    async def use():
        log = await EventLog.open_read_only(Path(directory))
        seen = [row[3] for row in await log.read_rows()]
        os.write(ready[1], b"1")
        os.read(wrote[0], 1)
        later = await log.refresh_head()
        rows = await log.read_rows(0, later, 100_000)
        assert len(rows) == later and [row[3] for row in rows[: len(seen)]] == seen
        async with Symphony({{"state_dir": directory + "-own"}}, persistence_enabled=True) as own:
            own.entities.add(Note(id="own"))
        await log.close()
        print(rows[-1][3], flush=True)
    asyncio.run(use())
    sys.exit(0)
os.read(ready[0], 1)
async def last():
    async with s.transaction("LastOne"):
        note.n = 5
    await s.close()  # the log is tidied up under the child's eyes
    async with symphony() as again:
        await again.resume()
        async with again.transaction("ByTheNext"):
            again.entities.get("Note:a").text = "x"
asyncio.run(last())
os.write(wrote[1], b"1")
assert os.waitpid(child, 0)[1] == 0
"""
    result = await run(program, tmp_path / "log")
    assert (result.stdout, result.stderr) == ("ByTheNext\n", "")
    assert "Note:own" in await stored(tmp_path / "log-own")


async def test_the_lock_goes_with_a_parent_that_dies(tmp_path: Path) -> None:
    """A child that lives on does not keep the directory of a parent that was killed."""
    program = f"""{OPEN}
asyncio.run(begin())
hold, ready = os.pipe(), os.pipe()
middle = os.fork()
if middle == 0:
    async def own():
        global s
        s = Symphony({{"state_dir": directory + "2"}}, persistence_enabled=True)
        await s.setup()
    asyncio.run(own())
    if os.fork() == 0:
        os.close(hold[1])
        os.write(ready[1], b"1")
        os.read(hold[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(middle, 0)
async def again():
    async with Symphony({{"state_dir": directory + "2"}}, persistence_enabled=True):
        print("opened")
asyncio.run(again())
os.close(hold[1])
asyncio.run(s.close())
"""
    result = await run(program, tmp_path / "log")
    assert (result.stdout, result.stderr) == ("opened\n", "")
