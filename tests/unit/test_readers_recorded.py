"""The readers on what a real model wrote: each verdict is what people read in the text (see tests/verdicts/README.md)."""

import json
from collections import Counter
from pathlib import Path

import pytest

from selfreward.templates import Unscored, Verdict, read_choice, read_json_score, read_score

FOLDER = Path(__file__).parents[1] / "verdicts"


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


RECORDED = {row["id"]: row for row in _rows("recorded.jsonl")}
LABELS = {row["id"]: row["label"] for row in _rows("labels.jsonl")}
CORRECTIONS = {row["id"]: row["label"] for row in _rows("corrections.jsonl")}


def _read(row: dict[str, str]) -> Verdict:
    text, finish_reason = row["text"], row["finish_reason"]
    kind, _, what = row["form"].partition(":")
    if kind == "choice":
        return read_choice(text, finish_reason=finish_reason, what=what)  # type: ignore[arg-type]
    if kind == "json":
        return read_json_score(text, finish_reason=finish_reason, low=0.0, high=5.0)  # type: ignore[arg-type]
    return read_score(text, finish_reason=finish_reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("identifier", RECORDED)
def test_a_recorded_text_is_read_as_people_read_it(identifier: str) -> None:
    label = CORRECTIONS.get(identifier, LABELS[identifier])
    wanted = Verdict(unscored=Unscored(label)) if isinstance(label, str) else Verdict(score=float(label))
    assert _read(RECORDED[identifier]) == wanted


def test_every_recorded_text_has_a_label_and_few_labels_are_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert LABELS.keys() == RECORDED.keys() and CORRECTIONS.keys() <= LABELS.keys()
    assert len(CORRECTIONS) <= len(LABELS) / 20
    with capsys.disabled():
        print(f"\n{len(LABELS)} recorded texts, {len(CORRECTIONS)} corrected labels: {Counter(CORRECTIONS.values())}")
