"""Every loss of the recipe in the trainer, against TRL's own trainer and against numpy."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases.stock import stock_trainer
from cases.training import SECTION, check, losses, make_job, make_pairs, train, write_policy
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from selfreward.errors import RecipeError, TrainingError
from selfreward.recipe import ExoPairLoss, LaunchSection, LengthRegularizedLoss, NllLoss, RobustLoss, SimpoLoss, TrlLoss
from selfreward.records import PreferencePair
from selfreward.updates.job import TrainingJob

BETA = 0.1
SMOOTHING = 0.2
PAIRWISE = [
    "sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "sigmoid_norm",
    "exo_pair", "robust",
]  # fmt: skip
COUPLED_LOSSES = ["aot", "aot_unpaired", "sft"]
ONE_STEP = SECTION.model_copy(
    update={"batch_size": 6, "num_epochs": 1, "micro_batch_size": 4, "reference": "initial", "max_grad_norm": 1e9}
)
WHOLE = {"packing": "padded", "micro_batch_tokens": None, "micro_batch_size": None}


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """M_0 differs from the policy, so that no margin is 0 and no two losses are equal by chance."""
    return make_job(tmp_path, make_pairs(6), initial=write_policy(tmp_path / "initial", seed=2))


def in_folder(job: TrainingJob, name: str, pairs: Sequence[PreferencePair] | None = None) -> TrainingJob:
    if pairs is None:
        return replace(job, work_folder=job.work_folder.with_name(name))
    return make_job(job.work_folder.parent, pairs, name=name, initial=job.initial)


def loss_of(kind: str, weight: float) -> Any:
    if kind in ("exo_pair", "robust"):
        section = ExoPairLoss if kind == "exo_pair" else RobustLoss
        return section(kind=kind, label_smoothing=SMOOTHING, weight=weight)
    return TrlLoss(kind=kind, weight=weight)


@pytest.fixture
def stock(job: TrainingJob) -> Callable[[str], tuple[float, float, torch.Tensor]]:
    """Loss, gradient norm and gradient of all pairs in one batch, by TRL's trainer, collator and reference model."""
    trainer = stock_trainer(
        job, make_pairs(6), output_dir=job.work_folder.with_name("stock"), reference=job.initial, beta=BETA,
        label_smoothing=SMOOTHING,
    )  # fmt: skip
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))

    def compute(kind: str) -> tuple[float, float, torch.Tensor]:
        trainer.loss_types, trainer.loss_weights = [kind], [1.0]
        trainer.label_smoothing = SMOOTHING if kind in ("exo_pair", "robust") else 0.0
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        return loss.item(), gradient.norm().item(), gradient

    return compute


@pytest.mark.parametrize(("kinds", "how"), [(PAIRWISE, {}), (PAIRWISE[::-1], WHOLE), (COUPLED_LOSSES, WHOLE)])
def test_losses_of_trl_equal_those_of_its_trainer(
    job: TrainingJob, stock: Any, kinds: list[str], how: dict[str, Any]
) -> None:
    """The weighted sum, with all terms of similar size, packed in two micro-batches or as TRL computes it."""
    parts = {kind: stock(kind) for kind in kinds}
    weights = {kind: 1 / norm for kind, (_, norm, _) in parts.items()}
    sections = [loss_of(kind, weight) for kind, weight in weights.items()]
    metrics = train(job, ONE_STEP.model_copy(update=how), losses=sections)
    assert metrics["num_steps"] == 1
    assert metrics["loss_first"] == pytest.approx(sum(weights[k] * parts[k][0] for k in kinds), rel=1e-5)
    gradient = sum(weights[k] * parts[k][2] for k in kinds)
    assert isinstance(gradient, torch.Tensor)
    assert metrics["grad_norm_max"] == pytest.approx(gradient.norm().item(), rel=1e-4)


@pytest.mark.parametrize("kind", COUPLED_LOSSES)
def test_coupled_losses_are_not_divided(job: TrainingJob, kind: str) -> None:
    section = ONE_STEP.model_copy(update={**WHOLE, "losses": [TrlLoss(kind="sigmoid"), loss_of(kind, 1.0)]})
    for change in ({"packing": "shared_prefix"}, {"micro_batch_tokens": 4096}, {"micro_batch_size": 5}):
        with pytest.raises(RecipeError, match=f"{kind} is not a mean over pairs"):
            check(training=section.model_copy(update=change))
    with pytest.raises(RecipeError, match=r"launch\.processes_per_node: 1"):
        check(training=section, launch=LaunchSection(processes_per_node=2))
    check(training=section)


@pytest.mark.parametrize("change", [{"weight": 0.5}, {"label": 0.9}])
def test_coupled_losses_refuse_weights_and_labels_of_pairs(job: TrainingJob, change: dict[str, Any]) -> None:
    pairs = make_pairs(4)
    pairs[2] = replace(pairs[2], **change)
    with pytest.raises(
        TrainingError, match=rf"aot is not a mean over pairs, and pair pair-2 has a {next(iter(change))}"
    ):
        train(in_folder(job, "weighed", pairs), ONE_STEP.model_copy(update=WHOLE), losses=[TrlLoss(kind="aot")])


def summed_logps(folder: Path, pairs: Sequence[PreferencePair]) -> NDArray[Any]:
    """Summed log-probabilities of chosen and rejected, (B, 2), by transformers and a softmax alone."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    sums = []
    for pair in pairs:
        for response in (pair.chosen_token_ids, pair.rejected_token_ids):
            ids = torch.tensor([[*pair.prompt_token_ids, *response]])
            with torch.no_grad():
                logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            sums.append(logprobs[-len(response) :].sum().item())
    return np.array(sums).reshape(-1, 2)


def softplus(x_B: NDArray[Any]) -> NDArray[Any]:
    """-log sigmoid(-x)"""
    return np.logaddexp(0, x_B)


def test_own_losses_labels_and_weights_by_hand(job: TrainingJob) -> None:
    """Each loss alone, and their sum with a loss of TRL, on pairs with different weights and soft labels."""
    labels, weights = [1.0, 0.5, 0.0, 0.8, 0.3, 0.6], [1.0, 2.0, 0.5, 0.0, 3.0, 0.7]
    plain = make_pairs(6)
    soft = [replace(p, label=q, weight=w) for p, q, w in zip(plain, labels, weights, strict=True)]
    label_B, weight_B = np.array(labels), np.array(weights)
    policy, reference = (summed_logps(folder, plain) for folder in (job.policy, job.initial))
    lengths = np.array([[len(p.chosen_token_ids), len(p.rejected_token_ids)] for p in plain])
    margin_B = BETA * np.diff(reference - policy)[:, 0]
    simpo_B = 2.5 * np.diff(-policy / lengths)[:, 0]
    longer_B = np.diff(-lengths)[:, 0]
    nll_B = -policy[:, 0] / lengths[:, 0]
    # The argument of the sigmoid for a pair, and for the same pair with chosen and rejected swapped.
    arguments = {
        "sigmoid": (margin_B, -margin_B),
        "simpo": (simpo_B - 1.2, -simpo_B - 1.2),
        "length_regularized": (margin_B + 0.3 * longer_B, -margin_B - 0.3 * longer_B),
    }

    def mean_loss(kind: str, label_B: Any, weight_B: Any) -> float:
        if kind == "nll":
            return float((weight_B * nll_B).mean())
        argument_B, swapped_B = arguments[kind]
        return float((weight_B * (label_B * softplus(-argument_B) + (1 - label_B) * softplus(-swapped_B))).mean())

    sections = {
        "nll": NllLoss(kind="nll", weight=0.3),
        "simpo": SimpoLoss(kind="simpo", beta=2.5, gamma=1.2, weight=0.5),
        "length_regularized": LengthRegularizedLoss(kind="length_regularized", alpha=0.3, weight=0.9),
        "sigmoid": TrlLoss(kind="sigmoid", weight=0.7),
    }
    for kind, section in sections.items():
        alone = train(in_folder(job, kind, plain), ONE_STEP, losses=[section])
        assert alone["loss_first"] == pytest.approx(section.weight * mean_loss(kind, 1.0, 1.0), rel=1e-5), kind
    expected = sum(section.weight * mean_loss(kind, label_B, weight_B) for kind, section in sections.items())
    norms = []
    for name, how in (("packed", {}), ("padded", WHOLE)):
        metrics = train(in_folder(job, name, soft), ONE_STEP, losses=list(sections.values()), **how)
        assert metrics["loss_first"] == pytest.approx(expected, rel=1e-5)
        norms.append(metrics["grad_norm_max"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def weights_of(job: TrainingJob) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").state_dict()
    return state


SUM = [
    TrlLoss(kind="sigmoid"),
    SimpoLoss(kind="simpo", weight=0.2),
    LengthRegularizedLoss(kind="length_regularized", alpha=0.2),
]


def test_pair_of_weight_zero_has_no_gradient_and_counts_in_the_mean(job: TrainingJob) -> None:
    """Its tokens do not matter, and the mean is still over all pairs."""
    pairs = make_pairs(6)
    with_zero = [*pairs[:5], replace(pairs[5], weight=0.0)]
    other = [*pairs[:5], replace(make_pairs(6, seed=9)[5], weight=0.0)]
    first, second, without = (in_folder(job, f"{i}", some) for i, some in enumerate((with_zero, other, pairs[:5])))
    section = ONE_STEP.model_copy(update={"reference": "iteration_start", "losses": SUM, "num_epochs": 2})
    one, two, five = (train(job, section) for job in (first, second, without))
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert one["loss_first"] == pytest.approx(five["loss_first"] * 5 / 6, rel=1e-5)
    assert one["grad_norm_max"] == pytest.approx(five["grad_norm_max"] * 5 / 6, rel=1e-2)
    for (_, a), (_, b) in zip(weights_of(first).items(), weights_of(second).items(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_soft_labels_of_zero_and_one_half(job: TrainingJob) -> None:
    pairs = make_pairs(6)
    wrong = in_folder(job, "wrong", [replace(p, label=0.0) for p in pairs])
    swapped = in_folder(
        job,
        "swapped",
        [
            replace(p, chosen_token_ids=p.rejected_token_ids, rejected_token_ids=p.chosen_token_ids, weight=1.0)
            for p in pairs
        ],
    )
    section = ONE_STEP.model_copy(update={"losses": SUM, "num_epochs": 2})
    one, two = train(wrong, section), train(swapped, section)
    assert losses(one) == pytest.approx(losses(two), rel=1e-5)
    assert one["grad_norm_max"] == pytest.approx(two["grad_norm_max"], rel=1e-4)
    # The reported metrics refer to the pairs as they are in the file.
    assert one["reward_margin_after"] == pytest.approx(-two["reward_margin_after"], abs=1e-4)
    even = in_folder(job, "even", [replace(p, label=0.5) for p in pairs])
    metrics = train(even, ONE_STEP, reference="iteration_start")
    assert metrics["loss_first"] == pytest.approx(np.log(2), abs=1e-6)
    assert metrics["grad_norm_max"] < 1e-5
