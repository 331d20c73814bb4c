"""Models of a plan: their configuration and tokenizer, without their weights, which need not be here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.model_files.estimated import EstimatedTokenizer, has_tokenizer
from selfreward.model_files.folder_check import require_usable_files
from selfreward.model_files.folders import checkpoint_of, from_hub, materialise
from selfreward.model_files.own_template import with_template
from selfreward.model_files.template_check import require_usable_template
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import ModelSection
from selfreward.records import Checkpoint, Message


def planned_model(section: ModelSection, *, key: str) -> Checkpoint:
    """Return the model of a recipe as far as it is here; nothing but configuration and tokenizer is downloaded.

    Weights that are here are checked as for a run. Without any the id is that of the folder. Raises RecipeError when
    there is not even a configuration.
    """
    folder = planned_folder(section, key=key)
    if has_weights(folder):
        return checkpoint_of(folder, iteration=0)
    return Checkpoint(hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16], folder, 0)


def planned_folder(section: ModelSection, *, key: str) -> Path:
    """Return the folder of `planned_model`, whose weights are not read. Raises RecipeError."""
    folder = _folder(section)
    if folder is None or has_weights(folder):
        here = section if folder is None else section.model_copy(update={"model": str(folder)})
        return materialise(here, key=key)
    require_usable_files(folder, section.model)
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"model {section.model!r}: config.json is missing in {folder}; a plan needs it; give the folder with "
            "config.json"
        )
    if has_tokenizer(folder):
        if section.chat_template is not None:
            folder = with_template(folder, section, key=key)
        require_usable_template(folder, section.model, key=key, variables=section.chat_template_kwargs)
    return folder


def planned_tokenizer(section: ModelSection, folder: Path) -> ChatTokenizer:
    """Return the model's tokenizer, or one that estimates lengths where the folder has none."""
    if has_tokenizer(folder):
        return ChatTokenizer.of(section, folder)
    return EstimatedTokenizer(folder, trust_remote_code=section.trust_remote_code)


@dataclass(frozen=True)
class PlannedContext:
    """The `workload.Tokenizer` of a model that no engine has loaded, with a context of at most `requested` tokens."""

    chat: ChatTokenizer
    requested: int

    @cached_property
    def context_tokens(self) -> int:
        return self.chat.context_tokens(self.requested)

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return self.chat.encode(messages, thinking=thinking)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return self.chat.encode_text(text)


def has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _folder(section: ModelSection) -> Path | None:
    """Return the folder of a model that lies in one; None for a model that is made here."""
    name = section.model
    if name.startswith(("random:", "package:")) or name.endswith(".gguf"):
        return None
    path = Path(name).expanduser()
    return path if path.is_dir() else from_hub(section, weights=False)
