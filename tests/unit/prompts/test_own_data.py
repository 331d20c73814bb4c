"""Recipes on small files of one's own: the sizes, and held-out prompts with checks, are those that the files have."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfreward import prompts, recipe_file
from selfreward.errors import RecipeError
from selfreward.prompts.contamination import check_overlap
from selfreward.prompts.source import SplitSource
from selfreward.recipe import Recipe
from selfreward.settled import settled
from selfreward.store import Store
from selfreward.tools import tools_of

WORDS = ("alder", "birch", "cedar", "dogwood", "elder", "fir", "gorse", "hazel", "ivy", "juniper", "kapok", "larch")
LONG = "Describe the morning on which the old harbour bell rang although nobody had touched its rope, in words"


def rows(count: int, text: str = "Is {} a tree?", **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": text.format(f"{WORDS[i % 12]} {i}"), **more} for i in range(count)]


def checked(count: int, text: str = "Name {}.") -> list[dict[str, Any]]:
    return rows(count, text, checks=[{"kind": "punctuation:no_comma"}])


def write(folder: Path, found: list[dict[str, Any]], name: str = "own.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def recipe_of(file: Path, *overrides: str) -> Recipe:
    text = f'output_dir: {file.parent / "run"}\nmodels: {{policy: {{model: "random:tiny"}}}}\n'
    return recipe_file.parse(f"{text}prompts: {{kind: file, path: {file}}}\n", overrides=overrides)


def built(recipe: Recipe) -> SplitSource:
    return prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)


@pytest.mark.parametrize(
    ("count", "validation", "blocks"), [(3, 2, [1]), (8, 2, [6]), (60, 20, [20, 20]), (1200, 128, [268] * 4)]
)
def test_a_recipe_without_sizes_uses_the_prompts_that_there_are(
    tmp_path: Path, count: int, validation: int, blocks: list[int]
) -> None:
    recipe = prompts.sized(recipe_of(write(tmp_path, rows(count))))
    source = built(recipe)
    assert len(source.validation_prompts()) == validation
    assert recipe.iterations.max == len(blocks)
    assert [len(source.training_prompts(t + 1)) for t in range(len(blocks))] == blocks


@pytest.mark.parametrize(("count", "found"), [(0, "contains no prompt"), (1, "found 1; at least 3"), (2, "found 2;")])
def test_too_few_prompts_for_any_run_are_refused_with_the_number_needed(tmp_path: Path, count: int, found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        prompts.sized(recipe_of(write(tmp_path, rows(count))))


def test_prompts_that_overlap_with_held_out_ones_are_not_counted_as_training_prompts(tmp_path: Path) -> None:
    twins = [{"prompt": f"{LONG} ({i})."} for i in range(20)]
    recipe = prompts.sized(recipe_of(write(tmp_path, [*rows(70), *twins])))
    source = built(recipe)
    assert source.num_usable < 60  # 90 prompts, 30 held out, among them a twin
    used = recipe.iterations.max * recipe.iterations.num_prompts_per_iteration
    assert source.num_usable - recipe.iterations.max < used <= source.num_usable


def test_sizes_count_only_prompts_to_which_the_policy_can_respond(tmp_path: Path) -> None:
    overrides = ("engine.context_tokens=128", "sampling.max_tokens=16", "evaluation.max_tokens=16")
    assert settled(recipe_of(write(tmp_path, rows(60)), *overrides)).iterations.num_prompts_per_iteration == 20
    long = [{"prompt": f"{LONG} ({'x' * 200}{i})?"} for i in range(6)]
    recipe = settled(recipe_of(write(tmp_path, [*rows(54), *long]), *overrides))
    assert (recipe.iterations.max, recipe.iterations.num_prompts_per_iteration) == (2, 17)  # of 54 - 20
    tools = tools_of(recipe, cache_folder=tmp_path)
    assert [len(tools.source.training_prompts(t)) for t in (1, 2)] == [17, 17]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("evaluation.num_prompts=60", "lower evaluation.num_prompts to 59"),
        ("evaluation.num_prompts=200", "lower evaluation.num_prompts to 60"),
        ("iterations.num_prompts_per_iteration=512", "set iterations.num_prompts_per_iteration to 58"),
        ("iterations.max=100", "set iterations.max to 58"),
        ("evaluation.num_test_prompts=70", "lower evaluation.num_test_prompts to 58 (0: none)"),
    ],
)
def test_a_key_that_is_too_large_is_named_with_a_number_that_fits(tmp_path: Path, override: str, found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        built(prompts.sized(recipe_of(write(tmp_path, rows(60)), override)))
    assert found in str(caught.value)


def test_held_out_prompts_of_a_file_are_never_trained_on(tmp_path: Path) -> None:
    file = write(tmp_path, [*rows(60), *checked(12)])
    own = write(tmp_path, [*checked(12), *rows(5, "Why {}?")], "own-checks.jsonl")
    source = built(prompts.sized(recipe_of(file, f"evaluation.verifiable={{path: {own}}}")))
    verifiable = source.verifiable_prompts()
    assert len(verifiable) == 12 and all(prompt.checks for prompt in verifiable)
    assert all(prompt.id.startswith("verifiable-line-") for prompt in verifiable)
    training = [prompt for t in (1, 2) for prompt in source.training_prompts(t)]
    assert training and not check_overlap([*training, *source.validation_prompts()], verifiable).pairs
    assert source.num_overlapping(verifiable) == 12
    facts = source.facts()["verifiable"]
    assert (facts["num_prompts"], facts["num_without_checks"]) == (12, 5)
    assert [each.kind for each in source.left_out(None)] == ["no_checks"] * 5


def test_the_number_of_held_out_prompts_with_checks_may_be_set(tmp_path: Path) -> None:
    file, own = write(tmp_path, rows(60)), write(tmp_path, [*checked(12), *rows(3)], "own-checks.jsonl")

    def ids(*more: str) -> set[str]:
        section = ", ".join((f"path: {own}", *more))
        source = built(prompts.sized(recipe_of(file, f"evaluation.verifiable={{{section}}}")))
        return {prompt.id for prompt in source.verifiable_prompts()}

    assert len(ids("num_prompts: 5")) == 5 and ids("num_prompts: 5") < ids()
    with pytest.raises(RecipeError, match=r"12 rows with `checks` and 3 without; .* needs 13; lower it to 12"):
        ids("num_prompts: 13")


def test_the_answers_of_a_file_are_in_the_columns_that_the_recipe_names(tmp_path: Path) -> None:
    own = write(tmp_path, [{"aufgabe": f"Add {i} and 1.", "loesung": str(i + 1)} for i in range(9)], "german.jsonl")
    section = f"path: {own}, columns: {{prompt: aufgabe, answer: loesung}}, answer_check: exact"
    source = built(prompts.sized(recipe_of(write(tmp_path, rows(60)), f"evaluation.verifiable={{{section}}}")))
    assert sorted(p.checks[0]["kind"] for p in source.verifiable_prompts()) == ["exact"] * 9
    with pytest.raises(RecipeError, match="are about a file, and there is none"):
        recipe_of(own, "evaluation.verifiable={columns: {prompt: aufgabe}}")


def test_a_file_without_any_checks_is_refused(tmp_path: Path) -> None:
    own = write(tmp_path, rows(4), "plain.jsonl")
    with pytest.raises(RecipeError, match=r"plain.jsonl has 0 rows with `checks` and 4 without"):
        built(prompts.sized(recipe_of(write(tmp_path, rows(60)), f"evaluation.verifiable={{path: {own}}}")))


def test_validation_prompts_with_checks_give_the_pass_rate_without_a_second_file(tmp_path: Path) -> None:
    recipe = prompts.sized(recipe_of(write(tmp_path, [*checked(40), *rows(20)])))
    assert recipe.evaluation.verifiable == "validation"
    source = built(recipe)
    found = source.verifiable_prompts()
    assert 0 < len(found) < 20 and [*found] == [p for p in source.validation_prompts() if p.checks]
    assert source.facts()["verifiable"]["num_prompts"] == len(found)
    with pytest.raises(RecipeError, match="none of the 20 validation prompts has `checks`"):
        built(prompts.sized(recipe_of(write(tmp_path, rows(60)), "evaluation.verifiable=validation")))


def test_a_run_that_began_keeps_its_sizes_when_the_file_grows(tmp_path: Path) -> None:
    file = write(tmp_path, rows(60))
    recipe = recipe_of(file)
    before = settled(recipe)
    with Store(tmp_path / "run", name="run") as store:
        store.write_text("recipe.yaml", recipe_file.dump(before))
        write(tmp_path, rows(900))
        grown = settled(recipe)
        assert grown.evaluation.num_prompts == 64  # no file of the run is finished, so that it has not begun
        store.read_or_make_json(0, "evaluation", dict)
    assert settled(recipe) == before
    assert settled(recipe_of(file, "seed=1")).evaluation.num_prompts == 64  # `run` refuses this recipe


def test_the_columns_that_the_starter_shows_are_read_from_a_csv(tmp_path: Path) -> None:
    text = Path("recipes/starter.yaml").read_text()
    (shown,) = (line for line in text.splitlines() if "columns: {" in line)
    lines = [f"What is {i} plus {i}?,{2 * i}" for i in range(12)]
    (tmp_path / "questions.csv").write_text("\n".join(["my_question,my_solution", *lines]) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.replace("\nprompts: prompts.jsonl", f"\n{shown.removeprefix('#').strip()}"))
    loaded = recipe_file.load(recipe, ["models.policy.model=random:tiny"])
    (first, *_) = built(prompts.sized(loaded)).training_prompts(1)
    assert first.messages[0].content.startswith("What is") and first.checks[0]["kind"] == "numeric"
