"""Training, validation and verifiable prompts: disjoint, fresh, the same each time, enough of them or an error."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from selfreward.errors import RecipeError
from selfreward.parts import LeftOut, PromptSource
from selfreward.prompts import build
from selfreward.prompts.contamination import check_overlap
from selfreward.prompts.pool import Pool, in_seeded_order, with_system_prompt
from selfreward.prompts.source import SplitSource
from selfreward.prompts.verifiable import boilerplate
from selfreward.recipe import EvaluationSection, IterationsSection, PromptsSection, VerifiableEvaluation
from selfreward.records import Message, Prompt

SECTION: TypeAdapter[PromptsSection] = TypeAdapter(PromptsSection)


def _prompts(count: int, *, prefix: str = "p") -> list[Prompt]:
    return [Prompt(f"{prefix}{i}", (Message("user", f"Question {prefix} {i}?"),)) for i in range(count)]


def _split(prompts: list[Prompt], *, block: int, iterations: int, num_validation: int, **rest: Any) -> SplitSource:
    sections = IterationsSection(max=iterations, num_prompts_per_iteration=block)
    own = Pool("own.jsonl", in_seeded_order(prompts, seed=rest.pop("seed", 0)))
    rest = {"other": None, "verifiable": (), **rest}
    return SplitSource(own, num_validation=num_validation, iterations=sections, **rest)


def _build(
    section: dict[str, Any],
    *,
    max: int = 2,
    block: int = 20,
    num_validation: int = 10,
    seed: int = 0,
    other: dict[str, Any] | None = None,
    verifiable: VerifiableEvaluation | None = None,
) -> PromptSource:
    return build(
        SECTION.validate_python(section),
        evaluation=EvaluationSection(
            num_prompts=num_validation,
            prompts=None if other is None else SECTION.validate_python(other),
            verifiable=verifiable,
        ),
        iterations=IterationsSection(max=max, num_prompts_per_iteration=block),
        seed=seed,
    )


def _ids(prompts: Any) -> list[str]:
    return [prompt.id for prompt in prompts]


def _texts(prompts: Any) -> list[str]:
    return [prompt.messages[-1].content for prompt in prompts]


def _file(folder: Path, texts: list[str], name: str = "prompts.jsonl") -> dict[str, Any]:
    file = folder / name
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    return {"kind": "file", "path": str(file)}


@given(
    num_prompts=st.integers(2, 60),
    block=st.integers(1, 12),
    iterations=st.integers(1, 5),
    num_validation=st.integers(2, 20),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_sets_are_disjoint_and_fresh_or_an_error_is_raised(
    num_prompts: int, block: int, iterations: int, num_validation: int, seed: int
) -> None:
    prompts = _prompts(num_prompts)
    arguments: dict[str, Any] = {
        "block": block,
        "iterations": iterations,
        "num_validation": num_validation,
        "seed": seed,
    }
    if num_prompts < num_validation + block * iterations:
        with pytest.raises(RecipeError):
            _split(prompts, **arguments)
        return
    source = _split(prompts, **arguments)
    blocks = [source.training_prompts(t) for t in range(1, iterations + 1)]
    validation = source.validation_prompts()
    ids = [prompt_id for part in [*blocks, validation] for prompt_id in _ids(part)]
    assert len(ids) == len(set(ids)) == num_validation + block * iterations
    assert [len(part) for part in blocks] == [block] * iterations
    assert set(ids) <= set(_ids(prompts))
    # The same in the next process: neither the order of the file nor an earlier call matters.
    again = _split(prompts[::-1], **arguments)
    assert [again.training_prompts(t) for t in range(iterations, 0, -1)] == blocks[::-1]
    assert again.validation_prompts() == validation
    assert again.facts() == source.facts()


def test_another_seed_gives_another_order() -> None:
    prompts = _prompts(40)
    first, second = (_split(prompts, block=10, iterations=1, num_validation=10, seed=seed) for seed in (0, 1))
    assert first.validation_prompts() != second.validation_prompts()
    assert first.training_prompts(1) != second.training_prompts(1)
    assert _ids(first.training_prompts(1)) != sorted(_ids(first.training_prompts(1)))


@pytest.mark.parametrize("section", [{"kind": "builtin"}, {"kind": "verifiable"}])
def test_blocks_do_not_depend_on_the_number_of_iterations(section: dict[str, Any]) -> None:
    short, long = _build(section, max=1), _build(section, max=5)
    assert short.training_prompts(1) == long.training_prompts(1)
    assert short.validation_prompts() == long.validation_prompts()
    blocks = [_ids(long.training_prompts(t)) for t in range(1, 6)]
    assert all(not set(first) & set(second) for first, second in pairwise(blocks))
    assert len({prompt_id for block in blocks for prompt_id in block}) == 100


def test_too_few_prompts_says_how_many_and_what_to_do() -> None:
    with pytest.raises(RecipeError) as raised:
        _split(_prompts(50), block=20, iterations=3, num_validation=8)
    message = str(raised.value)
    parts = (
        "50 prompts",
        "8 are held out",
        "42 for training",
        "need 60",
        "18 more; before a run begins, add",
        "per_iteration to 14",
        "max to 2",
    )
    assert [part for part in parts if part not in message] == []
    # What the message proposes works.
    _split(_prompts(50), block=14, iterations=3, num_validation=8)
    _split(_prompts(50), block=20, iterations=2, num_validation=8)
    _split(_prompts(68), block=20, iterations=3, num_validation=8)
    with pytest.raises(RecipeError, match=r"has 5 prompts to hold out.*needs 8, 3 more; add"):
        _split(_prompts(5), block=1, iterations=1, num_validation=8)


def test_a_generator_with_too_few_prompts_advises_more_kinds() -> None:
    section = {"kind": "verifiable", "check_kinds": ["punctuation:no_comma"]}
    with pytest.raises(RecipeError, match=r"leaves [0-9]+ for training; .* allow more check_kinds, or set"):
        _build(section, max=100, block=1000)


def test_an_iteration_beyond_the_prompts_is_refused() -> None:
    source = _split(_prompts(40), block=10, iterations=2, num_validation=8)
    assert len(source.training_prompts(3)) == 10  # iterations.max may be raised when a run is resumed
    with pytest.raises(RecipeError, match="4 iterations"):
        source.training_prompts(4)
    with pytest.raises(ValueError, match="iterations start at 1"):
        source.training_prompts(0)


SENTENCE = "Describe the morning on which the old harbour bell rang although nobody had touched its rope, in your words"


def test_near_copies_of_held_out_prompts_leave_training_and_are_counted() -> None:
    # Whichever of the twins is held out, its copies must not be trained on.
    twins = [Prompt(f"twin{i}", (Message("user", f"{SENTENCE} ({i})."),)) for i in range(4)]
    prompts = [*_prompts(20), *twins]
    for seed in range(12):
        source = _split(prompts, block=8, iterations=1, num_validation=8, seed=seed)
        validation = source.validation_prompts()
        training = [*source.training_prompts(1)]
        assert not check_overlap(training, validation).pairs
        held_out = sum(prompt.id.startswith("twin") for prompt in validation)
        facts = source.facts()
        assert facts["overlap"]["num_training_removed_near"] == (4 - held_out if held_out else 0)
        assert facts["training"]["num_prompts"] == 24 - 8 - facts["overlap"]["num_training_removed_near"]
    assert json.loads(json.dumps(facts)) == facts


def test_an_own_evaluation_source_is_taken_out_of_training(tmp_path: Path) -> None:
    training = [f"Question number {i}?" for i in range(30)]
    own = _file(tmp_path, training)
    other = _file(tmp_path, [*training[:6], *(f"Riddle {i}!" for i in range(6))], "evaluation.jsonl")
    source = _build(own, block=12, other=other, num_validation=12)
    assert set(_texts(source.validation_prompts())) == {*training[:6], *(f"Riddle {i}!" for i in range(6))}
    trained = {text for t in (1, 2) for text in _texts(source.training_prompts(t))}
    assert trained == set(training[6:])
    assert source.facts()["overlap"]["num_training_removed_exact"] == 6
    # Both files number their lines; the ids remain distinct.
    assert not set(_ids(source.validation_prompts())) & {i for t in (1, 2) for i in _ids(source.training_prompts(t))}
    with pytest.raises(RecipeError, match="6 are removed because they overlap"):
        _build(own, block=13, other=other, num_validation=12)
    with pytest.raises(RecipeError, match=r"evaluation.prompts: .* has 12 prompts .* needs 13"):
        _build(own, block=1, other=other, num_validation=13)


def test_more_than_half_overlapping_is_refused(tmp_path: Path) -> None:
    texts = [f"Question number {i}?" for i in range(20)]
    other = _file(tmp_path, texts[:11], "evaluation.jsonl")
    with pytest.raises(RecipeError, match=r"11 of 20 training prompts .* overlap with evaluation.prompts"):
        _build(_file(tmp_path, texts), max=1, block=1, other=other, num_validation=11)
    _build(_file(tmp_path, texts), max=1, block=10, other=other, num_validation=10)


def test_validation_prompts_skip_overlaps_with_verifiable_prompts() -> None:
    prompts = _prompts(30)
    known = _split(prompts, block=10, iterations=1, num_validation=8).validation_prompts()
    copies = [Prompt(f"v{i}", prompt.messages) for i, prompt in enumerate(known[:3])]
    source = _split(prompts, block=10, iterations=1, num_validation=8, verifiable=copies)
    assert [*source.validation_prompts()[:5]] == [*known[3:]]
    everything = {text for part in (source.training_prompts(1), source.validation_prompts()) for text in _texts(part)}
    assert not everything & set(_texts(copies))
    assert source.facts()["overlap"]["num_validation_passed_over"] == 3
    assert source.facts()["overlap"]["num_training_removed_exact"] == 3


def test_ids_are_unique_over_the_whole_run() -> None:
    new = Prompt("p3", (Message("user", "New."),))
    with pytest.raises(RecipeError, match="the id 'p3'"):
        _split(_prompts(30), block=10, iterations=2, num_validation=10, verifiable=[new])


def test_system_prompt_is_put_before_prompts_without_one(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Own."}, {"role": "user", "content": "With its own."}]
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": turns}, *({"prompt": f"Number {i}."} for i in range(5))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"kind": "file", "path": str(file), "system_prompt": "Shared."}
    source = _build(section, max=1, block=4, num_validation=2, verifiable=VerifiableEvaluation(num_prompts=3))
    for prompt in [*source.training_prompts(1), *source.validation_prompts(), *source.verifiable_prompts()]:
        own = prompt.messages[-1].content == "With its own."
        assert [turn.content for turn in prompt.messages if turn.role == "system"] == ["Own." if own else "Shared."]
    assert with_system_prompt(_prompts(2), None) == tuple(_prompts(2))


def test_an_empty_section_of_verifiable_prompts_gives_none() -> None:
    assert [*_build({"kind": "builtin"}).verifiable_prompts()] == []


@pytest.mark.parametrize("section", [{"kind": "builtin"}, {"kind": "verifiable", "num_checks": 2}])
def test_sets_of_a_whole_source_do_not_overlap(section: dict[str, Any]) -> None:
    source = _build(section, max=3, block=60, num_validation=40, verifiable=VerifiableEvaluation(num_prompts=40))
    training = [prompt for t in (1, 2, 3) for prompt in source.training_prompts(t)]
    validation, verifiable = source.validation_prompts(), source.verifiable_prompts()
    assert (len(training), len(validation), len(verifiable)) == (180, 40, 40)
    assert len({*_ids(training), *_ids(validation), *_ids(verifiable)}) == 260
    assert len({*_texts(training), *_texts(validation), *_texts(verifiable)}) == 260
    assert not check_overlap(training, [*validation, *verifiable], boilerplate=boilerplate()).pairs
    assert all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", prompt.id) for prompt in [*training, *validation, *verifiable]
    )
    assert all(prompt.checks for prompt in verifiable)
    assert all(bool(prompt.checks) == (section["kind"] == "verifiable") for prompt in [*training, *validation])


def test_generated_prompts_can_evaluate_another_source() -> None:
    source = _build({"kind": "builtin"}, other={"kind": "verifiable"}, verifiable=VerifiableEvaluation(num_prompts=10))
    assert all(prompt.checks for prompt in source.validation_prompts())
    assert source.facts()["training"]["num_held_out"] == 0


SCRIPT = """
import sys
from selfreward.prompts import build
from selfreward.recipe import BuiltinPrompts, EvaluationSection, IterationsSection
assert not {"torch", "transformers", "trl", "vllm", "datasets", "pyarrow"} & set(sys.modules), "heavy import"
source = build(BuiltinPrompts(kind="builtin"), evaluation=EvaluationSection(num_prompts=9),
               iterations=IterationsSection(max=2, num_prompts_per_iteration=7), seed=3)
print(source.facts())
"""


def test_every_process_sees_the_same_prompts() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "sha256" in outputs[0]


def _long(prompt: Prompt) -> LeftOut | None:
    """Leave out the prompts whose number ends with 7."""
    return (
        LeftOut(prompt.id, "too_long", f"prompt {prompt.id}: long", "shorten it") if prompt.id.endswith("7") else None
    )


def test_the_next_prompt_takes_the_place_of_one_that_does_not_fit() -> None:
    all_fit = _split(_prompts(40), block=10, iterations=3, num_validation=4)
    tried: list[str] = []

    def fit(prompt: Prompt) -> LeftOut | None:
        tried.append(prompt.id)
        return _long(prompt)

    split = _split(_prompts(40), block=10, iterations=3, num_validation=4, fit_training=fit)
    assert split.validation_prompts() == all_fit.validation_prompts()
    blocks = {t: split.training_prompts(t) for t in (3, 1, 2)}
    assert [len(block) for block in blocks.values()] == [10, 10, 10]
    order = [prompt.id for t in (1, 2, 3) for prompt in all_fit.training_prompts(t)]
    kept = [prompt.id for t in (1, 2, 3) for prompt in blocks[t]]
    assert [i for i in order if not i.endswith("7")] == kept[: len([i for i in order if not i.endswith("7")])]
    left_out = [found.prompt_id for t in (1, 2, 3) for found in split.left_out(t)]
    assert left_out and all(prompt_id.endswith("7") for prompt_id in left_out)
    assert split.facts()["training"]["num_left_out"] == len(left_out)
    assert len(tried) == len(set(tried)) == 30 + len(left_out)  # each was tried once
    assert split.num_usable == 36 - len({f"p{i}" for i in (7, 17, 27, 37)} - {p.id for p in split.validation_prompts()})
    shorter = _split(_prompts(40), block=10, iterations=1, num_validation=4, fit_training=_long)
    assert [shorter.training_prompts(t) for t in (1, 2, 3)] == [blocks[t] for t in (1, 2, 3)]  # as a resumed run does


def test_too_few_training_prompts_that_fit_are_an_error_at_once_with_the_reason() -> None:
    with pytest.raises(RecipeError) as caught:
        _split(_prompts(40), block=12, iterations=3, num_validation=4, fit_training=_long, fit_held_out=_long)
    found = str(caught.value)
    assert re.search(
        r"4 cannot be used \(4 too long; for example prompt p\d*7: long; shorten it\), which leaves 32", found
    )
    assert "set iterations.num_prompts_per_iteration to 10, or set iterations.max to 2" in found


def test_held_out_sets_pass_over_prompts_that_do_not_fit() -> None:
    split = _split(_prompts(40), block=5, iterations=1, num_validation=30, fit_held_out=_long)
    assert len(split.validation_prompts()) == 30
    assert not [prompt for prompt in split.validation_prompts() if prompt.id.endswith("7")]
    assert {found.prompt_id for found in split.left_out(None)} <= {"p7", "p17", "p27", "p37"}
    assert split.left_out(None)


def test_too_few_prompts_that_fit_are_an_error_with_an_example() -> None:
    def never(prompt: Prompt) -> LeftOut:
        return LeftOut(prompt.id, "refused_by_template", f"prompt {prompt.id}: refused", "remove the system prompt")

    with pytest.raises(RecipeError, match=r"has 0 prompts to hold out and 40 that cannot be used .*system prompt"):
        _split(_prompts(40), block=5, iterations=1, num_validation=4, fit_held_out=never)
