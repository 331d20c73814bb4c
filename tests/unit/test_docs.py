"""Tests of the documents: their code runs, their links resolve, and papers and code refer to each other."""

import re
from pathlib import Path
from typing import Any

import pytest

from selfreward.steps import Reading
from selfreward.tables import JUDGMENTS, RESPONSES
from selfreward.workload import Lengths

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAPERS = ROOT / "docs" / "papers.md"
EXTENDING = ROOT / "docs" / "extending.md"
# The block after this mark needs a model: tests/integration/test_extending.py runs it.
WHOLE_RUN = "<!-- a whole run -->\n"
ARXIV_ID = re.compile(r"\b\d{4}\.\d{5}\b")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_code_of_extending_runs_in_order() -> None:
    text, mark, rest = EXTENDING.read_text(encoding="utf-8").partition(WHOLE_RUN)
    assert mark and len(blocks(rest)) == 1
    names: dict[str, Any] = {"__name__": "extending"}
    code = blocks(text)
    for number, block in enumerate(code, start=1):
        exec(compile(block, f"{EXTENDING.name}, block {number}", "exec"), names)  # our own document
    # Every part is defined and has worked with the others.
    engine, roles, responses = names["engine"], names["roles"], names["responses"]
    # 4 sampling requests; then two requests of the judge for each response that has text.
    num_judged = sum(bool(response.text.strip()) for response in responses)
    assert engine.usage()["num_requests"] == 4 + 2 * num_judged
    stage = names["critiques"](names["chats_by_name"]["policy"], work=names["Workload"](names["prompts"], 3, 40, 1))
    stored = Stored(responses)
    num_before = engine.usage()["num_requests"]
    critiques = list(stage.make(Reading(1, roles, stage.reads, stored)))
    assert [critique.role for critique in critiques] == ["critic"] * len(responses)
    with pytest.raises(LookupError):
        Reading(1, roles, stage.reads, stored).rows(JUDGMENTS)
    (asked,) = stage.max_requests(Lengths(engine))
    assert asked.by == "policy" and stage.queries == {"policy"}
    assert engine.usage()["num_requests"] - num_before == len(asked.lengths) == 4 * 3


def test_the_messages_of_troubleshooting_are_those_of_the_program() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| message \|.*\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    messages = [match for table in tables for match in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "selfreward").rglob("*.py"))
    assert len(messages) >= 12 and [message for message in messages if message not in sources] == []


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCS if path.name != "README.md" and f"]({path.name})" not in index] == []


class Stored:
    """A run folder that contains only responses."""

    def __init__(self, responses: Any) -> None:
        self.responses = responses

    def has(self, iteration: int, table: Any) -> bool:
        return bool(table == RESPONSES)

    def read(self, iteration: int, table: Any, shard: int | None = None, *, tokens: bool = True) -> Any:
        return iter(self.responses)

    def num_shards(self, iteration: int, table: Any) -> int:
        return 1


def test_the_interfaces_in_extending_exist() -> None:
    from selfreward import parts, records

    lines = EXTENDING.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| ") and "`selfreward/" in line]
    rows = [row for row in rows if "in `" not in row[1]]  # the heading
    assert len(rows) >= 7
    for _, interfaces, flowing, packages in rows:
        for name in re.findall(r"`(\w+)`", interfaces):
            assert hasattr(parts, name), name
        for name in re.findall(r"`(\w+)`", flowing):
            assert hasattr(records, name), name
        for package in re.findall(r"`([\w/]+/)`", packages):
            assert (ROOT / package / "__init__.py").is_file(), package


def test_papers_in_the_code_and_rows_in_papers_md_correspond() -> None:
    sources = [path for path in (ROOT / "selfreward").rglob("*") if path.suffix in (".py", ".toml", ".txt", ".jinja")]
    locations: dict[str, set[str]] = {}
    for path in sources:
        for paper in ARXIV_ID.findall(path.read_text(encoding="utf-8")):
            locations.setdefault(paper, set()).add(path.relative_to(ROOT / "selfreward").as_posix())
    rows = {
        row.split("|")[1].strip(): row
        for row in PAPERS.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| \d{4}\.\d{5} \|", row)
    }
    assert rows.keys() == locations.keys()
    for paper, files in locations.items():
        named = set(re.findall(r"`([\w/]+\.\w+)`", rows[paper]))
        assert named == files, f"{paper}: named {sorted(named)}, found in {sorted(files)}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_and_file_names_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:selfreward|docs|recipes|tests|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
