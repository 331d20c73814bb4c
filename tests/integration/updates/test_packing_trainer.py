"""The update on packed pairs: division and packing do not change it, and unsupported models are refused."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.packing import COMMON, EXPERTS
from cases.training import END, NUM_WORDS, make_job, make_pairs, train
from transformers import AutoConfig, AutoModelForCausalLM

from selfreward.errors import RecipeError
from selfreward.records import PreferencePair


def pairs_with_shared_prompts(num_prompts: int, *, per_prompt: int, seed: int = 0) -> list[PreferencePair]:
    generator = random.Random(seed)

    def words(num: int) -> tuple[int, ...]:
        return tuple(generator.randrange(2, NUM_WORDS) for _ in range(num))

    pairs = []
    for prompt in range(num_prompts):
        tokens, start = words(8), words(2)
        responses = [(*start[: i % 3], *words(2 + i), END) for i in range(per_prompt + 1)]
        for i, pair in enumerate(make_pairs(per_prompt)):
            ids = {"prompt_token_ids": tokens, "chosen_token_ids": responses[0], "rejected_token_ids": responses[i + 1]}
            pairs.append(replace(pair, id=f"pair-{prompt}-{i}", prompt_id=f"prompt-{prompt}", **ids))  # type: ignore[arg-type]
    return pairs


def curve(metrics: dict[str, Any]) -> list[float]:
    names = ("loss", "grad_norm", "reward_margin")
    return [*(step[name] for step in metrics["steps"] for name in names), metrics["reward_margin_after"]]


def test_training_does_not_depend_on_the_packing(tmp_path: Path) -> None:
    job = make_job(tmp_path, pairs_with_shared_prompts(4, per_prompt=3))
    curves = {
        name: curve(train(replace(job, work_folder=tmp_path / name), batch_size=5, **changes))
        for name, changes in {
            "padded": {"packing": "padded", "micro_batch_size": 1},
            "packed": {"micro_batch_size": None},
            "one pair each": {"micro_batch_size": None, "micro_batch_tokens": 1},
            "padded by tokens": {"packing": "padded", "micro_batch_size": None, "micro_batch_tokens": 100},
        }.items()
    }
    padded = curves.pop("padded")
    assert len(padded) == 3 * 6 + 1 and padded[0] == pytest.approx(math.log(2), abs=1e-5)
    assert padded[-1] > 0.05
    for name, values in curves.items():
        assert values == pytest.approx(padded, abs=1e-5), name


def test_order_of_the_pairs_depends_on_the_seed(tmp_path: Path) -> None:
    """The gradient norm of the second step depends on which pairs were in it."""
    job = make_job(tmp_path, pairs_with_shared_prompts(3, per_prompt=2))
    seconds = [
        train(replace(job, work_folder=tmp_path / name, seed=seed), batch_size=2, num_epochs=1)["steps"][1]["grad_norm"]
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    ]
    assert seconds[0] == seconds[1]
    assert seconds[0] != pytest.approx(seconds[2], rel=1e-3)


def test_a_model_that_cannot_be_packed_is_refused_before_any_pass(tmp_path: Path) -> None:
    """With `packing: padded` the same model trains."""
    job = make_job(tmp_path, make_pairs(4))
    config = AutoConfig.for_model("gemma2", **COMMON | {"vocab_size": NUM_WORDS, "head_dim": 8, "eos_token_id": END})
    AutoModelForCausalLM.from_config(config).save_pretrained(job.policy)
    with pytest.raises(RecipeError, match=r"softcap.*packing: padded"):
        train(job)
    assert not (job.work_folder / "reference.parquet").exists()
    assert train(replace(job, work_folder=tmp_path / "padded"), packing="padded", num_epochs=1)["num_steps"] == 1


def test_a_mixture_of_experts_trains_equally_packed_and_padded(tmp_path: Path) -> None:
    """The load-balancing loss depends on the tokens of a micro-batch, so both leave it out."""
    job = make_job(tmp_path, pairs_with_shared_prompts(2, per_prompt=2))
    options = {"vocab_size": NUM_WORDS, "head_dim": 8, "eos_token_id": END, "router_aux_loss_coef": 0.5, **EXPERTS}
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3_moe", **COMMON | options)
    AutoModelForCausalLM.from_config(config).save_pretrained(job.policy)
    curves = [
        curve(train(replace(job, work_folder=tmp_path / name), num_epochs=1, **changes))
        for name, changes in {
            "packed": {"micro_batch_size": None},
            "padded": {"packing": "padded", "micro_batch_size": None},
            "one by one": {"packing": "padded", "micro_batch_size": 1},
        }.items()
    ]
    assert curves[0][0] == pytest.approx(math.log(2), abs=1e-5)
    for other in curves[1:]:
        assert other == pytest.approx(curves[0], abs=1e-5)
