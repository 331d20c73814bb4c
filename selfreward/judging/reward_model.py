"""A trained reward model as judge: a sequence-classification checkpoint with one output.

What it does: conversation and response are rendered as for every model, in the template of the checkpoint or of the
recipe, and its one output is the score. It runs on plain transformers in the dtype of the checkpoint, while the engine
sleeps because a GPU seldom holds both, and is unloaded after a call.

Paper: 2203.02155 (InstructGPT), section 3.5: a reward model outputs a scalar for a prompt and a response.
Differs: the checkpoint is used and never trained here. A truncated response is closed by the template like a complete
one. Text that spells control tokens is split, so that no response can inject a turn that praises it.
"""

import gc
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from selfreward import recipe
from selfreward.errors import ChatTemplateError, EngineError, RecipeError
from selfreward.judging.client import finite, plain_judgment
from selfreward.model_files import ChatTokenizer
from selfreward.model_files.control_tokens import ControlTokens
from selfreward.model_files.reading import reading_model
from selfreward.parts import Engine, Models
from selfreward.readers import Unscored, without_reasoning
from selfreward.records import Checkpoint, Judgment, Message, Prompt, Response
from selfreward.store.model_folder import require_unchanged
from selfreward.workload import Lengths, Requests, Workload, forward_requests

NAME: Final = "reward_model"
_WANTED: Final = "a sequence-classification checkpoint with one output, safetensors and a chat template is needed"


class RewardModelJudge:
    """`parts.Judge` with unbounded scores and one deterministic judgment for each response.

    An output that is not finite is unscored: `not_finite`.
    """

    scale = None

    def __init__(
        self, section: recipe.RewardModelSection, *, model: recipe.ModelSection, engine: Engine | None = None
    ) -> None:
        """`engine` is the one with which this judge shares the accelerator; its next use wakes it."""
        self.by = frozenset({section.by})
        self._engine = engine
        self._section = section
        self._model = model

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return one judgment for each response, in their order.

        A conversation that the checkpoint's template cannot format is unscored. Raises RecipeError for a checkpoint
        that is not a reward model, and EngineError when the forward pass fails.
        """
        checkpoint = models[self._section.by]
        require_unchanged(checkpoint)
        _require_one_output(checkpoint.path, trust_remote_code=self._model.trust_remote_code)
        chat = ChatTokenizer.of(self._model, checkpoint.path)
        messages_of = {prompt.id: prompt.messages for prompt in prompts}
        encoded = [_tokens(chat, messages_of[response.prompt_id], response) for response in responses]
        rows = [token_ids for token_ids in encoded if not isinstance(token_ids, Unscored)]
        scores = iter(self._scores(checkpoint, rows) if rows else [])
        template_sha256 = sha256(chat.template.encode()).hexdigest()
        judgments = []
        for response, token_ids in zip(responses, encoded, strict=True):
            refused = token_ids.value if isinstance(token_ids, Unscored) else None
            score = math.nan if refused else next(scores)
            found = {"unscored": refused} if refused else {**finite(score), "text": f"reward {score:.6g}"}
            judged = plain_judgment(response, NAME, **found, checkpoint_id=checkpoint.id)
            judgments.append(replace(judged, template_sha256=template_sha256))
        return judgments

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        encoded = forward_requests(
            self._section.by, work.prompts, lengths, max_tokens=work.max_tokens, times=work.num_responses
        )
        return [replace(requests, in_engine=False) for requests in encoded]

    def _scores(self, checkpoint: Checkpoint, rows: Sequence[tuple[int, ...]]) -> list[float]:
        """Return one score for each row of token ids; the model is unloaded afterwards."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._engine is not None:
            self._engine.sleep()
        try:
            model = _load(checkpoint.path, trust_remote_code=self._model.trust_remote_code).to(device)
            return _forward(model, rows, batch_tokens=self._section.batch_tokens)
        except RecipeError:
            raise
        except (RuntimeError, ValueError, MemoryError) as error:
            raise EngineError(
                f"reward model {checkpoint.path}: {type(error).__name__}: {error}; it must score all responses; if "
                "it ran out of memory, lower judging.batch_tokens or give the engine less memory; then run the same "
                "command to continue from the last finished shard"
            ) from error
        finally:
            model = None
            gc.collect()
            torch.cuda.empty_cache()


def _require_one_output(folder: Path, *, trust_remote_code: bool) -> None:
    """Raise RecipeError, without loading weights, unless the checkpoint has exactly one output."""
    from transformers import AutoConfig

    with reading_model(f"reward model {folder}: its config", _WANTED):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if config.num_labels != 1:
        architectures = ", ".join(config.architectures or ["not given"])
        raise _refused(folder, f"it has {config.num_labels} outputs (architecture: {architectures})")


def _refused(folder: Path, found: str) -> RecipeError:
    return RecipeError(
        f"reward model {folder}: {found}; {_WANTED}; name such a model under `models`, or use another kind of judge"
    )


@lru_cache(maxsize=8)
def _control(chat: ChatTokenizer) -> ControlTokens:
    return ControlTokens(chat)


def _tokens(chat: ChatTokenizer, messages: Sequence[Message], response: Response) -> tuple[int, ...] | Unscored:
    """Return the conversation's token ids, in which all control tokens come from the template, or why there are
    none."""
    if not (text := without_reasoning(response.text)):
        return Unscored.EMPTY_RESPONSE
    try:
        # The template writes the beginning-of-sequence token itself: nothing is added.
        token_ids = _control(chat).encoded((*messages, Message("assistant", text)), chat.encode_finished)
    except ChatTemplateError:  # of this one conversation, which must not end the run
        return Unscored.REFUSED
    if token_ids is None:
        return Unscored.CONTROL_TOKENS
    return token_ids if len(token_ids) <= chat.context_tokens(chat.max_length) else Unscored.TOO_LONG


def _load(folder: Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar per shard is of no use to the user
    try:
        with reading_model(f"reward model {folder}", _WANTED):
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype="auto",
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    finally:
        if shown:
            logging.enable_progress_bar()
    if missing := sorted(loaded["missing_keys"]):
        # transformers would continue with randomly initialised weights instead
        raise _refused(folder, f"its weights lack {', '.join(missing[:3])}")
    model.config.get_text_config().use_cache = False
    return model.eval()


def _forward(model: Any, rows: Sequence[tuple[int, ...]], *, batch_tokens: int) -> list[float]:
    """Return the score of each row, independent of the batch it is in."""
    import torch
    from tqdm import tqdm

    pad = _pad_token_id(model.config.get_text_config(), rows)
    scores = [math.nan] * len(rows)
    batches = _batches(rows, batch_tokens=batch_tokens)
    with torch.inference_mode():
        for batch in tqdm(batches, desc="reward model", unit="batch", disable=None, dynamic_ncols=True):
            width = max(len(rows[index]) for index in batch)
            lengths_B = torch.tensor([len(rows[index]) for index in batch])
            padded = [[*rows[index], *[pad] * (width - len(rows[index]))] for index in batch]
            input_ids_BT = torch.tensor(padded, device=model.device)
            mask_BT = (torch.arange(width) < lengths_B[:, None]).long().to(model.device)
            logits_B = model(input_ids=input_ids_BT, attention_mask=mask_BT).logits.float().flatten()
            for index, score in zip(batch, logits_B.tolist(), strict=True):
                scores[index] = score
    return scores


def _pad_token_id(config: Any, rows: Sequence[tuple[int, ...]]) -> int:
    """Return the id of the token to pad with on the right.

    Decoders score the last token that is not the configuration's padding token, so padding must use exactly that token,
    regardless of the tokenizer's. Without one (or with -1, in old checkpoints) they score the very last token, one row
    at a time; a padding token that ends no row gives the same result for several rows at a time.
    """
    if config.pad_token_id is None or config.pad_token_id < 0:
        ends = {row[-1] for row in rows}
        config.pad_token_id = next(token_id for token_id in range(config.vocab_size) if token_id not in ends)
    return int(config.pad_token_id)


def _batches(rows: Sequence[tuple[int, ...]], *, batch_tokens: int) -> list[list[int]]:
    """Return batches of row indices, sorted by length, of at most `batch_tokens` padded tokens each, or of one row."""
    batches: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batches and (len(batches[-1]) + 1) * len(rows[index]) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
