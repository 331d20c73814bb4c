"""`CeilingCallback` in TRL's own DPOTrainer: it ends only a training that stopped gaining."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.training import NUM_WORDS, write_policy
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from selfreward.errors import RecipeError
from selfreward.monitoring.callback import CeilingCallback
from selfreward.monitoring.ceiling import CeilingMonitor

DOCUMENT = Path(__file__).parents[3] / "docs" / "monitor.md"
LIKED = tuple(range(8, 24))
"""Words that the anchor prefers; chosen responses consist of them."""
NUM_HELD_OUT, NUM_SAMPLED = 400, 8
LEARNS, STANDS_STILL = 5e-3, 1e-9
"""With the first the share of liked words rises from 0.2 to 0.9 in 20 steps."""


def make_trainer(folder: Path, *, learning_rate: float, max_steps: int = 20, **changes: Any) -> DPOTrainer:
    """Twenty steps on pairs whose chosen responses contain the words that the anchor prefers."""
    policy = write_policy(folder / "policy", seed=1)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    draw = torch.Generator().manual_seed(0)

    def words(low: int, high: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(low, high, (6,), generator=draw).tolist())

    pairs = [
        {"prompt": words(6, NUM_WORDS), "chosen": " " + words(8, 24), "rejected": " " + words(24, NUM_WORDS)}
        for _ in range(64)
    ]
    config = {
        "output_dir": str(folder / "out"), "max_steps": max_steps, "learning_rate": learning_rate,
        "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "eval_strategy": "steps", "eval_steps": 5,
        "lr_scheduler_type": "constant", "bf16": False, "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "gradient_checkpointing": False, "logging_steps": 5, "disable_tqdm": True, "beta": 0.1,
    } | changes  # fmt: skip
    return DPOTrainer(
        AutoModelForCausalLM.from_pretrained(policy),
        AutoModelForCausalLM.from_pretrained(policy),
        args=DPOConfig(**config),
        train_dataset=Dataset.from_list(pairs),
        eval_dataset=Dataset.from_list(pairs[:8]),
        processing_class=tokenizer,
    )


def held_out() -> dict[str, list[int]]:
    drawn = torch.randint(6, NUM_WORDS, (NUM_HELD_OUT, 6), generator=torch.Generator().manual_seed(7))
    return {f"prompt-{i}": row for i, row in enumerate(drawn.tolist())}


def respond(model: Any, prompts: Mapping[str, list[int]], *, seed: int) -> dict[str, list[int]]:
    """Sampled with a separate generator, so that the training's random state is unchanged."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.tensor(list(prompts.values()))
    start = ids.shape[1]
    for _ in range(NUM_SAMPLED):
        probabilities = model(ids).logits[:, -1].float().softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=draw)], dim=1)
    return dict(zip(prompts, ids[:, start:].tolist(), strict=True))


def num_liked(response: list[int]) -> int:
    return sum(token in LIKED for token in response)


def prefer(now: list[int], before: list[int]) -> float:
    """A reliable judge: more of the preferred words are better."""
    return 0.5 + 0.5 * ((num_liked(now) > num_liked(before)) - (num_liked(now) < num_liked(before)))


class Comparing:
    """`compare` as written by a user: it stores the responses of the previous snapshot."""

    def __init__(self) -> None:
        self.before: dict[str, list[int]] = {}
        self.steps: list[int] = []

    def __call__(self, model: Any, step: int) -> dict[str, Any]:
        assert not model.training and not torch.is_grad_enabled()
        now = respond(model, held_out(), seed=step)
        outcomes = {prompt: prefer(now[prompt], before) for prompt, before in self.before.items()}
        self.before = now
        self.steps.append(step)
        return {"anchor": outcomes}


def entries(trainer: DPOTrainer) -> list[dict[str, Any]]:
    return [entry for entry in trainer.state.log_history if "monitor/decision" in entry]


def test_a_training_that_gains_runs_to_its_end(tmp_path: Path) -> None:
    trainer, comparing = make_trainer(tmp_path, learning_rate=LEARNS), Comparing()
    ceiling = CeilingCallback(comparing, monitor=CeilingMonitor(delta=0.1, horizon=4))
    trainer.add_callback(ceiling)
    trainer.train()
    assert trainer.state.global_step == 20 and comparing.steps == [0, 5, 10, 15, 20]
    assert [entry["monitor/decision"] for entry in entries(trainer)] == ["CONTINUE"] * 4
    assert [entry["step"] for entry in entries(trainer)] == [5, 10, 15, 20]
    assert all(e["monitor/gain_low"] < e["monitor/gain"] < e["monitor/gain_high"] for e in entries(trainer))
    assert ceiling.best_step == 20


def test_a_training_without_a_gain_is_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sampled responses differ between snapshots, and do not improve."""
    trainer = make_trainer(tmp_path, learning_rate=STANDS_STILL)
    ceiling = CeilingCallback(Comparing(), monitor=CeilingMonitor(delta=0.1, horizon=4))
    trainer.add_callback(ceiling)
    trainer.train()
    assert trainer.state.global_step == 5 and ceiling.best_step == 0
    (entry,) = entries(trainer)
    assert entry["monitor/decision"] == "PLATEAU" and entry["monitor/best_step"] == 0
    assert "training stops at step 5 with PLATEAU: M_1 gains less" in caplog.text


def test_report_only_records_what_it_would_have_done(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, learning_rate=STANDS_STILL, max_steps=10)
    monitor = CeilingMonitor(delta=0.1, horizon=4, mode="report_only")
    trainer.add_callback(CeilingCallback(Comparing(), monitor=monitor))
    trainer.train()
    assert trainer.state.global_step == 10
    assert [entry["monitor/decision"] for entry in entries(trainer)] == ["PLATEAU", "PLATEAU"]


@pytest.mark.parametrize(
    ("at", "changes", "steps"),
    [
        ("save", {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 1}, [0, 4, 8]),
        ("epoch_end", {}, [0, 8, 10]),  # 64 pairs by 8
        ("evaluate", {"eval_on_start": True, "eval_steps": 4}, [0, 4, 8]),
    ],
)
def test_the_user_chooses_when_to_measure(tmp_path: Path, at: Any, changes: dict[str, Any], steps: list[int]) -> None:
    trainer = make_trainer(tmp_path, learning_rate=LEARNS, max_steps=10, **changes)
    if at == "evaluate":  # each set has an event of its own
        trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.eval_dataset}
    comparing = Comparing()
    monitor = CeilingMonitor(delta=0.1, horizon=4, mode="report_only")
    trainer.add_callback(CeilingCallback(comparing, monitor=monitor, at=at))
    trainer.train()
    assert [step for step in comparing.steps if step <= 8] == [step for step in steps if step <= 8]
    assert len(monitor.decisions) == len(comparing.steps) - 1


def test_the_training_itself_is_as_it_would_be_without(tmp_path: Path) -> None:
    losses = []
    for name in ("with", "without"):
        trainer = make_trainer(tmp_path / name, learning_rate=LEARNS, max_steps=10)
        if name == "with":
            monitor = CeilingMonitor(delta=0.1, mode="report_only")
            trainer.add_callback(CeilingCallback(Comparing(), monitor=monitor))
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_the_second_validation_set_is_used_when_the_decision_is_open(tmp_path: Path) -> None:
    """400 prompts leave a gain of about nothing open at delta 0.05; as many more in the second validation set decide
    it."""
    wins = [1.0] * 128 + [0.5] * 160 + [0.0] * 112
    asked = []

    def second_validation(model: Any, step: int) -> dict[str, Any]:
        asked.append(step)
        return {"anchor": [1.0] * 600 + [0.5] * 1200 + [0.0] * 600}

    trainer = make_trainer(tmp_path, learning_rate=STANDS_STILL, max_steps=10)
    monitor = CeilingMonitor(num_second_validation_prompts=2400)
    trainer.add_callback(
        CeilingCallback(
            lambda model, step: {"anchor": wins}, monitor=monitor, compare_second_validation=second_validation
        )
    )
    trainer.train()
    assert asked == [5] and trainer.state.global_step == 5
    assert [(d.decision, d.num_analyses) for d in monitor.decisions] == [("PLATEAU", 2)]


def test_a_comparison_without_outcomes_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, learning_rate=STANDS_STILL)
    trainer.add_callback(CeilingCallback(lambda model, step: None, monitor=CeilingMonitor()))
    with pytest.raises(RecipeError, match=r"compare: NoneType at step 5; the arguments of CeilingMonitor\.observe"):
        trainer.train()


def test_a_resumed_training_warns_that_its_monitor_is_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5}
    make_trainer(tmp_path, learning_rate=LEARNS, max_steps=5, **saving).train()
    trainer, comparing = make_trainer(tmp_path, learning_rate=LEARNS, max_steps=10, **saving), Comparing()
    ceiling = CeilingCallback(comparing, monitor=CeilingMonitor(delta=0.1))
    trainer.add_callback(ceiling)
    trainer.train(resume_from_checkpoint=True)
    assert "no record of the 5 earlier steps" in caplog.text
    assert comparing.steps == [5, 10] and ceiling.best_step in (5, 10)


def test_the_example_of_the_document_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- a trainer -->\n")
    (code,) = re.findall(r"^```python\n(.*?)^```$", rest, re.DOTALL | re.MULTILINE)
    names = {
        "trainer": make_trainer(tmp_path, learning_rate=LEARNS),
        "held_out": held_out(),
        "respond": lambda model, prompts: respond(model, prompts, seed=len(names["before"])),
        "prefer": lambda prompt, now, before: prefer(now, before),
    }
    exec(compile(code, "monitor.md, trainer", "exec"), names)  # our own document
    assert names["ceiling"].best_step > 0
    assert capsys.readouterr().out.splitlines()[-1] == f"use the model of step {names['ceiling'].best_step}"
