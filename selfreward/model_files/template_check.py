"""The check that a model's chat template renders conversations in limited time, memory and size.

A chat template is a program that others wrote: it may loop for ever or make a gigabyte of text, which nothing stops
within a process. So it is rendered once in a child process (`template_probe`), and trusted afterwards.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.model_files import template_probe
from selfreward.model_files.folder_check import MAX_TEMPLATE_BYTES
from selfreward.model_files.json_file import read_json_object, unreadable

MAX_CHARS = 2**20
MAX_WAIT_S = 120  # on a busy machine; the limit on its own time is template_probe.MAX_CPU_S
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def require_usable_template(
    folder: Path,
    name: str,
    *,
    key: str = "models.NAME",
    variables: Mapping[str, Any] | None = None,
    named: str | None = None,
) -> None:
    """Raise RecipeError when the folder's tokenizer has no chat template, or one that cannot be used.

    `key` is the model's key in the recipe, and `variables` are its `chat_template_kwargs`. `named` is
    where the user wrote the template, if it is not the model's own.
    """
    config_file = folder / "tokenizer_config.json"
    config = read_json_object(config_file) if config_file.is_file() else {}
    file, template = _template(folder, config)
    require_chat_template(template, name, key=key)
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE_BYTES:
        raise unreadable(
            file, f"its chat template is {type(template).__name__}, or longer than {MAX_TEMPLATE_BYTES:,} bytes"
        )
    given = json.dumps(dict(variables or {}), default=str)
    if found := _probed(template, tuple(sorted(_tokens(config).items())), given):
        raise RecipeError(
            f"model {name!r}: the chat template in {named or file}: {found}; it must render a conversation within "
            f"{template_probe.MAX_CPU_S} s and {MAX_CHARS:,} characters; correct it"
            f"{'' if named else ', or download the model again'}"
        )


def require_chat_template(template: Any, name: str, *, key: str = "models.NAME") -> None:
    if not template:
        raise RecipeError(
            f"model {name!r}: its tokenizer has no chat template, as that of a base model; prompts and judge templates "
            f"are conversations, so one is needed; set {key}.chat_template to chatml, plain or the path of a .jinja "
            "file, or use the instruct variant"
        )


def _template(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Any]:
    """Return the template that transformers uses, and its file: its own one, or that in tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file, file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise unreadable(file, str(error)) from error
    named = config.get("chat_template")
    if isinstance(named, list):
        named = {entry.get("name"): entry.get("template") for entry in named if isinstance(entry, dict)}
    return folder / "tokenizer_config.json", named.get("default") if isinstance(named, dict) else named


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a template may use. Those that are not set are given too, so that only
    transformers, which knows them all, refuses a template for one that is missing."""
    named = {key: value for key, value in config.items() if isinstance(key, str) and key.endswith("_token")}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: f"<{key}>" for key in _TOKENS} | {k: v for k, v in texts.items() if isinstance(v, str)}


@lru_cache
def _probed(template: str, tokens: tuple[tuple[str, str], ...], variables: str) -> str | None:
    """Render the template in a child process, with variables as JSON text; return what failed, or None."""
    request = json.dumps(
        {"template": template, "tokens": dict(tokens), "variables": json.loads(variables), "max_chars": MAX_CHARS}
    )
    # -P: the script's folder is not a place to import from.
    command = [sys.executable, "-P", template_probe.__file__]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=MAX_WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not end within {MAX_WAIT_S} s"
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it did not end within {template_probe.MAX_CPU_S} s"
    if done.returncode != 0:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else done.stderr.strip()[-200:]
        return f"rendering it ended the process ({how})"
    result = json.loads(done.stdout)
    return f"{result['failed']}: {result['error']}" if result["failed"] else None
