"""The trained model on disk: a folder that plain `transformers` loads, with log-probabilities of a canary text."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from selfreward.model_files.engine_copy import RECORD, write_engine_copy
from selfreward.model_files.json_file import read_json_object
from selfreward.model_files.weights import tensor_shapes
from selfreward.store.files import explain_os_errors, flush, write_text_atomically
from selfreward.store.model_folder import UNUSED_WEIGHTS, WEIGHTS, leaves
from selfreward.updates import saves
from selfreward.updates.models import load_model, load_tokenizer

CANARY_TEXT = (
    "The river was high after three days of rain, so the farmers moved their sheep to the hill behind the old mill "
    "and waited there until the water had gone down again."
)
MAX_CANARY_TOKENS = 48
WEIGHT_SUFFIXES = UNUSED_WEIGHTS | {WEIGHTS}
_TEMPLATES = "additional_chat_templates"


def write_model(
    model: PreTrainedModel, folder: Path, *, state: dict[str, torch.Tensor] | None, policy: Path, dtype: str
) -> None:
    """Write the weights of `model`, or `state` when they are sharded over processes.

    Everything else (tokenizer, chat template, configuration) is copied from the policy's folder.
    """
    with saves.writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, state_dict=state)
        # transformers derives this file from the configuration; the policy's own is copied instead, if it has one.
        (folder / "generation_config.json").unlink(missing_ok=True)
        for path in sorted(policy.iterdir()):
            if _is_copied(path, policy):
                shutil.copyfile(path, folder / path.name)
        for path in sorted((policy / _TEMPLATES).glob("*.jinja")):
            if _is_copied(path, policy):
                (folder / _TEMPLATES).mkdir(exist_ok=True)
                shutil.copyfile(path, folder / _TEMPLATES / path.name)
        config = read_json_object(policy / "config.json")
        config.pop("torch_dtype", None)  # the older name of the same key
        config["dtype"] = dtype
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _is_copied(path: Path, policy: Path) -> bool:
    """Return whether a file of the policy's folder belongs to the trained model too; links out of it never do."""
    is_written_here = path.name in {"config.json", "canary.json", RECORD}
    has_weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
    is_named = not is_written_here and not has_weights and not path.name.startswith(".")
    return is_named and path.is_file() and not leaves(path.resolve(), policy)


def write_canary(folder: Path, *, trust_remote_code: bool) -> None:
    """Write `canary.json` = {"token_ids": [n ints], "token_logprobs": [n - 1 numbers]} for the model in `folder`.

    `token_logprobs[i]` is the natural log-probability of `token_ids[i + 1]` given `token_ids[: i + 1]`. The model is
    loaded from this folder and computes it on the CPU, in the dtype of its weights.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    token_ids: list[int] = tokenizer(CANARY_TEXT, add_special_tokens=False)["input_ids"][:MAX_CANARY_TOKENS]
    model = load_model(folder, dtype="auto", trust_remote_code=trust_remote_code).eval()
    ids_BT = torch.tensor([token_ids])
    with torch.no_grad():
        logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0, :-1].float()
    logprobs_T = logits_TV.log_softmax(-1).gather(-1, ids_BT[0, 1:, None])[:, 0]
    canary = {"token_ids": token_ids, "token_logprobs": logprobs_T.tolist()}
    write_text_atomically(folder / "canary.json", json.dumps(canary))


@torch.no_grad()
def rounded_update_metrics(before: Path, after: Path, *, dtype: str, trust_remote_code: bool) -> dict[str, float]:
    """Round the weights in `after` to the engine's `dtype`: write its copy of them, and measure what rounding does.

    The measurement is how much of an update d of the weights w survives. With rounding r, the engine's weights change
    by s = r(w + d) - r(w). `changed_weight_share` is the share of non-zero entries of s, in [0, 1].
    `seen_update_share` is the projection <s, d> / <d, d>: to first order and on average, the effect of s on the loss
    divided by that of d. It is 1 when the effect is equal, near 0 when the update is lost, and above 1 when rounding
    overshoots. The effect can be complete although few weights change, because each of these moves by a full rounding
    step.
    """
    with saves.writing(after):
        write_engine_copy(after, dtype=dtype)
    cast = getattr(torch, dtype)
    changed = total = 0
    projection = squared_norm = 0.0
    for a, b in _weights_of_both(before, after, trust_remote_code=trust_remote_code):
        update = (b - a).flatten().float()
        rounded = (b.to(cast).float() - a.to(cast).float()).flatten()
        changed += int(rounded.count_nonzero())
        total += a.numel()
        projection += float(torch.dot(rounded, update))
        squared_norm += float(torch.dot(update, update))
    return {
        "changed_weight_share": changed / total,
        "seen_update_share": projection / squared_norm if squared_norm else 0.0,
    }


def _weights_of_both(
    before: Path, after: Path, *, trust_remote_code: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield each parameter of both models, one at a time where their files have the same names and shapes of tensors.

    Only models that transformers stores in another form than it was given are loaded whole.
    """
    shapes = tensor_shapes(before)
    if shapes == tensor_shapes(after):
        with contextlib.ExitStack() as stack:
            old, new = (_open_weights(folder, stack) for folder in (before, after))
            yield from ((old[name].get_tensor(name), new[name].get_tensor(name)) for name in shapes)
        return
    models = (load_model(folder, dtype="auto", trust_remote_code=trust_remote_code) for folder in (before, after))
    yield from zip(*(model.parameters() for model in models), strict=True)


def _open_weights(folder: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the open file of each tensor of a model folder."""
    files: list[Any] = [stack.enter_context(safe_open(f, framework="pt")) for f in sorted(folder.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118  # a file is no mapping


def commit(partial: Path, final: Path) -> None:
    """Rename the folder `partial` to `final`, after flushing all of it to disk."""
    saves.flush_tree(partial)
    with explain_os_errors(final):
        partial.replace(final)
        flush(final.parent)
