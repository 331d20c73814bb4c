"""YAML as attackers or accidents write it: refused with file and line, in bounded time; the rest is read."""

import time
from pathlib import Path

import pytest

from selfreward.errors import RecipeError
from selfreward.yaml_text import MAX_BYTES, parse_yaml, plain, read_yaml_text

BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def read(text: str) -> object:
    return plain(parse_yaml(text, name="r.yaml", what="a recipe"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "r.yaml:2: the alias *a"),
        ("a: 1\nb: " + "[" * 3000, "r.yaml:2: values nested more than 50 deep"),
        ("- " * 3000, "r.yaml:1: values nested more than 50 deep"),
        ("? " * 3000, "r.yaml:1: values nested more than 50 deep"),
        ("a:\n  b: " + "9" * 100_000, "r.yaml:2: a number of 100,000 digits"),
        ("a: 0x" + "f" * 5_000, "r.yaml:1: a number of 5,002 digits"),
        ("a: !!python/object/apply:os.system [x]", "r.yaml:1: the tag !!python/object/apply:os.system"),
        ("a: 1\na: 2", "r.yaml:2: found duplicate key"),
        ("a:\n\tb: 1", "r.yaml:2: found character"),
        ("a: 1\nb: \0", "r.yaml:2: unacceptable character"),
        ("a: 1\n---\nb: 2", "r.yaml:2: but found another document"),
        ("- a\n" * 20_000, "more than 10,000 values"),
        ("a: " + "x" * MAX_BYTES, "r.yaml: it has more than 131,072 characters"),
        ('a: "\\ud800"', "lone surrogate"),
        ("a: 'open", "r.yaml:1: found unexpected end of stream"),
    ],
)
def test_what_no_recipe_needs_is_refused_with_its_line(text: str, said: str) -> None:
    started = time.process_time()
    with pytest.raises(RecipeError) as caught:
        read(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.process_time() - started < 10


def test_plain_yaml_is_read_as_version_1_2() -> None:
    assert read("a: 5e-7\nb: on\nc: 2026-01-31\nd: ~\n1: [x, 0x10]\n") == {
        "a": 5e-7, "b": "on", "c": "2026-01-31", "d": None, "1": ["x", 16],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1".encode("utf-16"), "UTF-8 text"),
        (b"a: \xff", "UTF-8 text"),
        (bytes(range(256)) * 1000, "it has more than 131,072 bytes"),
        (b"a: 1\n" * 100_000, "it has more than 131,072 bytes"),
    ],
)
def test_a_file_that_is_no_small_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=said):
        read_yaml_text(tmp_path / "r.yaml", what="a recipe")


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(read_yaml_text(tmp_path / "r.yaml", what="a recipe")) == {"a": 1}
