"""Losses of pairs without a model, against TRL's own `_compute_loss` and against formulas by hand."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import FusedCausalLMOutput

from selfreward.updates.losses import LOSSES, PairLogps, length_regularized, nll, pair_losses
from selfreward.updates.packing.layout import PairTokens
from selfreward.updates.packing.padded_batch import padded_batch

BETA = 0.3
KINDS = [
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
COUPLED_LOSSES = {"aot", "aot_unpaired", "sft"}
UNCOUPLED = [kind for kind in KINDS if kind not in COUPLED_LOSSES]
SMOOTHING = 0.2


def near(kind: str) -> dict[str, float]:
    """TRL computes the logarithm of exo_pair's smoothing in float32."""
    return dict.fromkeys(("rtol", "atol"), 1e-6 if kind == "exo_pair" else 1e-12)


def ours(kind: str, pairs: PairLogps, label_B: Tensor | None = None) -> Tensor:
    settings = {"label_smoothing": SMOOTHING} if kind in ("exo_pair", "robust") else {}
    return pair_losses(kind, pairs, label_B=label_B, beta=BETA, **settings)


# Lengths differ, and the reference orders the pairs differently from `leaf`, so that sorting them changes a loss.
EXAMPLES = [
    {"prompt_ids": [5, 6], "chosen_ids": [1, 2, 3, 4], "rejected_ids": [7], "ref": (-2.75, -3.25)},
    {"prompt_ids": [5], "chosen_ids": [8, 9], "rejected_ids": [4, 3, 2, 1, 6], "ref": (-4.5, -2.25)},
    {"prompt_ids": [6, 5, 7], "chosen_ids": [2, 9, 9], "rejected_ids": [8, 2], "ref": (-3.0, -1.5)},
]
NUM = len(EXAMPLES)


def collated(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    rows = [
        {**example, "ref_chosen_logps": example["ref"][0], "ref_rejected_logps": example["ref"][1]}
        for example in examples
    ]
    return DataCollatorForPreference(pad_token_id=0).torch_call(rows)


def swapped(example: dict[str, Any]) -> dict[str, Any]:
    chosen, rejected = example["rejected_ids"], example["chosen_ids"]
    return {**example, "chosen_ids": chosen, "rejected_ids": rejected, "ref": example["ref"][::-1]}


def leaf(seed: int = 0) -> Tensor:
    """A random log-probability for each position of the padded batch, with or without a label."""
    shape = collated(EXAMPLES)["input_ids"][:, 1:].shape
    logps_BT = -2.5 * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return logps_BT.requires_grad_()


def output_of(logps_BT: Tensor, inputs: dict[str, Tensor]) -> FusedCausalLMOutput:
    logps_BT = logps_BT * inputs["completion_mask"][:, 1:]
    nothing = torch.zeros_like(logps_BT)
    return FusedCausalLMOutput(
        log_probs=logps_BT, entropy=nothing, mean_logits=nothing, is_top1=nothing > 0, aux_loss=torch.tensor(0.5)
    )


@pytest.fixture(scope="module")
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


class Trl:
    """TRL's loss code, with the trainer attributes that it reads."""

    def __init__(self, accelerator: Accelerator, kind: str, *, label_smoothing: float | None = None) -> None:
        if label_smoothing is None:
            label_smoothing = SMOOTHING if kind in ("exo_pair", "robust") else 0.0
        self.trainer = SimpleNamespace(
            accelerator=accelerator, model=SimpleNamespace(training=True), beta=BETA, loss_types=[kind],
            loss_weights=[1.0], label_smoothing=label_smoothing, f_divergence_type="reverse_kl", ld_alpha=None,
            use_weighting=False, aux_loss_enabled=False, precompute_ref_logps=True,
            args=SimpleNamespace(discopop_tau=0.05), _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
            _tp_size=1,
        )  # fmt: skip

    def on(self, logps_BT: Tensor, examples: list[dict[str, Any]] = EXAMPLES) -> Tensor:
        """The loss of a batch, where the model returns `logps_BT`."""
        inputs = collated(examples)
        output = output_of(logps_BT, inputs)
        loss: Tensor = DPOTrainer._compute_loss(self.trainer, lambda **_: output, dict(inputs), False)
        return loss

    def on_pair(self, logps_BT: Tensor, pair: int) -> Tensor:
        """The loss of a batch of one of the pairs."""
        width = collated([EXAMPLES[pair]])["input_ids"].shape[1] - 1
        return self.on(logps_BT[[pair, NUM + pair], :width], [EXAMPLES[pair]])


@pytest.fixture
def trl(accelerator: Accelerator) -> Callable[..., Trl]:
    return partial(Trl, accelerator)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]


def log_sigmoid(x: Any) -> Any:
    return -np.log1p(np.exp(-np.asarray(x)))


def by_hand(logps_BT: Tensor) -> SimpleNamespace:
    """Summed log-probabilities and lengths of each pair, from the examples and not from masks."""
    table, sums = logps_BT.detach().numpy(), {}
    for name, first in (("chosen", 0), ("rejected", NUM)):
        starts = [len(example["prompt_ids"]) - 1 for example in EXAMPLES]
        lengths = [len(example[f"{name}_ids"]) for example in EXAMPLES]
        sums[name] = np.array(
            [
                table[first + i, start : start + n].sum()
                for i, (start, n) in enumerate(zip(starts, lengths, strict=True))
            ]
        )
        sums[f"num_{name}"] = np.array(lengths)
    reference = np.array([example["ref"] for example in EXAMPLES])
    return SimpleNamespace(**sums, ref_chosen=reference[:, 0], ref_rejected=reference[:, 1])


def log_ratio_by_hand(logps_BT: Tensor) -> Any:
    hand = by_hand(logps_BT)
    return (hand.chosen - hand.ref_chosen) - (hand.rejected - hand.ref_rejected)


def pair_logps(logps_BT: Tensor) -> PairLogps:
    inputs = collated(EXAMPLES)
    return PairLogps.of(output_of(logps_BT, inputs).log_probs, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_gradient_are_those_of_trls_loss_of_the_batch(kind: str, trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    batch_loss, losses_B = trl(kind).on(logps_BT), ours(kind, pair_logps(logps_BT))
    assert losses_B.shape == (NUM,)
    expected = gradient(batch_loss, logps_BT)
    torch.testing.assert_close(losses_B.mean(), batch_loss, **near(kind))
    torch.testing.assert_close(gradient(losses_B.mean(), logps_BT), expected, **near(kind))
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("kind", UNCOUPLED)
def test_each_loss_is_trls_loss_of_a_batch_of_that_pair(kind: str, trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    losses_B = ours(kind, pair_logps(logps_BT))
    assert losses_B.unique().numel() == NUM
    for pair in range(NUM):
        torch.testing.assert_close(losses_B[pair], trl(kind).on_pair(logps_BT, pair), **near(kind))


def test_every_loss_of_the_recipe_is_compared_with_trl_or_by_hand() -> None:
    assert LOSSES.keys() == {*KINDS, "nll", "simpo", "length_regularized"}


def test_the_padded_batch_is_that_of_trls_collator() -> None:
    tokens = [PairTokens(*(tuple(e[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))) for e in EXAMPLES]
    ours, theirs = padded_batch(tokens), DataCollatorForPreference(pad_token_id=0).torch_call(EXAMPLES)
    assert ours.keys() == {"input_ids", "attention_mask", "completion_mask"}
    assert all(
        torch.equal(values, theirs[name]) and values.dtype == theirs[name].dtype for name, values in ours.items()
    )


def test_exactly_the_coupled_losses_depend_on_the_other_pairs(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()

    def is_mean_over_pairs(kind: str) -> bool:
        alone = torch.stack([trl(kind).on_pair(logps_BT, pair) for pair in range(NUM)])
        return torch.allclose(alone.mean(), trl(kind).on(logps_BT), rtol=1e-6)

    assert {kind for kind in KINDS if not is_mean_over_pairs(kind)} == COUPLED_LOSSES


@pytest.mark.parametrize("kind", UNCOUPLED)
def test_a_label_of_zero_is_trls_loss_of_the_swapped_pairs(kind: str, trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    batch_loss = trl(kind).on(logps_BT[[*range(NUM, 2 * NUM), *range(NUM)]], [swapped(e) for e in EXAMPLES])
    losses_B = ours(kind, pair_logps(logps_BT), label_B=torch.zeros(NUM))
    expected = gradient(batch_loss, logps_BT)
    torch.testing.assert_close(losses_B.mean(), batch_loss, **near(kind))
    torch.testing.assert_close(gradient(losses_B.mean(), logps_BT), expected, **near(kind))
    assert not torch.allclose(batch_loss, trl(kind).on(logps_BT))


def test_soft_labels_with_sigmoid_are_label_smoothed_dpo(trl: Callable[..., Trl]) -> None:
    logps_BT, label_B = leaf(), torch.tensor([0.9, 0.25, 0.6], dtype=torch.float64)
    h = log_ratio_by_hand(logps_BT)
    losses_B = ours("sigmoid", pair_logps(logps_BT), label_B=label_B)
    p = label_B.numpy()
    np.testing.assert_allclose(losses_B.detach(), -p * log_sigmoid(BETA * h) - (1 - p) * log_sigmoid(-BETA * h))
    # TRL's `aot` has label smoothing, and on a single pair it has nothing to sort.
    for pair in range(NUM):
        smoothed = trl("aot", label_smoothing=1 - label_B[pair].item()).on_pair(logps_BT, pair)
        torch.testing.assert_close(losses_B[pair], smoothed)
        expected = gradient(smoothed, logps_BT)
        torch.testing.assert_close(gradient(losses_B[pair], logps_BT), expected)


def test_a_label_of_one_half_has_no_gradient_at_the_reference() -> None:
    logps_BT = leaf()
    here = pair_logps(logps_BT)
    pairs = replace(here, ref_chosen_B=here.chosen_B.detach(), ref_rejected_B=here.rejected_B.detach())
    half_B = torch.full((NUM,), 0.5, dtype=torch.float64)
    at_half = gradient(ours("sigmoid", pairs, half_B).sum(), logps_BT)
    above_half = gradient(ours("sigmoid", pairs, half_B + 0.1).sum(), logps_BT)
    torch.testing.assert_close(at_half, torch.zeros_like(at_half), rtol=0, atol=1e-15)
    assert above_half[:NUM].sum() < 0 < above_half[NUM:].sum()


def test_pair_logps_are_the_sums_that_trl_logs(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    pairs, hand = pair_logps(logps_BT), by_hand(logps_BT)
    np.testing.assert_allclose(pairs.chosen_B.detach(), hand.chosen)
    np.testing.assert_allclose(pairs.rejected_B.detach(), hand.rejected)
    assert pairs.ref_chosen_B.tolist() == hand.ref_chosen.tolist()
    assert pairs.ref_rejected_B.tolist() == hand.ref_rejected.tolist()
    assert pairs.num_chosen_tokens_B.tolist() == [4, 2, 3]
    assert pairs.num_rejected_tokens_B.tolist() == [1, 5, 2]
    sigmoid = trl("sigmoid")
    sigmoid.on(logps_BT)
    assert sigmoid.trainer._metrics["train"]["logps/chosen"] == [pytest.approx(hand.chosen.mean())]
    assert sigmoid.trainer._metrics["train"]["logps/rejected"] == [pytest.approx(hand.rejected.mean())]


def test_nll_weights_pairs_equally_and_is_trls_sft_of_one_pair(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    hand = by_hand(logps_BT)
    losses_B = nll(pair_logps(logps_BT))
    np.testing.assert_allclose(losses_B.detach(), -hand.chosen / hand.num_chosen)
    for pair in range(NUM):
        torch.testing.assert_close(losses_B[pair], trl("sft").on_pair(logps_BT, pair))
    tokens_mean = (losses_B * pair_logps(logps_BT).num_chosen_tokens_B).sum() / 9
    torch.testing.assert_close(trl("sft").on(logps_BT), tokens_mean)


def test_nll_ignores_labels() -> None:
    logps_BT = leaf()
    losses_B = pair_losses("nll", pair_logps(logps_BT), label_B=torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(losses_B, nll(pair_logps(logps_BT)))
    assert gradient(losses_B.sum(), logps_BT)[NUM:].abs().sum() == 0


def test_simpo_is_equation_6_of_its_paper() -> None:
    logps_BT = leaf()
    hand = by_hand(logps_BT)
    margin = 2.0 * hand.chosen / hand.num_chosen - 2.0 * hand.rejected / hand.num_rejected
    losses_B = pair_losses("simpo", pair_logps(logps_BT), beta=2.0, gamma=0.7)
    np.testing.assert_allclose(losses_B.detach(), -log_sigmoid(margin - 0.7))
    other = replace(pair_logps(logps_BT), ref_chosen_B=torch.zeros(NUM), ref_rejected_B=torch.ones(NUM))
    torch.testing.assert_close(pair_losses("simpo", other, beta=2.0, gamma=0.7), losses_B)


def test_length_regularized_without_a_penalty_is_dpo() -> None:
    logps_BT = leaf()
    losses_B = length_regularized(pair_logps(logps_BT), beta=BETA, alpha=0.0)
    torch.testing.assert_close(losses_B, ours("sigmoid", pair_logps(logps_BT)))


def test_length_regularized_adds_the_difference_of_lengths() -> None:
    logps_BT = leaf()
    argument = BETA * log_ratio_by_hand(logps_BT) + 0.25 * np.array([4 - 1, 2 - 5, 3 - 2])
    losses_B = pair_losses("length_regularized", pair_logps(logps_BT), beta=BETA, alpha=0.25)
    np.testing.assert_allclose(losses_B.detach(), -log_sigmoid(argument))


def test_the_optimal_policy_under_a_length_penalty_explains_the_preferences() -> None:
    """At the optimum of the penalised objective, the loss is the Bradley-Terry loss of the true rewards."""
    reward, length, alpha = np.array([1.0, -0.5, 2.0]), np.array([7, 2, 30]), 0.1
    reference = np.array([0.2, 0.5, 0.3])
    # argmax over pi of sum pi (reward - alpha length) - BETA KL(pi || reference)
    policy = reference * np.exp((reward - alpha * length) / BETA)
    policy /= policy.sum()
    chosen, rejected = [0, 2, 2], [1, 0, 1]
    logps = [np.log(model)[side] for model in (policy, reference) for side in (chosen, rejected)]
    pairs = PairLogps(*map(torch.tensor, logps), torch.tensor(length[chosen]), torch.tensor(length[rejected]))
    losses_B = length_regularized(pairs, beta=BETA, alpha=alpha)
    np.testing.assert_allclose(losses_B, -log_sigmoid(reward[chosen] - reward[rejected]), rtol=1e-5)


def test_a_length_penalty_learns_less_from_pairs_whose_chosen_is_longer() -> None:
    logps_BT = leaf()
    per_row = {}
    for alpha in (0.0, 0.25):
        losses_B = length_regularized(pair_logps(logps_BT), beta=BETA, alpha=alpha)
        per_row[alpha] = gradient(losses_B.sum(), logps_BT).abs().amax(dim=1)[:NUM]
    # chosen minus rejected tokens: 3, -3, 1
    assert (per_row[0.25] < per_row[0.0]).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("simpo", {"beta": 2.0, "gamma": 0.7}), ("length_regularized", {"beta": BETA, "alpha": 0.25})],
)
def test_own_losses_of_a_soft_label_mix_both_directions(kind: str, settings: dict[str, float]) -> None:
    logps_BT, p = leaf(), np.array([0.9, 0.25, 0.6])
    hand = by_hand(logps_BT)
    if kind == "simpo":
        margin = 2.0 * hand.chosen / hand.num_chosen - 2.0 * hand.rejected / hand.num_rejected
        arguments = margin - 0.7, -margin - 0.7
    else:
        margin = BETA * log_ratio_by_hand(logps_BT) + 0.25 * (hand.num_chosen - hand.num_rejected)
        arguments = margin, -margin
    losses_B = pair_losses(kind, pair_logps(logps_BT), label_B=torch.tensor(p), **settings)
    np.testing.assert_allclose(losses_B.detach(), -p * log_sigmoid(arguments[0]) - (1 - p) * log_sigmoid(arguments[1]))
