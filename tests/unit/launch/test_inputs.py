"""Inputs of a run that are replaced between two starts are refused by name; what was not recorded is accepted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.launch.inputs import facts_of, refuse_other_inputs
from selfreward.model_files import materialise
from selfreward.recipe import ModelSection, Recipe
from selfreward.store import Store
from selfreward.tools import tools_of

RECIPE = """
name: inputs
output_dir: out
models: {policy: {model: MODEL}, other: {model: OTHER}}
engine: {kind: transformers, dtype: float32, context_tokens: 2048}
iterations: {max: 1, num_prompts_per_iteration: 4}
prompts: {kind: file, path: PROMPTS}
sampling: {num_responses: 2, max_tokens: 8}
judging: {kind: constitution, by: policy, principles: PRINCIPLES}
evaluation: {num_prompts: 4, verifiable: null}
"""


class Inputs:
    """A recipe whose models, prompts and principles are files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("model", "other"):
            shutil.copytree(materialise(ModelSection(model="random:tiny")), folder / name)
        rows = [{"id": f"q{i}", "prompt": f"How much is {i} plus {3 * i}?", "reference": str(4 * i)} for i in range(20)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "principles.yaml").write_text("- Be kind.\n- Be brief.\n")

    def recipe(self) -> Recipe:
        files = {"MODEL": "model", "OTHER": "other", "PROMPTS": "prompts.jsonl", "PRINCIPLES": "principles.yaml"}
        text = RECIPE
        for word, name in files.items():
            text = text.replace(word, str(self.folder / name))
        return recipe_file.parse(text)

    def facts(self) -> dict[str, Any]:
        recipe = self.recipe()
        return facts_of(recipe, tools_of(recipe, cache_folder=self.folder / "replies"), warnings=[])


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run", name="run")


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "chat template": (
        edit("model/chat_template.jinja", "assistant", "Assistant"),
        "models.policy: .*chat_template.jin",
    ),
    "tokenizer": (edit("model/tokenizer.json", '"<|end|>"', '"<|fin|>"'), "models.policy: .*tokenizer.json"),
    "settings": (edit("other/tokenizer_config.json", "8192", "4096"), "models.other: .*tokenizer_config.json"),
    "generation": (edit("model/generation_config.json", "256", "258"), "models.policy: .*generation_config.json"),
    "configuration": (edit("model/config.json", "10000.0", "20000.0"), "models.policy: .*config.json"),
    "a new file": (lambda folder: (folder / "model/added_tokens.json").write_text("{}"), "added_tokens.json"),
    "a prompt to come": (edit("prompts.jsonl", "is 7 plus", "makes 7 plus"), "prompts"),
    "an answer": (edit("prompts.jsonl", '"reference": "28"', '"reference": "29"'), "prompts"),
    "a principle": (edit("principles.yaml", "kind", "polite"), r"judging.principles .*principles.yaml"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_replaced_input_is_refused_by_name(inputs: Inputs, store: Store, what: str) -> None:
    store.record_facts(**inputs.facts())
    refuse_other_inputs(store, inputs.facts())  # unchanged
    change, said = CHANGES[what]
    change(inputs.folder)
    now = inputs.facts()
    with pytest.raises(RecipeError, match=said):
        refuse_other_inputs(store, now)


def test_changes_without_influence_are_accepted(inputs: Inputs, store: Store) -> None:
    store.record_facts(**inputs.facts())
    edit("principles.yaml", "- Be kind.", "# Two principles.\n- 'Be kind.'")(inputs.folder)
    config = inputs.folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_version": "0.1"}))
    (inputs.folder / "model" / "README.md").write_text("A model.")
    (inputs.folder / "model" / ".cache").mkdir()
    refuse_other_inputs(store, inputs.facts())


def test_a_run_that_recorded_less_is_continued(inputs: Inputs, store: Store) -> None:
    facts = inputs.facts()
    for model in facts["models"].values():
        model.pop("files", None)
    store.record_facts(**{key: value for key, value in facts.items() if key != "inputs"})
    edit("model/chat_template.jinja", "assistant", "Assistant")(inputs.folder)
    refuse_other_inputs(store, inputs.facts())
