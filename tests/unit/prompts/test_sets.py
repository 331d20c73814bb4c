"""Data-split guarantees: all held-out sets are disjoint, and none of them is trained on."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from selfreward.errors import RecipeError
from selfreward.parts import PromptSource
from selfreward.prompts import build
from selfreward.prompts.contamination import check_overlap
from selfreward.prompts.gold import read_gold
from selfreward.prompts.pool import Pool
from selfreward.prompts.source import SplitSource
from selfreward.prompts.verifiable import boilerplate
from selfreward.recipe import EvaluationSection, GoldSection, IterationsSection, PromptsSection, VerifiableEvaluation
from selfreward.records import GoldPair, Message, Prompt
from selfreward.seeding import SPLIT_SEED_NAMES

SECTION: TypeAdapter[PromptsSection] = TypeAdapter(PromptsSection)
SENTENCE = "Describe the morning on which the old harbour bell rang although nobody had touched its rope, in words"
BUILTIN = {"kind": "builtin"}


def _asks(number: int | str, text: str) -> Prompt:
    return Prompt(f"p{number}", (Message("user", text),))


def _prompts(count: int) -> list[Prompt]:
    return [_asks(i, f"Question number {i}?") for i in range(count)]


def _split(
    prompts: Sequence[Prompt], *, validation: int, second_validation: int = 0, test: int = 0, **rest: Any
) -> SplitSource:
    iterations = IterationsSection(max=1, num_prompts_per_iteration=rest.pop("block", 4))
    rest = {"other": None, "verifiable": (), **rest}
    own = Pool("own.jsonl", tuple(prompts))
    return SplitSource(
        own,
        num_validation=validation,
        num_second_validation=second_validation,
        num_test=test,
        iterations=iterations,
        **rest,
    )


def _build(
    section: dict[str, Any],
    *,
    validation: int,
    block: int = 20,
    other: dict[str, Any] | None = None,
    seed: int = 0,
    **evaluation: Any,
) -> PromptSource:
    asked = EvaluationSection(
        num_prompts=validation, prompts=None if other is None else SECTION.validate_python(other), **evaluation
    )
    iterations = IterationsSection(max=2, num_prompts_per_iteration=block)
    return build(SECTION.validate_python(section), evaluation=asked, iterations=iterations, seed=seed)


def _sets(source: PromptSource) -> list[Sequence[Prompt]]:
    return [
        source.validation_prompts(),
        source.second_validation_prompts(),
        source.test_prompts(),
        source.verifiable_prompts(),
        [pair.prompt for pair in source.gold_pairs()],
    ]


def _ids(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


def _write(folder: Path, *rows: Any, name: str = "gold.jsonl") -> str:
    file = folder / name
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def _gold(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": "Yes.", "rejected": "No.", **more}


@given(
    num_prompts=st.integers(2, 60),
    sizes=st.tuples(st.integers(2, 20), st.integers(0, 20), st.integers(0, 20)),
    block=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_second_validation_and_test_set_are_disjoint_and_do_not_change_the_validation_set(
    num_prompts: int, sizes: tuple[int, int, int], block: int
) -> None:
    prompts = _prompts(num_prompts)
    validation, second_validation, test = sizes
    if num_prompts < sum(sizes) + block:
        with pytest.raises(RecipeError):
            _split(prompts, validation=validation, second_validation=second_validation, test=test, block=block)
        return
    source = _split(prompts, validation=validation, second_validation=second_validation, test=test, block=block)
    parts = [*_sets(source), source.training_prompts(1)]
    assert [len(part) for part in parts] == [*sizes, 0, 0, block]
    assert len({prompt_id for part in parts for prompt_id in _ids(part)}) == sum(sizes) + block
    alone = _split(prompts, validation=validation, block=block)
    assert alone.validation_prompts() == source.validation_prompts()
    assert alone.facts()["validation"] == source.facts()["validation"]


def test_a_near_copy_of_a_held_out_prompt_is_skipped_by_the_next_set() -> None:
    twins = [_asks(f"twin{i}", f"{SENTENCE} ({i}).") for i in range(4)]
    questions = _prompts(20)
    source = _split([twins[0], questions[0], twins[1], *questions[1:3], twins[2], *questions[3:], twins[3]],
                    validation=2, second_validation=2, test=2)  # fmt: skip
    assert [_ids(part) for part in _sets(source)[:3]] == [["ptwin0", "p0"], ["p1", "p2"], ["p3", "p4"]]
    overlap = source.facts()["overlap"]
    passed = [overlap[f"num_{name}_passed_over"] for name in ("validation", "second_validation", "test")]
    assert passed == [0, 1, 1]
    assert overlap["num_training_removed_near"] == 3
    assert not any("twin" in prompt_id for prompt_id in _ids(source.training_prompts(1)))


SOURCES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    (BUILTIN, None),
    ({"kind": "verifiable"}, None),
    ({"kind": "verifiable", "num_checks": 2}, None),
    (BUILTIN, {"kind": "verifiable"}),
]


@pytest.mark.parametrize(("own", "other"), SOURCES)
def test_no_two_sets_of_a_whole_source_overlap(own: dict[str, Any], other: Any, tmp_path: Path) -> None:
    path = _write(tmp_path, *(_gold(f"What is {i} times {i}?") for i in range(12)))
    source = _build(
        own, other=other, validation=60, num_second_validation_prompts=60, num_test_prompts=50,
        gold=GoldSection(path=path),
        verifiable=VerifiableEvaluation(num_prompts=40),
    )  # fmt: skip
    training = [*source.training_prompts(1), *source.training_prompts(2)]
    parts = [training, *_sets(source)]
    assert [len(part) for part in parts] == [40, 60, 60, 50, 40, 12]
    ids = [prompt_id for part in parts for prompt_id in _ids(part)]
    assert len(set(ids)) == len(ids) == 262
    _, validation, second_validation, test, verifiable, gold = parts
    for earlier, later in combinations([verifiable, gold, validation, second_validation, test, training], 2):
        assert not check_overlap(later, earlier, boilerplate=boilerplate()).pairs
    assert source.num_overlapping(training) == 0
    facts = source.facts()
    assert json.loads(json.dumps(facts)) == facts
    names = ("validation", "second_validation", "test", "verifiable", "gold")
    assert [facts[name]["num_prompts"] for name in names] == [60, 60, 50, 40, 12]
    assert len({facts[name]["sha256"] for name in names}) == 5


def test_many_generated_prompts_can_be_held_out() -> None:
    source = _build({"kind": "verifiable"}, validation=400)
    assert [len(part) for part in _sets(source)] == [400, 400, 400, 128, 0]


def test_an_own_evaluation_source_gives_all_sets_and_marks_their_ids(tmp_path: Path) -> None:
    texts = [{"prompt": f"Question {name} {i}?"} for name in ("own",) for i in range(30)]
    own = {"kind": "file", "path": _write(tmp_path, *texts, name="own.jsonl")}
    riddles = _write(tmp_path, *({"prompt": f"Riddle {i}!"} for i in range(9)), name="riddles.jsonl")
    source = _build(
        own, validation=3, block=15, other={"kind": "file", "path": riddles}, num_second_validation_prompts=3,
                    num_test_prompts=3, verifiable=None)  # fmt: skip
    for name, part in zip(SPLIT_SEED_NAMES.values(), _sets(source), strict=False):
        assert len(part) == 3 and all(prompt_id.startswith(f"{name}-line-") for prompt_id in _ids(part))
    assert source.facts()["training"]["num_held_out"] == 0


@pytest.mark.parametrize("name", ["second_validation", "test"])
def test_too_few_prompts_name_the_set_that_cannot_be_met(name: str) -> None:
    found = (
        "own.jsonl has 5 prompts to hold out in addition to 5 validation prompts; "
        f"evaluation.num_{name}_prompts needs 8, 3 more"
    )
    with pytest.raises(RecipeError, match=found):
        _split(_prompts(10), validation=5, **{name: 8})
    with pytest.raises(RecipeError, match=rf"17 are held out .*or lower evaluation.num_{name}_prompts, or set"):
        _split(_prompts(20), validation=5, **{name: 12})
    assert len(_split(_prompts(20), validation=5, **{name: 11}).training_prompts(1)) == 4


def test_training_prompts_that_gold_pairs_ask_leave_training(tmp_path: Path) -> None:
    gold, _ = read_gold(_write(tmp_path, _gold("question number 13"), _gold("Something else.")))
    source = _split(_prompts(20), validation=5, second_validation=5, gold=gold, block=9)
    assert "p13" not in _ids(source.training_prompts(1))
    assert source.facts()["overlap"]["num_training_removed_exact"] == 1
    # The others pass it over as well.
    passing = _split(_prompts(20), validation=9, second_validation=6, gold=gold)
    assert _ids(passing.second_validation_prompts()) == ["p9", "p10", "p11", "p12", "p14", "p15"]
    many, _ = read_gold(_write(tmp_path, *(_gold(f"Question number {i}?") for i in range(5, 20))))
    with pytest.raises(RecipeError, match=r"15 of 15 training prompts .* or with evaluation.gold, for example"):
        _split(_prompts(20), validation=5, gold=many)


def test_gold_pairs_that_ask_verifiable_prompts_are_refused(tmp_path: Path) -> None:
    gold, _ = read_gold(_write(tmp_path, _gold("Anything?"), _gold("Write about bees.")))
    with pytest.raises(
        RecipeError, match=r"^evaluation.gold: the prompt 'gold-line-2' .* verifiable prompt 'v', 1 in all"
    ):
        _split(_prompts(20), validation=5, gold=gold, verifiable=[Prompt("v", (Message("user", "write about bees"),))])


def test_prompts_that_were_trained_on_are_checked_again(tmp_path: Path) -> None:
    gold, _ = read_gold(_write(tmp_path, _gold(f"{SENTENCE} today.")))
    verifiable = [Prompt("v", (Message("user", "Write about bees."),))]
    source = _split(_prompts(20), validation=3, second_validation=3, test=3, gold=gold, verifiable=verifiable)
    assert source.num_overlapping(source.training_prompts(1)) == 0
    for part in _sets(source):
        # Regardless of its id and its system turn.
        copy = Prompt("other", (Message("system", "Be brief."), *part[0].messages))
        assert source.num_overlapping([*source.training_prompts(1), copy]) == 1
    assert source.num_overlapping([_asks("a", f"{SENTENCE} tonight."), _asks("b", "Write about beans.")]) == 1


@pytest.mark.parametrize(
    ("evaluation", "sentences"),
    [
        ({}, ["no second validation set and no test set: 40 validation prompts are fewer than 400"]),
        ({"num_test_prompts": 10}, ["no second validation set: 40 validation prompts are fewer than 400"]),
        (
            {"num_second_validation_prompts": 0},
            [
                "no second validation set: evaluation.num_second_validation_prompts is 0",
                "no test set: 40 validation prompts are fewer than 400",
            ],
        ),
        ({"num_second_validation_prompts": 10, "num_test_prompts": 10}, []),
    ],
)
def test_the_guarantees_list_missing_sets(evaluation: dict[str, Any], sentences: list[str]) -> None:
    no_gold = "no gold pairs: the judge's accuracy against known orders is not measured"
    promise, *open_points = _build(BUILTIN, validation=40, **evaluation).facts()["data_split_guarantees"]
    assert promise.startswith("held out and never trained on: 40 validation, ") and "128 verifiable prompts" in promise
    assert open_points == [*sentences, no_gold]
    facts = _build(BUILTIN, validation=40, verifiable=None, **evaluation).facts()
    assert facts["data_split_guarantees"][-2].startswith("no verifiable prompts")


# --- gold files ------------------------------------------------------------------------------------------------------


def test_gold_pairs_are_read_from_either_kind_of_file(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    rows = [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "", "id": 7},
        {"prompt": turns, "chosen": " Hi. ", "rejected": "Go away.", "reference": "Hello."},
    ]
    rows[0]["rejected"] = "Why not?"
    path = _write(tmp_path, *rows)
    (first, second), _ = read_gold(path)
    assert first == GoldPair(
        Prompt("gold-7", (Message("user", "Why?"),), source=f"file:{path}"), "Because.", "Why not?"
    )
    assert second.prompt.id == "gold-line-2" and second.prompt.reference == "Hello."
    assert [turn.role for turn in second.prompt.messages] == ["system", "user"] and second.chosen == " Hi. "
    parquet = str(tmp_path / "gold.parquet")
    pq.write_table(pa.table({"prompt": ["A?", "B?"], "chosen": ["x", "y"], "rejected": ["z", "w"]}), parquet)
    assert [(pair.prompt.id, pair.chosen, pair.rejected) for pair in read_gold(parquet)[0]] == [
        ("gold-row-1", "x", "z"),
        ("gold-row-2", "y", "w"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "B?", "chosen": "x"}, "no 'rejected'; a row needs a prompt, 'chosen' and 'rejected'"),
        ({"prompt": "B?", "chosen": None, "rejected": None}, "no 'chosen' and no 'rejected'"),
        ({"chosen": "x", "rejected": "y"}, "'chosen' and 'rejected' begin with different turns"),
        (_gold("B?", chosen="No. "), "'chosen' and 'rejected' are the same text"),
        (_gold("B?", chosen=""), "'chosen' is empty"),
        (_gold("B?", rejected=" \n"), "'rejected' is empty"),
        (_gold("B?", rejected=3), "'rejected' is int"),
        ('{"prompt": "B?", "chosen": "\\ud800", "rejected": "x"}', "'chosen' message 1 has the lone surrogate"),
        (_gold(" "), "'prompt' message 1 is empty"),
        (_gold("B?", rejected=[{"role": "user", "content": "x"}]), "'rejected' does not end with the assistant"),
        (_gold("B?", chosen=[]), "'chosen' is list"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_is_not_a_gold_pair_is_named(row: Any, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, _gold("A?"), row)
    with pytest.raises(RecipeError) as raised:
        read_gold(path)
    assert str(raised.value).startswith(f"evaluation.gold: {path}: 1 of 2 rows cannot be used")
    assert f"\n  {path}, line 2: {message}" in str(raised.value)


def _says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


_LONG = [{"role": "user", "content": "Q?"}, _says("A"), {"role": "user", "content": "R?"}]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "Q?", "chosen": [_says("Yes.")], "rejected": [_says("No.")]}, ["Q?"]),
        ({"prompt": "Q?", "chosen": _says("Yes."), "rejected": _says("No.")}, ["Q?"]),
        ({"prompt": [{"role": "user", "content": "Q?"}], "chosen": [_says("Yes.")], "rejected": [_says("No.")],
          "chosen_message": _says("Yes."), "score_chosen": 1.0}, ["Q?"]),
        ({"prompt": "Q?", "chosen": [{"role": "user", "content": "Q?"}, _says("Yes.")],
          "rejected": [{"role": "user", "content": "Q?"}, _says("No.")], "messages": []}, ["Q?"]),
        ({"prompt": "Q?", "chosen": [*_LONG, _says("Yes.")], "rejected": [*_LONG, _says("No.")]}, ["Q?", "A", "R?"]),
        ({"chosen": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "Yes."}],
          "rejected": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "No."}]}, ["Q?"]),
        ({"conversations": [{"from": "human", "value": "Q?"}], "chosen": {"from": "gpt", "value": "Yes."},
          "rejected": {"from": "gpt", "value": "No."}}, ["Q?"]),
        ({"chosen": "\n\nHuman: Q?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Q?\n\nAssistant: No."}, ["Q?"]),
        ({"instruction": "Q?", "input": "", "chosen": "Yes.", "rejected": "No."}, ["Q?"]),
    ],
)  # fmt: skip
def test_gold_pairs_in_the_forms_of_other_trainers(row: Any, turns: list[str], tmp_path: Path) -> None:
    (pair,), summary = read_gold(_write(tmp_path, row))
    assert [turn.content for turn in pair.prompt.messages] == turns
    assert (pair.chosen, pair.rejected) == ("Yes.", "No.") and not summary.dropped


def test_a_repeated_gold_prompt_is_left_out_and_counted(tmp_path: Path) -> None:
    pairs, summary = read_gold(_write(tmp_path, _gold("A?"), _gold("a?", chosen="other"), _gold("B?")))
    assert [pair.prompt.id for pair in pairs] == ["gold-line-1", "gold-line-3"] and summary.num_repeated == 1


def test_a_gold_file_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it contains no prompt"):
        read_gold(_write(tmp_path))


def test_another_response_is_another_gold_set(tmp_path: Path) -> None:
    def sha256(**row: Any) -> str:
        gold, _ = read_gold(_write(tmp_path, _gold("A?", **row)))
        facts = _split(_prompts(20), validation=3, gold=gold).facts()
        return str(facts["gold"]["sha256"])

    assert len({sha256(), sha256(chosen="Perhaps."), sha256(chosen="No.", rejected="Yes.")}) == 3
