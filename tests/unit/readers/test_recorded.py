"""The parsers on texts of a real model: the verdicts are the labellers' (see tests/verdicts/README.md)."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfreward.readers import Unscored, Verdict, read_choice, read_json_score, read_score

FOLDER = Path(__file__).parents[2] / "verdicts"


def _rows(name: str) -> dict[str, dict[str, Any]]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


RECORDED, LABELS = _rows("recorded.jsonl"), _rows("labels.jsonl")
# Labels in doubt from which a reader differs: it gives no score, where labellers hesitated.
MORE_CAREFUL = frozenset(("plain-078", "points-140", "points-168", "free-210", "plain-choice-347", "plain-choice-348"))


def _read(row: dict[str, Any]) -> Verdict:
    text, finish_reason = row["text"], row["finish_reason"]
    form, _, what = row["form"].partition(":")
    if form == "choice":
        return read_choice(text, finish_reason=finish_reason, what=what)
    if form == "json":
        return read_json_score(text, finish_reason=finish_reason, low=0.0, high=5.0)
    return read_score(text, finish_reason=finish_reason)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_text_is_read_as_labelled(name: str) -> None:
    label = LABELS[name]["label"]
    wanted = Verdict(unscored=Unscored(label)) if isinstance(label, str) else Verdict(score=float(label))
    verdict = _read(RECORDED[name])
    if name in MORE_CAREFUL:
        assert LABELS[name]["doubt"] and verdict.score is None and verdict != wanted
    else:
        assert verdict == wanted


def test_every_recorded_text_has_a_label() -> None:
    assert RECORDED.keys() == LABELS.keys() and len(RECORDED) >= 300
    labels = [row["label"] for row in LABELS.values()]
    assert sum(not isinstance(label, str) for label in labels) >= 100
