"""Prose: docstrings are orders, the pages for users are short sentences, and there is one spelling."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = [*sorted((ROOT / "symphony_es").rglob("*.py")), *sorted((ROOT / "projections").rglob("*.py"))]
CODE = [
    path
    for path in [*LIBRARY, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
    if path.name != Path(__file__).name and "compatibility" not in path.parts  # what is stored there keeps its names
]
OF_SPECIALISTS = {"format.md", "performance.md", "architecture.md"}
"""Pages for those who change the library or read its files: they may be dense."""
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in OF_SPECIALISTS),
]
DOCUMENTS = [
    *PAGES,
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path not in PAGES),
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
]
MOST_WORDS = 30

IMPERATIVES = """
Add Allow Append Apply Ask Attribute Await Begin Bring Build Call Cancel Carry Change Check Choose Claim Clear Close Compare Complete
Compute Connect Copy Count Create Decide Declare Decode Decorate Describe Detach Distrust Do Drive Drop Encode End Enter Execute Extend
Fail Feed Fill Find Fit Fix Fold Follow Forget Give Go Hand Have Heed Hide Hold Import Insert Interrupt Keep Know Leave Let Listen Log
Look Make Mark Measure Move Name Note Open Parse Pause Perform Place Plan Prepare Print Prune Put Queue Raise Read Record Recover Refuse
Register Release Remember Remove Repair Restore Return Reverse Roll Run Save Say See Send Set Sort Start Stop Submit Take Tell Throw Try
Turn Undo Use Verify Wait Wake Warn Watch Work Write Yield
"""
"""What a function's docstring may begin with; a verb that is missing here is added, a noun is not."""

BRITISH = {
    "behavior": "behaviour", "canceled": "cancelled", "canceling": "cancelling", "catalog": "catalogue", "center": "centre",
    "color": "colour", "colored": "coloured", "defense": "defence", "favor": "favour", "favorite": "favourite", "fiber": "fibre",
    "flavor": "flavour", "fulfill": "fulfil", "gray": "grey", "harbor": "harbour", "honor": "honour", "humor": "humour",
    "judgment": "judgement", "labeled": "labelled", "labeling": "labelling", "labor": "labour", "modeled": "modelled",
    "modeling": "modelling", "neighbor": "neighbour", "offense": "offence", "signaled": "signalled", "signaling": "signalling",
    "traveled": "travelled", "traveling": "travelling", "skillful": "skilful", "acknowledgment": "acknowledgement",
}  # fmt: skip
"""How words are not written here, and how they are; of `-ize` and its forms see `_IZE`."""
_IZE = re.compile(
    r"(?:analy|author|canonical|categor|custom|emphas|final|general|initial|local|material|maxim|minim|normal|optim|organ|parallel|"
    r"priorit|random|recogn|serial|special|standard|summar|synchron|token|util|visual)(?:z(?:e[ds]?|ing|ers?)|iz(?:e[ds]?|ing|ers?|ations?))"
)
OTHERS = """
ANALYZE Authorization authorization authorized authorizer set_authorizer finalize finalizers is_finalizing initialize Serialization
NO_COLOR normalize
"""
"""Names that others have given: of SQLite, HTTP, the standard library, hypothesis, the user's document, and an agreed variable."""


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions that do something: properties, and the overloads of a signature, are nouns."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [ast.unparse(each) for each in node.decorator_list]
            if not any("property" in each or "overload" in each or each.endswith((".setter", ".deleter")) for each in decorators):
                yield node


def test_docstrings_begin_with_a_verb() -> None:
    """In the imperative: "Return …", "Refuse …"; of public functions and of internal ones."""
    verbs = set(IMPERATIVES.split())
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {text.splitlines()[0]}"
        for path in LIBRARY
        for node in _functions(path)
        if (text := ast.get_docstring(node)) and text.split()[0].rstrip(",:;.") not in verbs
    ]
    assert found == []


def _paragraphs(text: str) -> Iterator[str]:
    """The prose of a page: no programs, no tables, no headings; each item of a list by itself."""
    lines: list[str] = []
    for line in re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines():
        item = re.match(r"\s*(?:[*-]|\d+\.)\s+(.*)", line)
        if line.startswith(("|", "#")):
            lines.append("")
        elif item is not None:
            lines += ["", item[1]]
        else:
            lines.append(line)
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        if flat := " ".join(paragraph.split()):
            yield flat


def _sentences(text: str) -> Iterator[str]:
    """Sentences end at a full stop, question or exclamation mark; links count by their words, and a piece of code is one word."""
    for paragraph in _paragraphs(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "`code`", paragraph))
        yield from (each for each in re.split(r"(?<=[.!?])(?:\*\*|\))? +(?=[A-Z`*\"(0-9“])", plain) if each.strip())


def test_what_a_sentence_is() -> None:
    """So that the rule below is about sentences."""
    text = (
        "One `a. B c` two. **Three four.** Five\n\n* six: seven\n* eight\n\n```python\na b c d\n```\n\n| a | b |\n\n[nine](ten.md#x) (11)."
    )
    assert [len(each.split()) for each in _sentences(text)] == [3, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_sentences_of_the_pages_for_users_are_short(path: Path) -> None:
    """So that a reader of English as a second language need not read them twice."""
    assert [f"{len(each.split())}: {each}" for each in _sentences(path.read_text()) if len(each.split()) > MOST_WORDS] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_something_is_not(path: Path) -> None:
    """It "is not a thing"; it never "is no thing". That "there is no thing" is another matter."""
    found = [
        each
        for each in _paragraphs(path.read_text())
        if re.search(r"(?<!there )\b(is|are|was|were|be) no (?!longer\b|more\b)", re.sub(r"`[^`]*`", "", each), re.IGNORECASE)
    ]
    assert found == []


def _american(text: str) -> list[str]:
    """The words that are written otherwise here, in prose and in the parts of names."""
    found, others = [], OTHERS.split()
    for name in re.findall(r"\w+", text):
        if name not in others:
            words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
            found += [word for word in words if word in BRITISH or word.removesuffix("s") in BRITISH or _IZE.fullmatch(word)]
    return found


def test_what_is_written_otherwise() -> None:
    """In prose, and in names of each manner."""
    assert _american("The color of a canceled run, recognizeColors(organize_it) and set_authorizer") == [
        "color", "canceled", "recognize", "colors", "organize",
    ]  # fmt: skip
    assert _american("The colour of a cancelled run, its size and prize; he realises") == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_one_spelling_in_documents(path: Path) -> None:
    """British, as in most of what is here: `cancelled` is a status on record. Code in them is looked at where it is run."""
    assert _american(re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))) == []


def test_one_spelling_in_code() -> None:
    """In comments, texts and names, but for names that others have given."""
    texts = {path: path.read_text().replace("self.color = ", "") for path in CODE}  # an attribute of `argparse`'s parser
    where = {name: path for path, text in texts.items() for name in set(re.findall(r"\w+", text))}
    assert [f"{where[name].relative_to(ROOT)}: {name}" for name in where if _american(name)] == []
