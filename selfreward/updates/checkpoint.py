"""The trained model on disk: a folder that plain `transformers` loads, with a canary of its own log-probabilities."""

import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from selfreward.store.files import explained, flush, write_text_atomically
from selfreward.updates import saves
from selfreward.updates.models import load_model, load_tokenizer

CANARY_TEXT = (
    "The river was high after three days of rain, so the farmers moved their sheep to the hill behind the old mill "
    "and waited there until the water had gone down again."
)
MOST_CANARY_TOKENS = 48
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}


def write_model(
    model: PreTrainedModel, folder: Path, *, state: dict[str, torch.Tensor] | None, policy: Path, dtype: str
) -> None:
    """Weights of `model`, or `state` when they are spread over processes.

    All else (tokenizer, chat template, configuration) is as it stands in the policy's folder.
    """
    with saves.writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, state_dict=state)
        # transformers writes one from the configuration; the policy's own is copied, if it has one.
        (folder / "generation_config.json").unlink(missing_ok=True)
        for path in sorted(policy.iterdir()):
            if _is_carried(path):
                shutil.copyfile(path, folder / path.name)
        templates = policy / "additional_chat_templates"
        if templates.is_dir():
            shutil.copytree(templates, folder / templates.name)
        config = json.loads((policy / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)  # the older name of the same key
        config["dtype"] = dtype
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _is_carried(path: Path) -> bool:
    ours = path.name in {"config.json", "canary.json"}
    weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
    return path.is_file() and not ours and not weights and not path.name.startswith(".")


def write_canary(folder: Path, *, trust_remote_code: bool) -> None:
    """`canary.json` = {"token_ids": [n ints], "token_logprobs": [n - 1 numbers]}, of the model in `folder` itself.

    `token_logprobs[i]` is the natural log-probability of `token_ids[i + 1]` given `token_ids[: i + 1]`, computed on
    the CPU by the model as it loads from this folder, in the type of its weights.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    token_ids: list[int] = tokenizer(CANARY_TEXT, add_special_tokens=False)["input_ids"][:MOST_CANARY_TOKENS]
    model = load_model(folder, dtype="auto", trust_remote_code=trust_remote_code).eval()
    ids_BT = torch.tensor([token_ids])
    with torch.no_grad():
        logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0, :-1].float()
    logprobs_T = logits_TV.log_softmax(-1).gather(-1, ids_BT[0, 1:, None])[:, 0]
    canary = {"token_ids": token_ids, "token_logprobs": logprobs_T.tolist()}
    write_text_atomically(folder / "canary.json", json.dumps(canary))


@torch.no_grad()
def seen_by_the_engine(before: Path, after: Path, *, dtype: str, trust_remote_code: bool) -> dict[str, float]:
    """What is left of an update d when weights w are rounded to `dtype`, where the engine sees s = r(w + d) - r(w).

    `changed_weight_share`: of s not zero, in [0, 1]. `seen_update_share`: the projection <s, d> / <d, d>, which is the
    effect of s on the loss over that of d, to first order and on average: 1 as large, near 0 lost, above 1 when
    roundings overshoot. Few weights may change and the effect be whole, each by a whole step of the format.
    """
    cast = getattr(torch, dtype)
    old, new = (load_model(folder, dtype="auto", trust_remote_code=trust_remote_code) for folder in (before, after))
    changed = total = 0
    along = length = 0.0
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        update, seen = (b - a).flatten().float(), (b.to(cast).float() - a.to(cast).float()).flatten()
        changed += int(seen.count_nonzero())
        total += a.numel()
        along += float(torch.dot(seen, update))
        length += float(torch.dot(update, update))
    return {"changed_weight_share": changed / total, "seen_update_share": along / length if length else 0.0}


def commit(partial: Path, final: Path) -> None:
    """The folder gets its name only when all of it is on disk."""
    saves.flush_tree(partial)
    with explained(final):
        partial.replace(final)
        flush(final.parent)
