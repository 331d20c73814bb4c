"""Packed against plain on tiny random models of many architectures: values, gradients, and refused models."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
import trl.trainer.utils as trl_utils
from cases.packing import COMMON, EXPERTS, kernels_on_the_cpu
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from selfreward.errors import RecipeError
from selfreward.updates.packing import attention, flex, forward, support
from selfreward.updates.packing.layout import Layout, PairTokens, lay_out, lay_out_pairs
from selfreward.updates.packing.padded_batch import padded_batch

CPU = torch.device("cpu")
WINDOW = 4
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW, "head_dim": 4},
    "qwen2": {"use_sliding_window": True, **MIXED},
    "qwen3": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, **MIXED},
    "phi3": {"sliding_window": WINDOW},
    "qwen3_moe": {"head_dim": 8, **EXPERTS},
    "olmo3": MIXED,
    "smollm3": {"no_rope_layers": [1, 0]},
    "granite": {"logits_scaling": 2.0, "attention_multiplier": 0.3},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "tie_word_embeddings": True},
}
# Rows longer than the window, and one prompt with several pairs; responses with a common prefix, equal responses, and a
# response that is a prefix of another; a prompt that extends into another's responses; single tokens.
LONG = (5, 6, 7, 8, 9, 10, 11, 12, 13)
PAIRS = [
    PairTokens(LONG, (20, 21, 22, 23, 24, 25), (20, 21, 22, 30, 31)),
    PairTokens(LONG, (20, 21, 22, 23), (32, 33, 34, 35, 36, 37, 38)),
    PairTokens(LONG, (32, 33, 34, 35, 36, 37, 38), (20, 21, 22, 23, 24, 25)),
    PairTokens((*LONG, 20, 21), (22, 23), (22, 30)),
    PairTokens((5, 6), (7, 8, 3), (9,)),
    PairTokens((30,), (31, 31, 31, 31, 31, 31), (31, 31)),
]


@pytest.fixture(autouse=True)
def compiling() -> Iterator[None]:
    """An engine that started in this process before may have switched off compilation, which is its own on a CPU."""
    with torch._dynamo.config.patch(disable=False):
        yield


def random_model(kind: str, **changes: Any) -> PreTrainedModel:
    """A model with TRL's head, and with weights so large that attention is far from uniform."""
    config = AutoConfig.for_model(kind, **COMMON | changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    add_fused_lm_head(model)
    return model


def install(model: PreTrainedModel, kernel: str = "segments") -> PreTrainedModel:
    model.set_attn_implementation(attention.implementation(kernel))
    forward.install(model)
    return model


def batch_of(pairs: list[PairTokens]) -> dict[str, torch.Tensor]:
    batch = DataCollatorForPreference(pad_token_id=0)(
        [{"prompt_ids": [*p.prompt], "chosen_ids": [*p.chosen], "rejected_ids": [*p.rejected]} for p in pairs]
    )
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def layout_of(pairs: list[PairTokens]) -> Layout:
    rows = [pair.rows[side] for side in (0, 1) for pair in pairs]
    return lay_out(rows, prompt_lengths=[len(pair.prompt) for _ in (0, 1) for pair in pairs])


def call(model: PreTrainedModel, pairs: list[PairTokens], *, layout: Layout | None = None) -> Any:
    """Call the model as TRL does; with a layout, packed."""
    if layout is None:
        return model(**batch_of(pairs), use_cache=False, fused_lm_head=True)
    return SimpleNamespace(log_probs=forward.label_logps(model, {**padded_batch(pairs), "layout": layout}))


def gradients(model: PreTrainedModel, output: Any) -> dict[str, torch.Tensor]:
    """Gradients of a DPO-like loss with a different weight for each pair."""
    model.zero_grad()
    chosen_B, rejected_B = output.log_probs.sum(1).chunk(2)
    weight_B = torch.linspace(0.5, 1.5, len(chosen_B))
    (-weight_B * logsigmoid(0.3 * (chosen_B - rejected_B))).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_values(packed: Any, plain: Any) -> None:
    assert plain.log_probs.min() < -3
    torch.testing.assert_close(packed.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)


def assert_equal_gradients(packed: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    assert packed.keys() == plain.keys()
    assert max(gradient.abs().max() for gradient in plain.values()) > 1e-2
    for name, expected in plain.items():
        torch.testing.assert_close(packed[name], expected, atol=1e-5, rtol=1e-5, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("kind", PACKED)
def test_packed_is_equal_to_plain(kind: str) -> None:
    """Against transformers' eager attention on TRL's padded batch, which the model still computes after `install`."""
    model = random_model(kind, **PACKED[kind])
    plain = call(model, PAIRS)
    plain_gradients = gradients(model, plain)
    install(model)
    assert_equal_values(call(model, PAIRS), plain)
    layout = layout_of(PAIRS)
    assert layout.num_tokens < 0.5 * sum(len(row) for pair in PAIRS for row in pair.rows)
    packed = call(model, PAIRS, layout=layout)
    assert_equal_values(packed, plain)
    assert_equal_gradients(gradients(model, packed), plain_gradients)
    with torch.no_grad():
        assert_equal_values(call(model, PAIRS, layout=layout), plain)
    support.check_configuration(model.config, longest=18)
    assert support.verify(model, PAIRS[:2], device=CPU) < 1e-5


@pytest.mark.parametrize("window", [1, 2, 9, 10, 17])  # some end where a branch begins
def test_windows_around_the_branch(window: int) -> None:
    model = random_model("mistral", sliding_window=window, head_dim=4)
    plain = call(model, PAIRS)
    assert_equal_values(call(install(model), PAIRS, layout=layout_of(PAIRS)), plain)


def test_gradient_checkpointing_changes_nothing_packed() -> None:
    model = install(random_model("gemma3_text", **PACKED["gemma3_text"]))
    plain = gradients(model, call(model, PAIRS))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    layout = layout_of(PAIRS)
    packed = gradients(model, call(model, PAIRS, layout=layout))
    assert layout.cache["num_calls"] == 2 * model.config.num_hidden_layers  # every layer was computed again
    assert_equal_gradients(packed, plain)


def test_packed_bfloat16_is_equal_to_plain() -> None:
    model = install(random_model("mistral", sliding_window=WINDOW, head_dim=4)).bfloat16()
    packed = call(model, PAIRS, layout=layout_of(PAIRS))
    torch.testing.assert_close(packed.log_probs, call(model, PAIRS).log_probs, atol=0.3, rtol=0.05)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pairs", [PAIRS, [PairTokens((5, 6), (7,), (7,))]], ids=["many", "one label"])
def test_only_labels_reach_the_output_layer(
    pairs: list[PairTokens], training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each label once, even if several rows share it; through the layer itself or TRL's fused head."""
    model = install(random_model("llama"))
    sizes: list[int] = []
    inner = trl_utils._ChunkedLogProbFunction

    def count_and_apply(hidden_LH: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(hidden_LH))
        return inner.apply(hidden_LH, *rest)

    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=count_and_apply))
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[:-1].numel()))
    with torch.set_grad_enabled(training):
        call(model, pairs, layout=layout_of(pairs))
    labels = {row[: i + 1] for pair in pairs for row in pair.rows for i in range(len(pair.prompt), len(row))}
    assert sizes == [len(labels)]


# --- The kernels for CUDA, uncompiled and emulated (cases/packing.py), in models ---


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["varlen", "flex"])
@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma3_text", "qwen3_moe"])
def test_kernels_for_cuda_are_equal_to_plain(kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_on_the_cpu(monkeypatch)
    model = install(random_model(kind, **PACKED[kind]), kernel)
    layout = layout_of(PAIRS).padded(flex.BLOCK)
    assert layout.num_tokens == flex.BLOCK
    with torch.no_grad():
        assert_equal_values(call(model, PAIRS, layout=layout), call(model, PAIRS))


def test_varlen_has_the_gradients_of_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels_on_the_cpu(monkeypatch)
    model = random_model("qwen2", **PACKED["qwen2"])
    plain = gradients(model, call(model, PAIRS))
    install(model, "varlen")
    assert_equal_gradients(gradients(model, call(model, PAIRS, layout=layout_of(PAIRS).padded(8))), plain)


def test_models_that_normalise_queries_and_keys_attend_in_the_precision_of_autocast() -> None:
    """Qwen3's queries and keys are float32 under autocast, and its values bfloat16."""
    model = install(random_model("qwen3", head_dim=8))
    plain = call(model, PAIRS, layout=layout_of(PAIRS))
    with torch.autocast("cpu", torch.bfloat16):
        packed = call(model, PAIRS, layout=layout_of(PAIRS))
    assert not torch.equal(packed.log_probs.float(), plain.log_probs)
    torch.testing.assert_close(packed.log_probs.float(), plain.log_probs, atol=0.3, rtol=0.05)


# --- Refused models, and the reasons ---

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({"state_size": 4}, "linear_attention"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "conv"),
    "llama4_text": ({"num_local_experts": 2, "head_dim": 8}, "chunked_attention"),
    "gemma2": ({"head_dim": 8, "sliding_window": WINDOW}, "softcap"),
    "gpt_oss": ({"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, "s_aux"),
    "recurrent_gemma": (
        {"lru_width": 16, "num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
        "1 of its 3 layers|linear_attention",  # transformers 5.23 gives its layers types
    ),
    "bloom": ({"n_layer": 2, "n_head": 4}, "attention interface"),
    "mpt": ({"d_model": 16, "n_layers": 2, "n_heads": 4}, "attention interface"),
    "xglm": ({"d_model": 16, "num_layers": 2, "attention_heads": 4, "ffn_dim": 32}, "attention interface"),
    "doge": ({"keep_window_size": 32}, "mask of its own"),
    # The window is only in transformers' mask, not passed to the attention function: wrong on rows longer than it.
    "qwen2_moe": (
        {"use_sliding_window": True, "max_window_layers": 2, "shared_expert_intermediate_size": 8, **MIXED, **EXPERTS},
        "window of None, not 4",
    ),
    "phimoe": ({"sliding_window": 32, "num_local_experts": 2, "num_experts_per_tok": 1}, "window of None, not 32"),
}


def refusal(model: PreTrainedModel, *, longest: int = 6) -> str:
    """The error message on pairs that are shorter than any window, as the shortest pairs of real data may be."""
    with pytest.raises(RecipeError) as raised:
        support.check_configuration(model.config, longest=longest)
        support.verify(
            install(model), [PairTokens((3, 4), (5,), (6,)), PairTokens((3, 4), (5, 7), (6, 9, 8))], device=CPU
        )
    return str(raised.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_packing_would_compute_wrongly_are_refused(kind: str) -> None:
    changes, why = REFUSED[kind]
    message = refusal(random_model(kind, **changes))
    assert message.startswith("training.packing: ") and "packing: padded" in message
    assert re.search(why, message)
    assert kind.split("_")[0] in message.lower().replace("gptoss", "gpt")


def test_encoder_decoders_are_refused() -> None:
    with pytest.raises(RecipeError, match="t5 cannot be packed: it is not a decoder-only model"):
        support.check_configuration(AutoConfig.for_model("t5"), longest=8)


DYNAMIC, DEFAULT = ({"rope_type": kind, "factor": 2.0, "rope_theta": 1e4} for kind in ("dynamic", "default"))
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0, 3.0], "short_factor": [1.0, 1.0]}
ROPES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": DYNAMIC},
    "gemma3_text": {"rope_parameters": {"full_attention": DYNAMIC, "sliding_attention": DEFAULT}},
    "phi3": {"original_max_position_embeddings": 64, "max_position_embeddings": 128, "rope_parameters": LONGROPE},
}


@pytest.mark.parametrize("kind", ROPES)
def test_rotary_positions_that_depend_on_the_batch_are_refused_from_that_length_on(kind: str) -> None:
    config = AutoConfig.for_model(kind, **COMMON | ROPES[kind])
    support.check_configuration(config, longest=64)
    with pytest.raises(RecipeError, match=f"{kind} cannot be packed: its (dynamic|longrope) positions"):
        support.check_configuration(config, longest=65)


def changed(layout: Layout, **fields: Any) -> Layout:
    given = {name: value for name, value in vars(layout).items() if name != "cache"}
    return Layout(**{**given, **fields})


def not_restarted(layout: Layout) -> Layout:
    return changed(layout, position_T=np.arange(layout.num_tokens))


def everything_before(layout: Layout) -> Layout:
    """A token also attends to the branches before its own."""
    segments = tuple(replace(s, prefix=np.arange(s.start)) for s in layout.segments)
    return changed(layout, segments=segments, reach_T=np.full(layout.num_tokens, layout.num_tokens))


def one_token_less(layout: Layout) -> Layout:
    """A branch does not attend to the last token of its shared prefix."""
    segments = tuple(replace(s, prefix=s.prefix[:-1]) for s in layout.segments)
    starts = {int(s.prefix[-1]): s.start for s in reversed(layout.segments) if s.prefix.size}
    reach_T = [starts.get(k, int(reach)) for k, reach in enumerate(layout.reach_T)]
    return changed(layout, segments=segments, reach_T=np.array(reach_T))


def shifted_labels(layout: Layout) -> Layout:
    return changed(layout, predecessor_L=layout.predecessor_L + 1)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", attention.KERNELS)
@pytest.mark.parametrize("broken", [not_restarted, everything_before, one_token_less, shifted_labels])
def test_a_wrong_layout_fails_the_verification(
    broken: Callable[[Layout], Layout], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels_on_the_cpu(monkeypatch)
    model = install(random_model("llama"), kernel)
    shortest = PAIRS[3:5]

    def made(change: Callable[[Layout], Layout]) -> Callable[[Any], Layout]:
        return lambda pairs: change(lay_out_pairs(pairs)).padded(flex.BLOCK)

    monkeypatch.setattr(support, "lay_out_pairs", made(lambda layout: layout))
    assert support.verify(model, shortest, device=CPU) < 1e-5
    monkeypatch.setattr(support, "lay_out_pairs", made(broken))
    with pytest.raises(RecipeError, match="llama cannot be packed: packed log-probabilities differ"):
        support.verify(model, shortest, device=CPU)


@pytest.mark.parametrize("broken", [everything_before, shifted_labels])
def test_a_wrong_layout_fails_the_verification_in_bfloat16(
    broken: Callable[[Layout], Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install(random_model("llama")).bfloat16()
    assert support.verify(model, PAIRS[3:5], device=CPU) < 0.5
    monkeypatch.setattr(support, "lay_out_pairs", lambda pairs: broken(lay_out_pairs(pairs)))
    with pytest.raises(RecipeError, match="on average"):
        support.verify(model, PAIRS[3:5], device=CPU)
