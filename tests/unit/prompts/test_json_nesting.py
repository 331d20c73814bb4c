"""JSON that pyarrow would end the process over is refused by file and line."""

import gzip
import json
from pathlib import Path

import pytest

from selfreward.errors import RecipeError
from selfreward.prompts.dataset import open_dataset
from selfreward.prompts.json_nesting import MAX_NESTING, nesting_of

DEEP = [b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b"[" * 3000]


@pytest.mark.parametrize("value", DEEP)
@pytest.mark.parametrize("name", ["train.jsonl", "inner/train.json", "train.jsonl.gz"])
def test_a_deeply_nested_row_is_refused(tmp_path: Path, name: str, value: bytes) -> None:
    (tmp_path / "inner").mkdir()
    content = b'{"prompt": "Say hello."}\n{"prompt": "Say more.", "more": ' + value + b"}\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(RecipeError, match=r"train\.jsonl?(\.gz)?, line 2: values nested more than 200 deep"):
        open_dataset(str(tmp_path))


def test_brackets_in_texts_and_beside_each_other_are_not_nested() -> None:
    text = json.dumps({"prompt": "[" * 3000 + '\\"[{' * 3000, "messages": [{"content": []}] * 3000})
    assert nesting_of(text.encode()) == 4
    assert nesting_of(b"[" * MAX_NESTING + b"]" * MAX_NESTING) == MAX_NESTING
