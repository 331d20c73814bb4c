"""The source of the reference log-probabilities (engine or trainer, decided per response), and what is reported."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from cases.training import NUM_WORDS, SECTION, make_job, make_pairs, train, train_with, write_policy
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from selfreward.recipe import LoraSection
from selfreward.records import PreferencePair, Response
from selfreward.store.files import weights_sha256
from selfreward.store.tables import to_table, write_table
from selfreward.updates import update
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings

NUM_PAIRS = 36  # 32 of these are checked, so that some numbers come from the engine only
SAMPLER = SECTION.model_copy(
    update={"reference_logprobs": "sampler", "batch_size": 12, "num_epochs": 1, "micro_batch_size": None}
)


def sampled_pairs(num: int = NUM_PAIRS) -> list[PreferencePair]:
    return [replace(p, chosen_id=f"{p.id}-c", rejected_id=f"{p.id}-r") for p in make_pairs(num)]


def samples_of(folder: Path, pairs: Sequence[PreferencePair]) -> dict[str, Response]:
    """The samples that an engine without rounding would have stored, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    checkpoint_id = weights_sha256(folder)[:16]
    samples = {}
    for pair in pairs:
        for name, response in ((pair.chosen_id, pair.chosen_token_ids), (pair.rejected_id, pair.rejected_token_ids)):
            ids = torch.tensor([[*pair.prompt_token_ids, *response]])
            with torch.no_grad():
                logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            samples[name] = Response(
                id=name, prompt_id=pair.prompt_id, prompt_token_ids=pair.prompt_token_ids, token_ids=response,
                token_logprobs=tuple(logprobs[-len(response) :].tolist()), text="", finish_reason="stop", seed=0,
                checkpoint_id=checkpoint_id,
            )  # fmt: skip
    return samples


def with_samples(job: TrainingJob, name: str, samples: Sequence[Response]) -> TrainingJob:
    file = job.work_folder.with_name(f"{name}-samples.parquet")
    write_table(to_table(Response, samples), file)
    return replace(job, samples_files=(file,), work_folder=job.work_folder.with_name(name))


def shifted(sample: Response, nats: float) -> Response:
    """The sample with another log-probability for its first token."""
    assert sample.token_logprobs is not None
    first, *rest = sample.token_logprobs
    return replace(sample, token_logprobs=(first + nats, *rest))


def curve(metrics: dict[str, Any]) -> list[float]:
    return [value for step in metrics["steps"] for value in (step["loss"], step["grad_norm"], step["reward_margin"])]


def counts(metrics: dict[str, Any]) -> tuple[int, int]:
    return metrics["num_sampler_logprobs"], metrics["num_trainer_logprobs"]


def reference_of(job: TrainingJob) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = pq.read_table(job.work_folder / "reference.parquet").to_pydict()
    return table


@pytest.fixture
def passed_tokens() -> Iterator[Callable[[], int]]:
    """Number of positions computed without gradients since the last call."""
    seen: list[int] = []

    def record(module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        if isinstance(module, LlamaForCausalLM) and not torch.is_grad_enabled():
            seen.append(kwargs["input_ids"].numel())

    def total() -> int:
        number = sum(seen)
        seen.clear()
        return number

    handle = register_module_forward_hook(record, with_kwargs=True)
    yield total
    handle.remove()


def test_log_probabilities_of_the_engine_replace_a_pass(tmp_path: Path, passed_tokens: Callable[[], int]) -> None:
    pairs = sampled_pairs()
    job = make_job(tmp_path, pairs)
    samples = samples_of(job.policy, pairs)
    sampled_job = with_samples(job, "sampler", list(samples.values()))
    passed_tokens()
    by_trainer = train(sampled_job, SAMPLER, reference_logprobs="trainer")
    full = passed_tokens()
    by_engine = train(replace(sampled_job, work_folder=tmp_path / "engine"), SAMPLER)
    assert passed_tokens() < full - 2 * (NUM_PAIRS - 33)  # before and after, without the pairs that are not checked
    assert curve(by_engine) == pytest.approx(curve(by_trainer), abs=2e-5)
    assert counts(by_trainer) == (0, 2 * NUM_PAIRS)
    assert counts(by_engine) == (2 * NUM_PAIRS, 0)
    # The gap is measured and reported, whichever numbers are used.
    for metrics in (by_trainer, by_engine):
        assert metrics["num_reference_gap_pairs"] == 32
        assert 0 < metrics["reference_gap_nats"] < 1e-4 and metrics["reference_gap_margin"] < 1e-5
        assert metrics["reference_gap_limit"] == SAMPLER.max_reference_gap
    stored = reference_of(replace(sampled_job, work_folder=tmp_path / "engine"))
    for pair, chosen in zip(pairs, stored["chosen"], strict=True):
        assert chosen == pytest.approx(math.fsum(samples[pair.chosen_id].token_logprobs or ()), abs=1e-9)
    assert sum(value is None for value in stored["start_chosen"]) == NUM_PAIRS - 32


def test_engine_log_probabilities_are_used_only_for_responses_of_the_reference(tmp_path: Path) -> None:
    """Samples that the reference did not sample are wrong by half a nat or more here, and must not be used."""
    pairs = sampled_pairs()
    job = make_job(tmp_path, pairs)
    samples = samples_of(job.policy, pairs)
    exact = with_samples(job, "exact", [])
    expected = train(exact, SAMPLER)
    assert counts(expected) == (0, 2 * NUM_PAIRS)
    assert "reference_gap_margin" not in expected  # nothing to compare

    def spoil(name: str, **changes: Any) -> None:
        samples[name] = replace(shifted(samples[name], -0.5), **changes)

    spoil("pair-0-c", checkpoint_id="0" * 16)
    spoil("pair-1-r", token_logprobs=None)
    spoil("pair-2-c", token_ids=(5, *samples["pair-2-c"].token_ids[1:]))
    spoil("pair-3-r", prompt_token_ids=(*samples["pair-3-r"].prompt_token_ids, 7))
    spoil("pair-4-c", token_logprobs=(float("-inf"),) * len(samples["pair-4-c"].token_ids))
    spoil("pair-5-c", token_logprobs=samples["pair-5-c"].token_logprobs[1:])  # type: ignore[index]
    del samples["pair-6-r"]
    metrics = train(with_samples(job, "mixed", list(samples.values())), SAMPLER)
    assert counts(metrics) == (2 * NUM_PAIRS - 7, 7)
    assert metrics["reference_gap_margin"] < 1e-5  # a response without an engine sum has no gap
    assert curve(metrics) == pytest.approx(curve(expected), abs=2e-5)


def test_a_gap_beyond_the_limit_falls_back_to_the_trainer(tmp_path: Path) -> None:
    """Engine numbers of another model with this model's id: noticed in the sample, reported, and not used."""
    pairs = sampled_pairs()
    job = make_job(tmp_path, pairs)
    other = write_policy(tmp_path / "other", seed=3)
    name = weights_sha256(job.policy)[:16]
    wrong = [replace(sample, checkpoint_id=name) for sample in samples_of(other, pairs).values()]
    sampled_job = with_samples(job, "wrong", wrong)
    expected = train(replace(sampled_job, work_folder=tmp_path / "trainer"), SAMPLER, reference_logprobs="trainer")
    metrics = train(sampled_job, SAMPLER)
    assert metrics["reference_gap_margin"] > metrics["reference_gap_limit"] == 0.1
    assert metrics["reference_gap_margin"] == pytest.approx(expected["reference_gap_margin"], rel=1e-4)
    assert counts(metrics) == (0, 2 * NUM_PAIRS)
    assert curve(metrics) == pytest.approx(curve(expected), abs=2e-5)
    assert metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-6)
    accepted = train(replace(sampled_job, work_folder=tmp_path / "accepted"), SAMPLER, max_reference_gap=1e6)
    assert counts(accepted) == (2 * NUM_PAIRS, 0)
    assert accepted["loss_first"] != pytest.approx(math.log(2), abs=1e-3)
    # This measures the update itself, so it never uses the engine's numbers.
    assert accepted["reward_margin_before"] == 0.0


def test_reference_is_computed_once_even_after_a_kill(tmp_path: Path) -> None:
    """Training is killed in the first step, after the reference pass; the resumed training has no samples."""
    pairs = sampled_pairs()
    job = make_job(tmp_path, pairs)
    sampled_job = with_samples(job, "killed", [shifted(s, -0.01) for s in samples_of(job.policy, pairs).values()])
    expected = train(replace(sampled_job, work_folder=tmp_path / "unbroken"), SAMPLER)

    def kill(phase: str, *_: Any) -> None:
        if phase == "update":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update.train(sampled_job, Settings(training=SAMPLER, engine_dtype="bfloat16"), report=kill)
    written = (sampled_job.work_folder / "reference.parquet").read_bytes()
    metrics = train(replace(sampled_job, samples_files=()), SAMPLER)
    assert (sampled_job.work_folder / "reference.parquet").read_bytes() == written
    assert metrics["steps"] == expected["steps"]
    facts = {name for name in expected if name.startswith("reference_gap") or name.endswith("_logprobs")}
    assert len(facts) == 7
    assert {name: metrics[name] for name in facts} == {name: expected[name] for name in facts}


@pytest.mark.parametrize("lora", [None, LoraSection(rank=2, alpha=4.0)])
def test_one_model_in_memory_in_every_pass(tmp_path: Path, lora: LoraSection | None) -> None:
    """The reference M_0 is released before the policy is loaded; no wrapper and no trainer keeps a copy."""
    initial = write_policy(tmp_path / "initial", seed=2)
    job = make_job(tmp_path, make_pairs(3), initial=initial)
    alive: list[tuple[bool, int, int]] = []

    def record(module: Any, _args: Any, _output: Any) -> None:
        is_traced = isinstance(next(module.parameters(), None), FakeTensor)  # its memory is counted, and takes none
        if isinstance(module, LlamaForCausalLM) and not is_traced:
            kinds: dict[type, list[Any]] = {LlamaForCausalLM: [], torch.nn.Parameter: []}
            for item in gc.get_objects():
                if type(item) in kinds:
                    kinds[type(item)].append(item)
            models, parameters = kinds.values()
            num_embeddings = sum(tuple(parameter.shape) == (NUM_WORDS, 32) for parameter in parameters)
            alive.append((torch.is_grad_enabled(), len(models), num_embeddings))

    packing = "padded" if lora else "shared_prefix"
    changes = {"reference": "initial", "num_epochs": 1, "micro_batch_size": None, "packing": packing}
    section = SECTION.model_copy(update=changes)
    handle = register_module_forward_hook(record)
    try:
        metrics = train_with(job, training=section, lora=lora)
    finally:
        handle.remove()
    assert abs(metrics["reward_margin_before"]) > 1e-3
    assert len(alive) >= 5 and {kind for kind, _, _ in alive} == {False, True}
    assert {models for _, models, _ in alive} == {1}
    assert len({num for _, _, num in alive}) == 1  # no weights are left over from a removed model
