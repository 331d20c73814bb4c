"""Gradient checkpointing of all layers or of the first ones: the same gradients, and that many layers twice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases.training import SECTION, make_job, make_pairs, write_policy
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.updates import recipe_problems
from selfreward.updates.batches import PairBlock
from selfreward.updates.models import load_model
from selfreward.updates.pairs import read_pairs
from selfreward.updates.recomputed_layers import recompute_layers
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Trainer

NUM_LAYERS = 3


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = write_policy(tmp_path / "policy", seed=1)
    config = LlamaConfig.from_pretrained(folder)
    config.num_hidden_layers = NUM_LAYERS
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def gradients_and_calls(
    tmp_path: Path, policy: Path, wanted: bool | int, packing: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor], int]:
    """Gradients of a step, and how often attention was computed in it."""
    job = make_job(tmp_path, make_pairs(4))
    block = PairBlock.of(read_pairs(job.pairs_file, max_pairs=None, seed=0)[0])
    section = SECTION.model_copy(
        update={"gradient_checkpointing": wanted, "packing": packing, "micro_batch_size": None}
    )
    model = load_model(policy, dtype="float32", trust_remote_code=False)
    settings = Settings(training=section, engine_dtype="float32")
    trainer = Trainer(model, settings=settings, first=block, num_steps=1, seed=1)
    reference = trainer.logps(block, range(4), phase="reference")
    calls = 0
    original = LlamaAttention.forward

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *args, **options)

    found: dict[str, Tensor] = {}

    def keep() -> None:
        found.update({name: weights.grad.clone() for name, weights in model.named_parameters()})

    with monkeypatch.context() as patch:
        patch.setattr(LlamaAttention, "forward", counting)
        patch.setattr(trainer.optimizer, "step", keep)
        trainer.step(block, reference, [0, 1, 2, 3])
    return found, calls


@pytest.mark.parametrize("packing", ["shared_prefix", "padded"])
def test_gradients_are_equal_and_that_many_layers_are_computed_twice(
    tmp_path: Path, policy: Path, packing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = gradients_and_calls(tmp_path, policy, False, packing, monkeypatch)
    assert calls == NUM_LAYERS and any(gradient.count_nonzero() for gradient in plain.values())
    for wanted, twice in ((1, 1), (2, 2), (NUM_LAYERS, NUM_LAYERS), (True, NUM_LAYERS)):
        found, calls = gradients_and_calls(tmp_path, policy, wanted, packing, monkeypatch)
        assert calls == NUM_LAYERS + twice, wanted
        for name, gradient in plain.items():
            torch.testing.assert_close(found[name], gradient)


def test_the_first_layers_are_chosen(policy: Path) -> None:
    model = load_model(policy, dtype="float32", trust_remote_code=False)
    recompute_layers(model, 2)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, True, False]


def test_more_layers_than_there_are_are_refused(policy: Path) -> None:
    model = load_model(policy, dtype="float32", trust_remote_code=False)
    with pytest.raises(RecipeError, match=r"gradient_checkpointing: 4, .* has 3 layers .* 1 to 3, true and false are"):
        recompute_layers(model, 4)


def test_more_layers_than_there_are_are_found_before_a_run(policy: Path) -> None:
    recipe = recipe_file.load(Path(__file__).parents[3] / "recipes/tiny.yaml")
    facts: Any = SimpleNamespace(recipe=recipe, models={"policy": SimpleNamespace(path=policy)})
    for allowed in (3, True, False):
        section = recipe.training.model_copy(update={"gradient_checkpointing": allowed})
        assert not [*recipe_problems.problems(section, facts)]
    section = recipe.training.model_copy(update={"gradient_checkpointing": 4})
    (problem,) = recipe_problems.problems(section, facts)
    assert "gradient_checkpointing: 4, but the policy has 3 layers; 1 to 3, true and false are allowed" in problem.text
