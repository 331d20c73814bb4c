"""The DPO update on a tiny random Llama that is built here: its inputs, its results, and its equality with TRL."""

import gc
import json
import math
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from cases.stock import stock_trainer
from cases.training import END, SECTION, TEMPLATE, losses, make_job, make_pairs, plain_logp, train, write_policy
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from selfreward.recipe import TrlLoss


def test_exactly_the_sampled_ids_are_trained_on(tmp_path: Path) -> None:
    """No end token is added to a truncated response, none is dropped, and only responses have labels."""
    pairs = make_pairs(6)
    pairs[0] = replace(pairs[0], chosen_token_ids=(7, 8, 9))  # truncated at the token limit
    pairs[1] = replace(pairs[1], chosen_token_ids=(END, END), prompt_token_ids=(END, 9, END))
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def record(module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        if isinstance(module, LlamaForCausalLM) and torch.is_grad_enabled():
            for ids, mask, labels in zip(*(kwargs[k] for k in ("input_ids", "attention_mask", "labels")), strict=True):
                assert (labels[mask == 0] == -100).all()
                seen.append((tuple(ids[mask == 1].tolist()), tuple(labels[mask == 1].tolist())))

    handle = register_module_forward_hook(record, with_kwargs=True)
    try:
        train(make_job(tmp_path, pairs), num_epochs=1, packing="padded")
    finally:
        handle.remove()
    expected = [
        (pair.prompt_token_ids + response, (-100,) * len(pair.prompt_token_ids) + response)
        for pair in pairs
        for response in (pair.chosen_token_ids, pair.rejected_token_ids)
    ]
    assert sorted(seen) == sorted(expected)


def test_an_update_raises_the_margin_on_its_own_pairs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pairs = make_pairs(8)
    job = make_job(tmp_path, pairs)
    before = {p.name: p.read_bytes() for p in job.policy.iterdir()}
    capfd.readouterr()
    metrics = train(job, num_epochs=6)
    lines = capfd.readouterr().err.splitlines()  # not a terminal: the first and the last step
    assert [line.split("  ")[0] for line in lines] == ["training: update 1/12", "training: update 12/12"]
    assert metrics["reward_margin_before"] == 0.0
    assert metrics["reward_margin_after"] > 0.2
    assert metrics["reward_accuracy_vs_pairs"] == 1.0
    assert metrics["loss_last"] < metrics["loss_first"] == pytest.approx(math.log(2))
    assert metrics["changed_weight_share"] > 0.5
    assert (metrics["num_pairs"], metrics["num_steps"], metrics["num_epochs"]) == (8, 12, 6)
    assert json.loads((job.work_folder / "training.json").read_text()) == metrics
    assert {p.name: p.read_bytes() for p in job.policy.iterdir()} == before

    # The same margin, computed by plain transformers from the two model folders.
    new, margins = job.work_folder / "checkpoint", []
    for p in pairs:
        moves = [
            plain_logp(new, p.prompt_token_ids, ids) - plain_logp(job.policy, p.prompt_token_ids, ids)
            for ids in (p.chosen_token_ids, p.rejected_token_ids)
        ]
        margins.append(SECTION.beta * (moves[0] - moves[1]))
    assert metrics["reward_margin_after"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)


def test_checkpoint_is_a_plain_model_folder(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4))
    train(job)
    folder = job.work_folder / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE
    old, new = (json.loads((f / "config.json").read_text()) for f in (job.policy, folder))
    assert old == new  # dropout was off during training only
    assert (folder / "tokenizer.json").read_bytes() == (job.policy / "tokenizer.json").read_bytes()
    canary = json.loads((folder / "canary.json").read_text())
    ids, logprobs = canary["token_ids"], canary["token_logprobs"]
    assert 24 <= len(ids) <= 48 and len(set(ids)) > 3 and len(logprobs) == len(ids) - 1
    assert sum(logprobs) == pytest.approx(plain_logp(folder, ids[:1], ids[1:]), abs=1e-4)
    assert abs(sum(logprobs) - plain_logp(job.policy, ids[:1], ids[1:])) > 1e-2
    assert not (job.work_folder / "saves").exists()  # optimizer states are large


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4))
    first = train(job)
    weights = job.work_folder / "checkpoint" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert train(job, micro_batch_size=1) == first
    assert weights.stat().st_mtime_ns == written


def test_loss_curve_does_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    """11 pairs in batches of 8: the last batch and its last micro-batch are smaller."""
    job = make_job(tmp_path, make_pairs(11))
    curves = {}
    for micro in (8, 4, 2, 1):
        metrics = train(replace(job, work_folder=tmp_path / f"micro-{micro}"), batch_size=8, micro_batch_size=micro)
        assert metrics["num_steps"] == 4
        curves[micro] = [
            value for step in metrics["steps"] for value in (step["loss"], step["grad_norm"], step["reward_margin"])
        ]
    for micro in (4, 2, 1):
        assert curves[micro] == pytest.approx(curves[8], abs=2e-5)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4))
    plain = train(job)
    checkpointed = train(replace(job, work_folder=tmp_path / "checkpointed"), gradient_checkpointing=True)
    assert losses(checkpointed) == pytest.approx(losses(plain), abs=1e-6)


def test_reference_initial_is_the_initial_model(tmp_path: Path) -> None:
    """Log-probabilities under M_0 equal those of plain transformers; M_0 is released before the first gradient."""
    pairs = make_pairs(5)
    initial = write_policy(tmp_path / "initial", seed=2)
    job = make_job(tmp_path, pairs, initial=initial)
    alive: set[int] = set()

    def has_weights(item: Any) -> bool:  # memory is counted on models without
        return (
            isinstance(item, LlamaForCausalLM)
            and type(item.lm_head.weight) is torch.nn.Parameter
            and not item.lm_head.weight.is_meta
        )

    def record(module: Any, _args: Any, _output: Any) -> None:
        if has_weights(module) and torch.is_grad_enabled():
            alive.add(sum(map(has_weights, gc.get_objects())))

    handle = register_module_forward_hook(record)
    try:
        against_initial = train(job, reference="initial", num_epochs=1)
    finally:
        handle.remove()
    against_start = train(replace(job, work_folder=tmp_path / "start"), num_epochs=1)
    assert alive == {1}
    assert abs(against_initial["reward_margin_before"]) > 0.01
    assert against_initial["loss_first"] != pytest.approx(against_start["loss_first"], abs=1e-3)

    rows = pq.read_table(job.work_folder / "reference.parquet").to_pylist()
    for pair, row in zip(pairs, rows, strict=True):
        for column, ids, folder in (
            ("chosen", pair.chosen_token_ids, initial),
            ("rejected", pair.rejected_token_ids, initial),
            ("start_chosen", pair.chosen_token_ids, job.policy),
            ("start_rejected", pair.rejected_token_ids, job.policy),
        ):
            assert row[column] == pytest.approx(plain_logp(folder, pair.prompt_token_ids, ids), abs=1e-3), column
    start = pq.read_table(tmp_path / "start" / "reference.parquet").to_pydict()
    assert start["chosen"] == pytest.approx([row["start_chosen"] for row in rows], abs=1e-4)


def test_equal_to_stock_trl_on_text(tmp_path: Path) -> None:
    """The same pairs as text through TRL's own tokenisation, reference model and collator: the same loss curve."""
    pairs = make_pairs(6)
    job = make_job(tmp_path, pairs)
    mixed = [TrlLoss(kind="sigmoid", weight=0.7), TrlLoss(kind="ipo", weight=0.3)]
    ours = train(job, batch_size=6, micro_batch_size=6, num_epochs=4, losses=mixed, lr_scheduler="cosine")
    stock = stock_trainer(
        job, pairs, output_dir=tmp_path / "stock", num_train_epochs=4, learning_rate=1e-3,
        loss_type=["sigmoid", "ipo"], loss_weights=[0.7, 0.3], lr_scheduler_type="cosine",
    )  # fmt: skip
    stock.train()
    assert losses(ours) == pytest.approx([row["loss"] for row in stock.state.log_history if "loss" in row], abs=1e-4)
    trained = AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").state_dict()
    for name, weights in stock.model.state_dict().items():
        torch.testing.assert_close(trained[name], weights, atol=1e-4, rtol=1e-3)


def test_bfloat16_weights_are_stored_as_bfloat16(tmp_path: Path) -> None:
    """The reason for the float32 default: few bfloat16 weights change in steps of 5e-7, rounded to nearest."""
    job = make_job(tmp_path, make_pairs(4))
    metrics = train(job, weights_dtype="bfloat16", stochastic_rounding=False, learning_rate=5e-7)
    assert AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").dtype == torch.bfloat16
    assert metrics["changed_weight_share"] < 0.1


def test_max_pairs_and_seed(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(12))
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        metrics = train(replace(job, work_folder=tmp_path / name, seed=seed), max_pairs=5, num_epochs=1)
        assert (metrics["num_pairs"], metrics["num_pairs_available"], metrics["num_steps"]) == (5, 12, 2)
        ids: list[str] = pq.read_table(tmp_path / name / "reference.parquet")["pair_id"].to_pylist()
        assert len(set(ids)) == 5
        runs[name] = (ids, metrics["steps"])
    assert runs["first"] == runs["again"]
    assert runs["first"][0] != runs["other"][0]


def test_nothing_is_sent_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL sends telemetry for each constructed trainer, unless it is switched off."""
    lookups: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        lookups.append(args)
        raise OSError("no network in this test")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    job = make_job(tmp_path, make_pairs(4))
    others = set(threading.enumerate())
    train(job)
    for thread in set(threading.enumerate()) - others:  # telemetry is sent by a thread
        thread.join(timeout=2)
    assert lookups == []
