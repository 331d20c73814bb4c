"""Conversion of text to token ids and back for all engines, with the model's own tokenizer and chat template."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from selfreward.errors import ChatTemplateError, RecipeError
from selfreward.model_files.reading import reading_model
from selfreward.model_files.template_turns import has_tools, marked, template_turns
from selfreward.recipe import ModelSection
from selfreward.records import TOOL_CALLS, TOOLS, Message
from selfreward.store.model_folder import stamp_of
from selfreward.templates.blocks import encodable

# The variables in templates of thinking models; other templates ignore them.
_NO_THINKING = {"enable_thinking": False, "thinking": False}
_TAG = re.compile(r"[<\[|｜].{1,40}[>\]|｜]")
_OPENED_REASONING = re.compile(r"<((?:\w+:)?(?:think|thinking|thought|reasoning))>\s*\Z")
_SYSTEM_PROBE, _SAID = "Answer briefly.", "Understood-7261."
_USER = Message("user", "Hello")
_TAIL_TOKENS = 32  # more tokens than any such tag has


class ChatTokenizer:
    """The tokenizer of a model folder. It is loaded at first use, in about a second.

    `variables` are those of the chat template, in every conversation: the `chat_template_kwargs` of the model.
    """

    def __init__(
        self, folder: Path, *, trust_remote_code: bool = False, variables: Mapping[str, Any] | None = None
    ) -> None:
        self._folder = folder
        self._trust_remote_code = trust_remote_code
        self._variables = dict(variables or {})

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, which loads the tokenizer itself: its class may be code of the model."""
        return {key: value for key, value in vars(self).items() if key != "_tokenizer"}

    @classmethod
    def of(cls, section: ModelSection, folder: Path) -> "ChatTokenizer":
        """Return the tokenizer of a model of the recipe, which lies in `folder`."""
        return cls(folder, trust_remote_code=section.trust_remote_code, variables=section.chat_template_kwargs)

    @cached_property
    def _tokenizer(self) -> Any:
        return _loaded(self._folder, self._trust_remote_code, stamp_of(self._folder))

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

        Where the template has no system role, the system turn is put before the first user turn; where it has no
        generation prompt, what it writes before the text of an assistant is appended. `thinking=False` wins over the
        model's variables.
        """
        ids = tuple(self._rendered(messages, tokenize=True, variables={} if thinking else _NO_THINKING))
        return ids if thinking else (*ids, *self._closing(ids))

    def encode_finished(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids of a conversation that ends with what the assistant said. Raises ChatTemplateError."""
        return tuple(self._rendered(messages, tokenize=True, finished=True))

    @property
    def max_length(self) -> int:
        """The maximum length that the tokenizer states; a huge number where it states none."""
        return int(self._tokenizer.model_max_length)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of which `encode` returns the tokens. Raises ChatTemplateError."""
        return str(self._rendered(messages, tokenize=False))

    @property
    def template(self) -> str:
        """The source of the chat template, of all of them when there are several."""
        return str(self._tokenizer.chat_template)

    @cached_property
    def has_system_role(self) -> bool:
        """Whether the template renders a system turn: some refuse it or leave it out."""
        turns = (Message("system", _SYSTEM_PROBE), _USER)
        try:
            return _SYSTEM_PROBE in str(self._applied(turns, tokenize=False, add_generation_prompt=False))
        except Exception:  # noqa: BLE001 a template is a program, which may raise anything
            return False

    @cached_property
    def has_generation_prompt(self) -> bool:
        """Whether the template itself ends where the assistant begins, by a generation prompt or without needing one.

        Raises ChatTemplateError when it has none, and does not render what an assistant says either.
        """
        try:
            asked, plain = (
                self._applied((_USER,), tokenize=False, add_generation_prompt=flag) for flag in (True, False)
            )
        except Exception:  # noqa: BLE001 whoever encodes a conversation gets the reason
            return True
        return bool(asked != plain or self._before_assistant((_USER,)).rstrip() == plain.rstrip())

    @cached_property
    def turn_end(self) -> str:
        """What the template writes after the text of an assistant, up to white space; "" when that is not known."""
        try:
            text = self._applied((_USER, Message("assistant", _SAID)), tokenize=False, add_generation_prompt=False)
        except Exception:  # noqa: BLE001 a template may refuse it
            return ""
        return next(iter(str(text).rpartition(_SAID)[2].split()), "") if _SAID in text else ""

    @property
    def turn_end_id(self) -> int | None:
        """The token that begins `turn_end`, if it is one that the tokenizer never splits."""
        first = next(iter(self.encode_text(self.turn_end)), None)
        return first if first in self._tokenizer.added_tokens_decoder else None

    def _rendered(
        self,
        messages: Sequence[Message],
        *,
        tokenize: bool,
        variables: Mapping[str, Any] | None = None,
        finished: bool = False,
    ) -> Any:
        if messages and messages[0].role == "system" and not self.has_system_role:
            messages = merged_system_turn(messages)
        try:
            if finished:
                found = self._applied(messages, tokenize=tokenize, add_generation_prompt=False)
            elif self.has_generation_prompt:
                found = self._applied(messages, tokenize=tokenize, variables=variables)
            else:
                found = self._before_assistant(messages, variables)
                found = self.encode_text(found) if tokenize else found
            if has_tools(messages):
                self._require_all(messages)
        except ChatTemplateError:
            raise
        except Exception as error:  # a template is a program, which may raise anything
            roles = ", ".join(message.role for message in messages) or "none"
            raise ChatTemplateError(
                f"conversation with the turns {roles}: the model's chat template cannot render it ({error}); "
                "only turns that the template supports are allowed; change the roles, the system prompt or the model"
            ) from error
        return found

    def _before_assistant(self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None) -> str:
        """Return the text of a conversation up to what an assistant would say next."""
        turns = (*messages, Message("assistant", _SAID))
        try:
            text = self._applied(turns, tokenize=False, add_generation_prompt=False, variables=variables)
            if _SAID not in text:
                raise ValueError("it leaves the text of an assistant out")
        except Exception as error:  # a template is a program, which may raise anything
            raise ChatTemplateError(
                f"the model's chat template has no generation prompt, nor the turn of an assistant ({error}); where a "
                "response begins must be known; set chat_template of this model to one with add_generation_prompt"
            ) from error
        return str(text).rpartition(_SAID)[0].rstrip(" ")  # a space there belongs to the first token of the text

    def _require_all(self, messages: Sequence[Message]) -> None:
        """Raise ChatTemplateError when the template leaves a part of a conversation with tools out, as many do."""
        turns, marks = marked(messages)
        text = str(self._applied(turns, tokenize=False))
        if (missing := next((what for mark, what in marks.items() if mark not in text), None)) is not None:
            raise ChatTemplateError(
                f"conversation with tools: the model's chat template leaves {missing} out; a conversation must be "
                "rendered whole; use a model whose template supports tools, or remove the row"
            )

    def _applied(
        self,
        messages: Sequence[Message],
        *,
        tokenize: bool,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the template; it may raise anything. A few templates take the arguments of a tool call only as text."""
        options = {**self._variables, **(variables or {})}

        def apply(*, arguments_as_text: bool) -> Any:
            turns, tools = template_turns(messages, arguments_as_text=arguments_as_text)
            offered = {} if tools is None else {"tools": tools}
            return self._tokenizer.apply_chat_template(
                turns, tokenize=tokenize, add_generation_prompt=add_generation_prompt, return_dict=False,
                **options, **offered,
            )  # fmt: skip

        try:
            return apply(arguments_as_text=False)
        except Exception:  # a template is a program, which may raise anything
            if not any(message.role == TOOL_CALLS for message in messages):
                raise
            return apply(arguments_as_text=True)

    def _closing(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens that close a thinking block which the template itself opened, as some always do."""
        tail = self._tokenizer.decode(list(ids[-_TAIL_TOKENS:]), clean_up_tokenization_spaces=False)
        opened = _OPENED_REASONING.search(str(tail))
        return self.encode_text(f"\n</{opened[1]}>\n\n") if opened else ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text, without special tokens."""
        return tuple(self._tokenizer.encode(encodable(text), add_special_tokens=False))

    def added_token_id(self, text: str) -> int | None:
        """Return the token that is spelt like this and never split; None when there is none."""
        token_ids = self.encode_text(text)
        is_added = len(token_ids) == 1 and token_ids[0] in self._tokenizer.added_tokens_decoder
        return token_ids[0] if is_added else None

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of any ids: special tokens left out, invalid UTF-8 as U+FFFD."""
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def merged_system_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the conversation with its system turn, if it begins with one, put before the first user turn."""
    offered = [message for message in messages[1:] if message.role == TOOLS]
    turns = [message for message in messages if message.role != TOOLS]
    if len(turns) < 2 or (turns[0].role, turns[1].role) != ("system", "user"):
        return tuple(messages)
    system, user, *rest = turns
    return (*offered, Message("user", f"{system.content}\n\n{user.content}"), *rest)


@lru_cache(maxsize=8)
def _loaded(folder: Path, trust_remote_code: bool, stamp: str) -> Any:
    """Load a tokenizer once while its files, of which `stamp` is made, stay the same."""
    from transformers import AutoTokenizer

    with reading_model(f"model {folder}: its tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
