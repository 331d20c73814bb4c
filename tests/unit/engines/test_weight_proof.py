"""The proof of weights on hand-made modules with the attributes of vLLM's layers: ranks, stacked layers, experts."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfreward.engines.checksums import checksum
from selfreward.engines.vllm import _as_sample
from selfreward.engines.weight_samples import MAX_TENSORS, NUM_ROWS, chosen_names, spread
from selfreward.engines.weight_verification import WeightVerifier
from selfreward.engines.worker import WeightProof
from selfreward.errors import EngineError
from selfreward.records import Checkpoint

WIDTH, HEAD, HEADS, KV_HEADS, INNER, VOCABULARY, EXPERTS = 32, 8, 4, 2, 48, 72, 5
LAYER = "model.layers.0"


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    """A checkpoint in float32, as transformers saves it."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        f"{LAYER}.input_layernorm.weight": (WIDTH,),
        f"{LAYER}.self_attn.o_proj.weight": (WIDTH, HEADS * HEAD),
        f"{LAYER}.self_attn.o_proj.bias": (WIDTH,),
        f"{LAYER}.mlp.gate.weight": (EXPERTS, WIDTH),
        f"{LAYER}.mlp.shared.gate_proj.weight": (INNER, WIDTH),
        f"{LAYER}.mlp.shared.up_proj.weight": (INNER, WIDTH),
    }
    for part, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        shapes |= {f"{LAYER}.self_attn.{part}_proj.weight": (heads * HEAD, WIDTH)}
        shapes |= {f"{LAYER}.self_attn.{part}_proj.bias": (heads * HEAD,)}
    for expert in range(EXPERTS):
        shapes |= {f"{LAYER}.mlp.experts.{expert}.{kind}_proj.weight": (INNER, WIDTH) for kind in ("gate", "up")}
        shapes |= {f"{LAYER}.mlp.experts.{expert}.down_proj.weight": (WIDTH, INNER)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def layer(weight: torch.Tensor, bias: torch.Tensor | None = None, **attributes: Any) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(weight.bfloat16())
    if bias is not None:
        module.bias = nn.Parameter(bias.bfloat16())
    vars(module).update(attributes)
    return module


class Experts(nn.Module):
    def __init__(self, tensors: dict[str, torch.Tensor], rank: int, count: int, backend: str) -> None:
        super().__init__()
        part = slice(rank * INNER // count, (rank + 1) * INNER // count)
        named = [f"{LAYER}.mlp.experts.{expert}" for expert in range(EXPERTS)]
        w13 = [torch.cat([tensors[f"{n}.gate_proj.weight"][part], tensors[f"{n}.up_proj.weight"][part]]) for n in named]
        self.w13_weight = nn.Parameter(torch.stack(w13).bfloat16())
        self.w2_weight = nn.Parameter(
            torch.stack([tensors[f"{n}.down_proj.weight"][:, part] for n in named]).bfloat16()
        )
        self.quant_method = SimpleNamespace(unquantized_backend=SimpleNamespace(name=backend))
        self.moe_config = SimpleNamespace(moe_parallel_config=SimpleNamespace(tp_rank=rank, tp_size=count))

    def get_expert_mapping(self) -> list[tuple[str, str, int, str]]:
        kinds = (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
        return [
            ("experts.w2_" if shard == "w2" else "experts.w13_", f"experts.{expert}.{kind}.", expert, shard)
            for expert in range(EXPERTS)
            for shard, kind in kinds
        ]


def rank_of(tensors: dict[str, torch.Tensor], rank: int, count: int, *, backend: str = "TRITON") -> WeightProof:
    """A worker with its share of the weights, split as vLLM splits them over `count` ranks."""

    def rows(name: str, parts: int = count, index: int = rank) -> torch.Tensor:
        return tensors[name].chunk(parts)[index]

    copies = max(1, count // KV_HEADS)
    split = {"q": (count, rank), "k": (count // copies, rank // copies), "v": (count // copies, rank // copies)}
    parallel: dict[str, Any] = {"tp_rank": rank, "tp_size": count}

    def stacked(form: str) -> torch.Tensor:
        return torch.cat([rows(f"{LAYER}.self_attn.{part}_proj.{form}", *where) for part, where in split.items()])

    sizes = [HEADS * HEAD // count, *([max(1, KV_HEADS // count) * HEAD] * 2)]
    model = nn.Module()
    for path, module in {
        "model.embed_tokens": layer(
            torch.cat([rows("model.embed_tokens.weight"), torch.zeros(29, WIDTH)]),
            shard_indices=SimpleNamespace(
                org_vocab_start_index=rank * VOCABULARY // count, org_vocab_end_index=(rank + 1) * VOCABULARY // count
            ),
            org_vocab_size=VOCABULARY,
        ),
        f"{LAYER}.input_layernorm": layer(tensors[f"{LAYER}.input_layernorm.weight"]),
        f"{LAYER}.self_attn.qkv_proj": layer(
            stacked("weight"), stacked("bias"), input_size=WIDTH, input_size_per_partition=WIDTH,
            output_size_per_partition=sum(sizes), output_partition_sizes=sizes, num_kv_head_replicas=copies, **parallel,
        ),
        f"{LAYER}.self_attn.o_proj": layer(
            tensors[f"{LAYER}.self_attn.o_proj.weight"].chunk(count, 1)[rank],
            tensors[f"{LAYER}.self_attn.o_proj.bias"], input_size=HEADS * HEAD,
            input_size_per_partition=HEADS * HEAD // count, output_size_per_partition=WIDTH,
            output_partition_sizes=[WIDTH], **parallel,
        ),
        f"{LAYER}.mlp.gate": layer(
            tensors[f"{LAYER}.mlp.gate.weight"], input_size=WIDTH, output_partition_sizes=[EXPERTS], **parallel
        ),
        f"{LAYER}.mlp.shared.gate_up_proj": layer(
            torch.cat([rows(f"{LAYER}.mlp.shared.{kind}_proj.weight") for kind in ("gate", "up")]), input_size=WIDTH,
            input_size_per_partition=WIDTH, output_size_per_partition=2 * INNER // count,
            output_partition_sizes=[INNER // count] * 2, **parallel,
        ),
        f"{LAYER}.mlp.experts.routed_experts": Experts(tensors, rank, count, backend),
    }.items():  # fmt: skip
        *parents, own = path.split(".")
        owner = model
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = getattr(owner, parent)
        owner.add_module(own, module)
    model.get_submodule(f"{LAYER}.self_attn").register_buffer("cos_sin_cache", torch.linspace(0, 1, 33))
    vars(model)["packed_modules_mapping"] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]
    }  # fmt: skip
    worker = WeightProof()
    worker.rank, worker.model_runner = rank, SimpleNamespace(get_model=lambda: model)
    return worker


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], name: str = "one") -> Checkpoint:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return Checkpoint(name, folder, 1)


def proved(verifier: WeightVerifier, ranks: list[WeightProof], of: Checkpoint) -> dict[str, Any]:
    found = [json.loads(json.dumps(rank.sample_weights())) for rank in ranks]  # between processes
    facts = verifier.tensors([_as_sample(sample) for rank in found for sample in rank], of)
    return facts | verifier.state([rank.weight_state() for rank in ranks], of)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_parameter_of_every_rank_is_compared_with_its_slice(count: int, tmp_path: Path) -> None:
    """With 4 ranks and 2 heads of keys, two ranks have the same head."""
    tensors = tensors_of(1)
    ranks = [rank_of(tensors, rank, count) for rank in range(count)]
    facts = proved(WeightVerifier(dtype="bfloat16"), ranks, checkpoint(tmp_path / "a", tensors))
    # embedding, norm, qkv and o with biases, gate, shared, and 3 experts in two matrices
    assert facts["num_tensors_compared"] == count * (8 + 2 * 3)
    assert facts["num_tensors_not_comparable"] == 0
    assert facts["num_tensors_checksummed"] == count * (8 + 2 + 1)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("path", "index", "named"),
    [
        ("model.embed_tokens.weight", (0, 0), "model.embed_tokens.weight"),
        (f"{LAYER}.input_layernorm.weight", (5,), "input_layernorm.weight"),
        (f"{LAYER}.self_attn.qkv_proj.bias", (17,), "qkv_proj.bias"),
        (f"{LAYER}.self_attn.o_proj.bias", (0,), "o_proj.bias"),
        (f"{LAYER}.self_attn.o_proj.weight", (31, 15), "o_proj.weight"),
        (f"{LAYER}.mlp.experts.routed_experts.w13_weight", (4, 0, 3), r"w13_weight\[4\]"),
        (f"{LAYER}.mlp.experts.routed_experts.w2_weight", (2, 31, 3), r"w2_weight\[2\]"),
    ],
)
def test_one_wrong_value_of_the_last_rank_is_found_and_named(
    count: int, path: str, index: tuple[int, ...], named: str, tmp_path: Path
) -> None:
    tensors = tensors_of(1)
    ranks = [rank_of(tensors, rank, count) for rank in range(count)]
    with torch.no_grad():
        ranks[-1].model_runner.get_model().get_parameter(path)[index] += 1
    where = rf"{named} \(rank 1\)" if count == 2 else named
    with pytest.raises(EngineError, match=f"1 of .* sampled tensors differ.*{where}"):
        proved(WeightVerifier(dtype="bfloat16"), ranks, checkpoint(tmp_path / "a", tensors))


def test_a_rank_with_the_slice_of_another_rank_is_found(tmp_path: Path) -> None:
    tensors = tensors_of(1)
    ranks = [rank_of(tensors, 0, 2), rank_of(tensors, 0, 2)]
    for module in ranks[1].model_runner.get_model().modules():
        if hasattr(module, "tp_rank"):
            module.tp_rank = 1
    with pytest.raises(EngineError, match=r"qkv_proj\.weight"):
        proved(WeightVerifier(dtype="bfloat16"), ranks, checkpoint(tmp_path / "a", tensors))


def test_a_checkpoint_with_the_layers_stacked_is_compared_too(tmp_path: Path) -> None:
    tensors = tensors_of(1)
    ranks = [rank_of(tensors, rank, 2) for rank in range(2)]
    for form in ("weight", "bias"):
        apart = [tensors.pop(f"{LAYER}.self_attn.{part}_proj.{form}") for part in "qkv"]
        tensors[f"{LAYER}.self_attn.qkv_proj.{form}"] = torch.cat(apart)
    facts = proved(WeightVerifier(dtype="bfloat16"), ranks, checkpoint(tmp_path / "a", tensors))
    assert facts["num_tensors_not_comparable"] == 0


def test_experts_that_a_kernel_reorders_are_not_compared_with_the_checkpoint(tmp_path: Path) -> None:
    tensors = tensors_of(1)
    ranks = [rank_of(tensors, 0, 1, backend="FLASHINFER_CUTLASS")]
    facts = proved(WeightVerifier(dtype="bfloat16"), ranks, checkpoint(tmp_path / "a", tensors))
    assert facts["num_tensors_compared"] == 8 and facts["num_tensors_checksummed"] == 11


def _in_an_unsampled_row(model: nn.Module) -> None:
    row = next(row for row in range(VOCABULARY) if row not in spread(VOCABULARY, NUM_ROWS))
    model.get_parameter("model.embed_tokens.weight")[row, 1] += 1


def _in_an_expert(model: nn.Module) -> None:
    model.get_parameter(f"{LAYER}.mlp.experts.routed_experts.w2_weight")[1, 7, 7] += 1  # expert 1 is not sampled


def _in_a_buffer(model: nn.Module) -> None:
    model.get_buffer(f"{LAYER}.self_attn.cos_sin_cache")[32] = 0


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(_in_an_unsampled_row, "embed_tokens.weight"), (_in_an_expert, "w2_weight"), (_in_a_buffer, "cos_sin_cache")],
)
def test_what_is_not_sampled_must_be_as_before_when_a_checkpoint_is_loaded_again(
    spoil: Callable[[nn.Module], None], named: str, tmp_path: Path
) -> None:
    tensors, verifier = tensors_of(1), WeightVerifier(dtype="bfloat16")
    ranks, first = [rank_of(tensors, rank, 2) for rank in range(2)], checkpoint(tmp_path / "a", tensors)
    assert proved(verifier, ranks, first)["checksums_against"] is None
    assert proved(verifier, ranks, first)["checksums_against"] == "the same checkpoint, loaded before"
    with torch.no_grad():
        spoil(ranks[1].model_runner.get_model())
    with pytest.raises(EngineError, match=f"1 tensors in the engine changed since .*{named} of rank 1"):
        proved(verifier, ranks, first)


def test_only_buffers_that_no_checkpoint_contains_must_stay_when_another_one_is_loaded(tmp_path: Path) -> None:
    buffer = f"{LAYER}.self_attn.cos_sin_cache"
    verifier, one, two = WeightVerifier(dtype="bfloat16"), tensors_of(1), tensors_of(2)
    proved(verifier, [rank_of(one, 0, 1)], checkpoint(tmp_path / "a", one, "one"))
    ranks = [rank_of(two, 0, 1)]
    assert proved(verifier, ranks, checkpoint(tmp_path / "b", two, "two"))["changed_rate"] > 0.9
    with torch.no_grad():
        _in_a_buffer(ranks[0].model_runner.get_model())
    with pytest.raises(EngineError, match=f"changed by loading checkpoint three: {buffer}"):
        proved(verifier, ranks, checkpoint(tmp_path / "b", two, "three"))
    saved = two | {buffer: ranks[0].model_runner.get_model().get_buffer(buffer)}
    fresh = WeightVerifier(dtype="bfloat16")
    proved(fresh, [rank_of(one, 0, 1)], checkpoint(tmp_path / "c", one | {buffer: torch.linspace(0, 1, 33)}, "one"))
    proved(fresh, ranks, checkpoint(tmp_path / "d", saved, "four"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (64,), (5, 3), (0,), (2, 3, 4)])
def test_checksums_see_every_bit_and_every_position(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(0, 2, shape, generator=generator).to(dtype)
    assert checksum(tensor) == checksum(tensor.clone())
    data = tensor.reshape(-1).view(torch.uint8)
    seen = {checksum(tensor)}
    for byte in range(data.numel()):
        other = data.clone()
        other[byte] ^= 1
        seen.add(checksum(other.view(dtype).reshape(shape)))
    assert len(seen) == 1 + data.numel()


def test_checksums_depend_on_order_and_not_on_storage() -> None:
    tensor = torch.arange(30, dtype=torch.bfloat16).reshape(5, 6)
    assert checksum(tensor) != checksum(tensor.flip(0)) != checksum(tensor.reshape(6, 5))
    assert checksum(tensor[1:, 1:]) == checksum(tensor[1:, 1:].contiguous())
    wide = torch.randn(2**22 + 9)  # more than one chunk
    swapped = wide.clone()
    swapped[[0, -1]] = swapped[[-1, 0]]
    assert checksum(wide) != checksum(swapped)


@pytest.mark.parametrize("width", [1, 2, NUM_ROWS, NUM_ROWS + 1, 576, 4096])
def test_sampled_rows_lie_in_the_matrix_and_reach_its_ends(width: int) -> None:
    rows = spread(width, NUM_ROWS)
    assert rows[0] == 0 and rows[-1] == width - 1
    assert len(set(rows)) == len(rows) == min(width, NUM_ROWS)


def test_a_large_models_proof_covers_every_kind_of_tensor_and_both_ends() -> None:
    kinds = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "input_norm", "post_norm"]
    names = ["embed", *(f"layers.{layer}.{kind}" for layer in range(80) for kind in kinds), "norm", "lm_head"]
    chosen = chosen_names(names)
    assert len(chosen) == MAX_TENSORS
    assert {"embed", "norm", "lm_head", "layers.79.down_proj"} <= set(chosen)
    assert all(sum(name.endswith(f".{kind}") for name in chosen) > 10 for kind in kinds)
    assert chosen_names(names[:100]) == names[:100]
