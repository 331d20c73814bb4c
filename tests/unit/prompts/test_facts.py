"""Facts: parts that share no entity, checks that read the answer, and no overlap by the questions' own words."""

import re

import pytest

from selfreward import prompts, recipe_file
from selfreward.checks import pass_all
from selfreward.prompts.contamination import check_overlap
from selfreward.prompts.facts import PARTS, QUESTIONS, boilerplate, part_of, read_facts

ALL = {prompt.id: prompt for part in PARTS for prompt in read_facts(part)}


def entity(prompt_id: str) -> str:
    return prompt_id.partition("-")[2]


def test_no_entity_is_in_both_parts_and_each_topic_is_in_both():
    train, held_out = ({prompt.id for prompt in read_facts(part)} for part in PARTS)
    assert min(len(train), len(held_out)) > 150 and len(train) + len(held_out) == len(ALL)
    assert not {entity(i) for i in train} & {entity(i) for i in held_out}
    for ids in (train, held_out):
        assert {i.partition("-")[0] for i in ids} == set(QUESTIONS)
    assert part_of("France") == part_of("France")


@pytest.mark.parametrize(
    ("prompt_id", "right", "wrong"),
    [
        ("capital-france", ["Paris", "It is paris, of course.", "**Paris**"], ["London", "Parisians", ""]),
        ("capital-brazil", ["Brasília", "The capital is Brasilia."], ["Rio"]),
        ("symbol-gold", ["Au", "The symbol is Au."], ["au revoir", "Gold (Ag)", "Australia"]),
        ("continent-cuba", ["North America"], ["America"]),
        ("opposite-big", ["small", "little"], ["bigger"]),
        ("language-haiti", ["Haitian Creole"], ["French"]),
        ("plural-mouse", ["mice"], ["mouses"]),
    ],
)
def test_the_check_finds_the_answer(prompt_id, right, wrong):
    assert all(pass_all(ALL[prompt_id].checks, text) for text in right)
    assert not any(pass_all(ALL[prompt_id].checks, text) for text in wrong)


def test_no_answer_is_in_its_question():
    assert not [p.id for p in ALL.values() if pass_all(p.checks, p.messages[0].content)]


def test_questions_of_a_topic_do_not_overlap_by_their_common_words():
    train, held_out = (read_facts(part) for part in PARTS)
    assert not check_overlap(train, held_out, boilerplate=boilerplate()).pairs


@pytest.mark.parametrize("topic", QUESTIONS)
def test_what_is_left_of_a_question_without_its_common_words_is_the_entity(topic):
    for prompt in (p for part in PARTS for p in read_facts(part, [topic])):
        text = prompt.messages[0].content
        for fragment in sorted(boilerplate(), key=len, reverse=True):
            text = text.replace(fragment, " ", 1) if fragment else text
        assert re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") == entity(prompt.id)


def test_no_opposite_is_asked_in_both_directions():
    asked = {p.messages[0].content.split('"')[1]: p.checks for part in PARTS for p in read_facts(part, ["opposite"])}
    assert not [(a, b) for a in asked for b in asked if a < b and pass_all(asked[a], b) and pass_all(asked[b], a)]


def test_a_run_trains_on_one_part_and_is_measured_on_the_other():
    text = """
name: facts
output_dir: runs/facts
models: {policy: {model: "random:tiny"}}
iterations: {max: 2, num_prompts_per_iteration: 30}
prompts: {kind: facts, topics: [capital, opposite], system_prompt: Answer briefly.}
judging: {kind: likelihood}
evaluation: {num_prompts: 40, verifiable: null}
"""
    recipe = recipe_file.parse(text)
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    training = [*source.training_prompts(1), *source.training_prompts(2)]
    assert {p.id for p in training} <= {p.id for p in read_facts("train", ["capital", "opposite"])}
    assert {p.id for p in source.validation_prompts()} <= {
        p.id for p in read_facts("held_out", ["capital", "opposite"])
    }
    assert all(p.checks and p.messages[0].role == "system" for p in [*training, *source.validation_prompts()])
