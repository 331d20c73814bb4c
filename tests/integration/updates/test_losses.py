"""Per-pair losses without a model: TRL's own `_compute_loss` on replayed outputs, and our formulas."""

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

from selfreward.updates.losses import PairLogps, Replay, length_regularized, nll, own_losses, trl_losses
from selfreward.updates.packing.layout import PairTokens
from selfreward.updates.packing.padded_batch import padded_batch
from selfreward.updates.trl_loss import TrlPairLoss

BETA = 0.3
KINDS = [
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
COUPLED_LOSSES = {"aot", "aot_unpaired", "sft"}
UNCOUPLED = [kind for kind in KINDS if kind not in COUPLED_LOSSES]

# Lengths differ, and the reference orders the pairs differently from `leaf`, so that sorting them changes a loss.
EXAMPLES = [
    {"prompt_ids": [5, 6], "chosen_ids": [1, 2, 3, 4], "rejected_ids": [7], "ref": (-2.75, -3.25)},
    {"prompt_ids": [5], "chosen_ids": [8, 9], "rejected_ids": [4, 3, 2, 1, 6], "ref": (-4.5, -2.25)},
    {"prompt_ids": [6, 5, 7], "chosen_ids": [2, 9, 9], "rejected_ids": [8, 2], "ref": (-3.0, -1.5)},
]
NUM = len(EXAMPLES)


def collated(examples: list[dict[str, Any]], *, width: int | None = None) -> dict[str, Tensor]:
    rows = [
        {**example, "ref_chosen_logps": example["ref"][0], "ref_rejected_logps": example["ref"][1]}
        for example in examples
    ]
    return DataCollatorForPreference(pad_token_id=0, pad_to_multiple_of=width).torch_call(rows)


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


def replay_of(logps_BT: Tensor) -> Replay:
    inputs = collated(EXAMPLES)
    return Replay(output_of(logps_BT, inputs), inputs)


@pytest.fixture(scope="module")
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


class Trl:
    """TRL's loss code, with the trainer attributes that it reads."""

    def __init__(self, accelerator: Accelerator, kind: str, *, label_smoothing: float = 1e-3) -> None:
        self.trainer = SimpleNamespace(
            accelerator=accelerator, model=SimpleNamespace(training=True), beta=BETA, loss_types=[kind],
            loss_weights=[1.0], label_smoothing=label_smoothing, f_divergence_type="reverse_kl", ld_alpha=None,
            use_weighting=False, aux_loss_enabled=False, precompute_ref_logps=True,
            args=SimpleNamespace(discopop_tau=0.05), _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
            _tp_size=1,
        )  # fmt: skip

    def __call__(self, model: Callable[..., Any], inputs: dict[str, Tensor]) -> Tensor:
        return DPOTrainer._compute_loss(self.trainer, model, inputs, False)

    def on(self, replay: Replay) -> Tensor:
        return self(lambda **_: replay.output, dict(replay.inputs))


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
    replay = replay_of(logps_BT)
    return PairLogps.of(replay.output.log_probs, replay.inputs)


@pytest.mark.parametrize("kind", UNCOUPLED)
def test_mean_loss_of_pairs_replayed_one_by_one_is_trls_loss_of_the_batch(kind: str, trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    replay = replay_of(logps_BT)
    batch_loss = trl(kind).on(replay)
    losses_B = trl_losses(trl(kind), replay)
    assert losses_B.shape == (NUM,)
    assert losses_B.unique().numel() == NUM
    expected = gradient(batch_loss, logps_BT)
    torch.testing.assert_close(losses_B.mean(), batch_loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(losses_B.mean(), logps_BT), expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().sum() > 0


def test_the_loss_of_a_trainer_that_was_never_constructed_is_trls(trl: Callable[..., Trl]) -> None:
    """Each loss alone, then all of them as a weighted sum; the first call does not affect the second."""
    replay, parts = replay_of(leaf()), []
    for kind in KINDS:
        loss = TrlPairLoss([kind], weights=[1.0], beta=BETA, label_smoothing=1e-3, device="cpu")
        parts.append(trl(kind).on(replay))
        assert all(torch.equal(loss(lambda **_: replay.output, replay.inputs), parts[-1]) for _ in range(2))
    weights = [0.5 + i for i in range(len(KINDS))]
    summed = TrlPairLoss(KINDS, weights=weights, beta=BETA, label_smoothing=1e-3, device="cpu")
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(summed(lambda **_: replay.output, replay.inputs), expected)


def test_the_padded_batch_is_that_of_trls_collator() -> None:
    tokens = [PairTokens(*(tuple(e[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))) for e in EXAMPLES]
    ours, theirs = padded_batch(tokens), DataCollatorForPreference(pad_token_id=0).torch_call(EXAMPLES)
    assert ours.keys() == {"input_ids", "attention_mask", "completion_mask"}
    assert all(
        torch.equal(values, theirs[name]) and values.dtype == theirs[name].dtype for name, values in ours.items()
    )


def test_exactly_the_coupled_losses_change_when_pairs_are_replayed(trl: Callable[..., Trl]) -> None:
    replay = replay_of(leaf())
    changed = {k for k in KINDS if not torch.allclose(trl_losses(trl(k), replay).mean(), trl(k).on(replay), rtol=1e-6)}
    assert changed == COUPLED_LOSSES


@pytest.mark.parametrize("mirrored", [False, True])
def test_replayed_rows_equal_the_rows_of_a_batch_of_these_pairs(mirrored: bool) -> None:
    logps_BT = leaf()
    replay = replay_of(logps_BT)
    width = replay.inputs["input_ids"].shape[1]
    model, inputs = replay.pairs([2, 0], mirrored=mirrored)
    examples = [EXAMPLES[2], EXAMPLES[0]]
    expected = collated([swapped(example) for example in examples] if mirrored else examples, width=width)
    assert set(inputs) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(inputs[name], value, rtol=0, atol=0)
    rows = [5, 3, 2, 0] if mirrored else [2, 0, 5, 3]
    output = model(input_ids=None, labels=None, fused_lm_head=True)
    torch.testing.assert_close(output.log_probs, replay.output.log_probs[rows], rtol=0, atol=0)
    assert output.is_top1.shape == (4, width - 1)
    assert output.aux_loss == 0.5


@pytest.mark.parametrize("kind", UNCOUPLED)
def test_a_label_of_zero_is_trls_loss_of_the_swapped_pairs(kind: str, trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    inputs = collated([swapped(example) for example in EXAMPLES])
    rows = [*range(NUM, 2 * NUM), *range(NUM)]
    batch_loss = trl(kind).on(Replay(output_of(logps_BT[rows], inputs), inputs))
    losses_B = trl_losses(trl(kind), replay_of(logps_BT), label_B=torch.zeros(NUM))
    expected = gradient(batch_loss, logps_BT)
    torch.testing.assert_close(losses_B.mean(), batch_loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(losses_B.mean(), logps_BT), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(batch_loss, trl(kind).on(replay_of(logps_BT)))


def test_soft_labels_with_sigmoid_are_label_smoothed_dpo(trl: Callable[..., Trl]) -> None:
    logps_BT, label_B = leaf(), torch.tensor([0.9, 0.25, 0.6], dtype=torch.float64)
    replay, h = replay_of(logps_BT), log_ratio_by_hand(logps_BT)
    losses_B = trl_losses(trl("sigmoid"), replay, label_B=label_B)
    p = label_B.numpy()
    np.testing.assert_allclose(losses_B.detach(), -p * log_sigmoid(BETA * h) - (1 - p) * log_sigmoid(-BETA * h))
    # TRL's `aot` has label smoothing, and on a single pair it has nothing to sort.
    for pair in range(NUM):
        smoothed = trl("aot", label_smoothing=1 - label_B[pair].item())(*replay.pairs([pair]))
        torch.testing.assert_close(losses_B[pair], smoothed)
        expected = gradient(smoothed, logps_BT)
        torch.testing.assert_close(gradient(losses_B[pair], logps_BT), expected)


def test_a_label_of_one_half_has_no_gradient_at_the_reference(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    replay = replay_of(logps_BT)
    here = PairLogps.of(replay.output.log_probs.detach(), replay.inputs)
    at_reference = {**replay.inputs, "ref_chosen_logps": here.chosen_B, "ref_rejected_logps": here.rejected_B}
    replay = replace(replay, inputs=at_reference)
    half_B = torch.full((NUM,), 0.5, dtype=torch.float64)
    at_half = gradient(trl_losses(trl("sigmoid"), replay, label_B=half_B).sum(), logps_BT)
    above_half = gradient(trl_losses(trl("sigmoid"), replay, label_B=half_B + 0.1).sum(), logps_BT)
    torch.testing.assert_close(at_half, torch.zeros_like(at_half), rtol=0, atol=1e-15)
    assert above_half[:NUM].sum() < 0 < above_half[NUM:].sum()


def test_sigmoid_norm_of_trl_is_length_normalised_dpo(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    hand = by_hand(logps_BT)
    chosen = (hand.chosen - hand.ref_chosen) / hand.num_chosen
    rejected = (hand.rejected - hand.ref_rejected) / hand.num_rejected
    losses_B = trl_losses(trl("sigmoid_norm"), replay_of(logps_BT))
    np.testing.assert_allclose(losses_B.detach(), -log_sigmoid(BETA * (chosen - rejected)))


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
    sigmoid.on(replay_of(logps_BT))
    assert sigmoid.trainer._metrics["train"]["logps/chosen"] == [pytest.approx(hand.chosen.mean())]
    assert sigmoid.trainer._metrics["train"]["logps/rejected"] == [pytest.approx(hand.rejected.mean())]


def test_nll_weights_pairs_equally_and_is_trls_sft_of_one_pair(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    replay, hand = replay_of(logps_BT), by_hand(logps_BT)
    losses_B = nll(pair_logps(logps_BT))
    np.testing.assert_allclose(losses_B.detach(), -hand.chosen / hand.num_chosen)
    torch.testing.assert_close(losses_B, trl_losses(trl("sft"), replay))
    tokens_mean = (losses_B * pair_logps(logps_BT).num_chosen_tokens_B).sum() / 9
    torch.testing.assert_close(trl("sft").on(replay), tokens_mean)


def test_nll_ignores_labels() -> None:
    logps_BT = leaf()
    losses_B = own_losses("nll", pair_logps(logps_BT), label_B=torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(losses_B, nll(pair_logps(logps_BT)))
    assert gradient(losses_B.sum(), logps_BT)[NUM:].abs().sum() == 0


def test_simpo_is_equation_6_of_its_paper() -> None:
    logps_BT = leaf()
    hand = by_hand(logps_BT)
    margin = 2.0 * hand.chosen / hand.num_chosen - 2.0 * hand.rejected / hand.num_rejected
    losses_B = own_losses("simpo", pair_logps(logps_BT), beta=2.0, gamma=0.7)
    np.testing.assert_allclose(losses_B.detach(), -log_sigmoid(margin - 0.7))
    other = replace(pair_logps(logps_BT), ref_chosen_B=torch.zeros(NUM), ref_rejected_B=torch.ones(NUM))
    torch.testing.assert_close(own_losses("simpo", other, beta=2.0, gamma=0.7), losses_B)


def test_length_regularized_without_a_penalty_is_trls_dpo(trl: Callable[..., Trl]) -> None:
    logps_BT = leaf()
    losses_B = length_regularized(pair_logps(logps_BT), beta=BETA, alpha=0.0)
    torch.testing.assert_close(losses_B, trl_losses(trl("sigmoid"), replay_of(logps_BT)))


def test_length_regularized_adds_the_difference_of_lengths() -> None:
    logps_BT = leaf()
    argument = BETA * log_ratio_by_hand(logps_BT) + 0.25 * np.array([4 - 1, 2 - 5, 3 - 2])
    losses_B = own_losses("length_regularized", pair_logps(logps_BT), beta=BETA, alpha=0.25)
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
    losses_B = own_losses(kind, pair_logps(logps_BT), label_B=torch.tensor(p), **settings)
    np.testing.assert_allclose(losses_B.detach(), -p * log_sigmoid(arguments[0]) - (1 - p) * log_sigmoid(arguments[1]))
