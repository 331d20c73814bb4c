"""A model folder with another chat template: the recipe's `chat_template`, for base models, which have none.

The folder lies in the cache; its weights are links to the model's own. Every checkpoint of a run has the files of this
folder, so whoever loads the trained model gets the template with it, and the token that ends a turn.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from selfreward.errors import RecipeError
from selfreward.model_files.cache import cached_folder
from selfreward.model_files.folder_check import MAX_TEMPLATE_BYTES
from selfreward.model_files.json_file import read_json_object
from selfreward.model_files.template_check import require_usable_template
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import ModelSection
from selfreward.store.model_folder import WEIGHTS, entries, stamp_of

BUILTIN: Final = ("chatml", "plain")
_TEMPLATE, _CONFIG, _GENERATION = "chat_template.jinja", "tokenizer_config.json", "generation_config.json"


def with_template(folder: Path, section: ModelSection, *, key: str) -> Path:
    """Return a copy of the model's folder with the template of `section.chat_template`, which is not None.

    `key` names the model in the recipe, for messages. Raises RecipeError for a template that cannot be read or used.
    """
    text = template_text(section, key=key)
    identity = f"{folder.resolve()}\x1f{stamp_of(folder)}\x1f{text}\x1f{section.chat_template_kwargs!r}"
    write = partial(_write, source=folder.resolve(), template=text, section=section, key=key)
    return cached_folder(f"template-{hashlib.sha256(identity.encode()).hexdigest()[:32]}", write)


def template_text(section: ModelSection, *, key: str) -> str:
    """Return the text of a built-in template or of a file. Raises RecipeError."""
    name = str(section.chat_template)
    if name in BUILTIN:
        return (files("selfreward.model_files") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    try:
        if (size := path.stat().st_size) > MAX_TEMPLATE_BYTES or not path.is_file():
            raise ValueError(f"it has {size:,} bytes, or is no file; up to {MAX_TEMPLATE_BYTES:,} bytes are allowed")
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise ValueError("it is empty")
        return text
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"{key}.chat_template: {name}: {getattr(error, 'strerror', None) or error}; allowed is the path of a "
            f".jinja file, or {' or '.join(BUILTIN)}; correct it"
        ) from error


def _write(folder: Path, *, source: Path, template: str, section: ModelSection, key: str) -> None:
    for path in entries(source):
        if path.parent != source:  # the model's other templates would be found before this one
            continue
        if path.suffix == WEIGHTS:
            (folder / path.name).symlink_to(path.resolve())
        elif path.is_file() and path.name != "chat_template.json":
            shutil.copyfile(path, folder / path.name)
    (folder / _TEMPLATE).write_text(template, encoding="utf-8")
    _edit(folder / _CONFIG, lambda config: config.pop("chat_template", None))
    named = f"{key}.chat_template, {section.chat_template}"
    require_usable_template(folder, section.model, key=key, variables=section.chat_template_kwargs, named=named)
    _add_turn_end(folder, ChatTokenizer.of(section, folder))


def _add_turn_end(folder: Path, tokenizer: ChatTokenizer) -> None:
    """Add the token with which the template ends an assistant's turn to those that end a response, in any engine."""
    found = tokenizer.turn_end_id
    if found is None or found in (ids := tokenizer.end_token_ids):
        return
    file = folder / _GENERATION
    if not file.is_file():
        file.write_text("{}", encoding="utf-8")
    _edit(file, lambda config: config.update(eos_token_id=sorted({*ids, found})))


def _edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    if file.is_file():
        content = read_json_object(file)
        change(content)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
