"""The Python code of a page of the docs, run one example after another, as a reader would."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def run_examples(replaced: Mapping[str, str], *, last: int | None = None) -> dict[str, object]:
    """Run the examples of docs/python.md, the first `last` of them, in this folder; return their names."""
    text = PAGE.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names: dict[str, object] = {"__name__": "__main__"}
    for found in [*re.finditer(r"```python\n(.*?)```", text, re.DOTALL)][:last]:
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], str(PAGE), "exec"), names)
    return names
