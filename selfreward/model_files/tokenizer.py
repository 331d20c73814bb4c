"""Conversion of text to token ids and back for all engines, with the model's own tokenizer and chat template."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from selfreward.errors import ChatTemplateError, RecipeError
from selfreward.model_files.reading import reading_model
from selfreward.records import Message

# The variable in templates of thinking models; other templates ignore it.
_NO_THINKING = {"enable_thinking": False}
_TAG = re.compile(r"[<\[|｜].{1,40}[>\]|｜]")
_OPENED_REASONING = re.compile(r"<((?:\w+:)?(?:think|thinking|thought|reasoning))>\s*\Z")
_SYSTEM_PROBE = "Answer briefly."
_TAIL_TOKENS = 32  # more tokens than any such tag has


class ChatTokenizer:
    """The tokenizer of a model folder. It is loaded at first use, in about a second."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        self._folder = folder
        self._trust_remote_code = trust_remote_code

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        with reading_model(f"model {self._folder}: its tokenizer"):
            return AutoTokenizer.from_pretrained(self._folder, trust_remote_code=self._trust_remote_code)

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the tokenizer's end token and those of the generation config; sorted."""
        from transformers import GenerationConfig

        ids = {self._tokenizer.eos_token_id} - {None}
        if (self._folder / "generation_config.json").is_file():
            with reading_model(f"model {self._folder}: generation_config.json"):
                found = GenerationConfig.from_pretrained(self._folder).eos_token_id
                more = found if isinstance(found, list) else [] if found is None else [found]
                if not all(type(token_id) is int for token_id in more):
                    raise ValueError(f"eos_token_id is {found!r:.60}, not a token id or a list of them")
                ids.update(more)
        if not ids:
            raise RecipeError(
                f"model {self._folder}: it has no end token; a chat model needs one to end a response; "
                "set eos_token in its tokenizer_config.json"
            )
        return tuple(sorted(ids))

    def context_tokens(self, requested: int) -> int:
        """Return `requested`, or the model's maximum number of positions if that is smaller."""
        from transformers import AutoConfig

        with reading_model(f"model {self._folder}: config.json"):
            config = AutoConfig.from_pretrained(self._folder, trust_remote_code=self._trust_remote_code)
            positions = getattr(config.get_text_config(), "max_position_embeddings", None)
            if positions is None:
                return requested
            if positions < 1:
                raise ValueError(f"max_position_embeddings is {positions}")
            return min(requested, int(positions))

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Added tokens that a text could contain: special tokens, and tokens that look like a tag."""
        added = self._tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special or _TAG.fullmatch(token.content)}))

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        """Return the token ids of a conversation, up to the start of the assistant's turn. Raises ChatTemplateError.

        Where the template has no system role, the system turn is put before the first user turn.
        """
        ids = self._rendered(messages, tokenize=True, return_dict=False, **({} if thinking else _NO_THINKING))
        return tuple(ids) if thinking else (*ids, *self._closing(ids))

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of which `encode` returns the tokens. Raises ChatTemplateError."""
        return str(self._rendered(messages, tokenize=False))

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether the template renders a system turn: some refuse it, some leave it out."""
        turn, user = {"role": "system", "content": _SYSTEM_PROBE}, {"role": "user", "content": "Hello"}
        try:
            return _SYSTEM_PROBE in self._tokenizer.apply_chat_template([turn, user], tokenize=False)
        except Exception:  # noqa: BLE001 a template is a program, which may raise anything
            return False

    def _rendered(self, messages: Sequence[Message], **options: Any) -> Any:
        if messages and messages[0].role == "system" and not self._has_system_role:
            messages = merged_system_turn(messages)
        conversation = [{"role": message.role, "content": _encodable(message.content)} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True, **options)
        except Exception as error:  # a template is a program, which may raise anything
            roles = ", ".join(message.role for message in messages) or "none"
            raise ChatTemplateError(
                f"conversation with the turns {roles}: the model's chat template cannot render it ({error}); "
                "only turns that the template supports are allowed; change the roles, the system prompt or the model"
            ) from error

    def _closing(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens that close a thinking block which the template itself opened, as some always do."""
        tail = self._tokenizer.decode(list(ids[-_TAIL_TOKENS:]), clean_up_tokenization_spaces=False)
        opened = _OPENED_REASONING.search(str(tail))
        return self.encode_text(f"\n</{opened[1]}>\n\n") if opened else ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text, without special tokens."""
        return tuple(self._tokenizer.encode(_encodable(text), add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of any ids: special tokens left out, invalid UTF-8 as U+FFFD."""
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def merged_system_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the conversation with its system turn, if it begins with one, put before the first user turn."""
    if len(messages) < 2 or (messages[0].role, messages[1].role) != ("system", "user"):
        return tuple(messages)
    system, user, *rest = messages
    return (Message("user", f"{system.content}\n\n{user.content}"), *rest)


def _encodable(text: str) -> str:
    """Replace lone surrogates, legal in JSON but not in UTF-8, by a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
