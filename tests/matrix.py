"""The tests on each Python that is here, from 3.11 to 3.14, and once more with the oldest dependencies that the package allows.

`python -m tests.matrix`, or `make matrix`: an hour or more. Each Python gets an environment of its own below `.venv-matrix`. A version is
looked for as `python3.14` on the path, then where pyenv and uv put theirs; `--python 3.14=/path/to/python` names another. One that is
nowhere is said to be missing. One that only another system has, in a container or below a changed root, is tested in there:
`python3.14 -m tests.matrix --only 3.14`. It ends with status 1 where a test failed, or where a version that `--only` names is missing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".venv-matrix"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def candidates(version: str) -> Iterator[Path]:
    """Where a version may be: on the path, or where pyenv and uv put theirs."""
    found = shutil.which(f"python{version}")
    if found is not None:
        yield Path(found)
    for folder in (Path.home() / ".pyenv" / "versions", Path.home() / ".local" / "share" / "uv" / "python"):
        yield from sorted(folder.glob(f"*{version}*/bin/python{version}"))


def is_usable(python: Path, version: str) -> bool:
    """Whether it runs, and is what its name says: the shims of version managers are there for versions that are not."""
    try:
        said = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return said.startswith(f"Python {version}.")


def oldest() -> list[str]:
    """The oldest versions of the dependencies that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=([^,]+).*", r"==\1", dependency) for dependency in project["dependencies"]]


def run(python: Path, name: str, exact: list[str], arguments: list[str]) -> tuple[bool, str]:
    """The tests in an environment of their own: whether they passed, and how many."""
    place = PLACE / name
    subprocess.run([python, "-m", "venv", "--clear", place], check=True)
    own = place / "bin" / "python"
    pip = [own, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, "--editable", ".", *exact], cwd=ROOT, check=True)
    subprocess.run([*pip, "--group", "test", *exact], cwd=ROOT, check=True)
    command = [own, "-m", "pytest", "-n", "2", "--dist", "worksteal", *arguments]
    told = PLACE / f"{name}.txt"
    sys.stdout.write(f"{name}: what pytest says is in {told.relative_to(ROOT)}\n")
    sys.stdout.flush()
    with told.open("w", encoding="utf-8") as output:
        ended = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
    lines = told.read_text(encoding="utf-8").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    sys.stdout.write("".join(f"{name}: {line}\n" for line in failed))
    return ended.returncode == 0, lines[-1].strip("= ") if lines else "pytest has said nothing"


def main() -> int:
    """Runs all that is here, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], metavar="VERSION=PATH", help="a Python that is not found by itself")
    parser.add_argument("--only", action="append", choices=[*VERSIONS, "oldest"], help="this one alone; may be repeated")
    parser.add_argument("--oldest-on", choices=VERSIONS, help="the Python with the oldest dependencies; by default the first that is here")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --: the tests to run, and the like")
    given = parser.parse_args()
    named = dict(pair.split("=", 1) for pair in given.python)
    pythons: dict[str, Path | None] = {}
    for version in VERSIONS:
        places = [Path(named[version])] if version in named else list(candidates(version))
        pythons[version] = next((python for python in places if is_usable(python, version)), None)
    wanted = given.only or [*VERSIONS, "oldest"]
    table, passed = [], True
    for version in VERSIONS:
        python = pythons[version]
        if version in wanted and python is None:
            passed &= not given.only
            table.append(f"{version:8} not here")
        elif version in wanted and python is not None:
            fine, said = run(python, version, [], given.arguments)
            passed &= fine
            table.append(f"{version:8} {said}")
    first = pythons[given.oldest_on] if given.oldest_on else next((python for python in pythons.values() if python is not None), None)
    if "oldest" in wanted and first is None:
        passed = False
        table.append(f"{'oldest':8} not here: Python {given.oldest_on or ' or '.join(VERSIONS)}")
    elif "oldest" in wanted and first is not None:
        fine, said = run(first, "oldest", oldest(), given.arguments)
        passed &= fine
        table.append(f"{'oldest':8} {said} ({', '.join(oldest())})")
    sys.stdout.write("\n".join(table) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
