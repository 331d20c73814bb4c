"""`models`: the models of a run by name. `initial` and `best` are always defined."""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from selfreward.recipe.paths import InputPath, NameOrPath
from selfreward.recipe.section import ENDPOINT_MODEL, LOCAL_MODEL, Changeable, Section


class LoraSection(Section):
    """Low-rank adapters (2106.09685) in all linear layers; merged at the end of each iteration into a plain model.

    `base_dtype`: how the frozen weights are stored while adapters train. `nf4` is QLoRA (2305.14314) and needs the
    extra `optimizers`; `auto` is bfloat16 where the GPU computes in it, and else float32. Merged weights do not have
    this rounding.
    """

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    base_dtype: Literal["auto", "float32", "bfloat16", "nf4"] = "auto"


TEMPLATE_VARIABLES: Final = frozenset({
    "messages", "conversation", "chat_template", "tools", "documents", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs",
})  # fmt: skip
"""Names of arguments that the program gives itself when it renders a chat template."""


class ModelSection(Section):
    """A model by name. `model`: hub id, local folder, .gguf file, package:NAME/FILE.gguf, or random:tiny.

    `chat_template`: for a base model, which has none, or instead of the model's own one: the path of a .jinja file,
    `chatml` (turns between <|im_start|> and <|im_end|>), or `plain` (User: and Assistant:, for tokenizers without such
    tokens). `chat_template_kwargs`: variables of the chat template, such as enable_thinking: false, in every prompt.
    """

    model: NameOrPath
    revision: str | None = None
    lora: LoraSection | None = None
    trust_remote_code: bool = False
    chat_template: Literal["chatml", "plain"] | InputPath | None = Field(None, union_mode="left_to_right")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, in every prompt of this model"
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_variables(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(TEMPLATE_VARIABLES & set(value)):
            raise ValueError(
                f"chat_template_kwargs: {', '.join(taken)} is set by the program itself; variables of the template, "
                "such as enable_thinking, are allowed; remove it"
            )
        if odd := [name for name in value if not name.isidentifier()]:
            raise ValueError(
                f"chat_template_kwargs: {odd[0]!r:.40} is not the name of a variable; names are letters, digits and _; "
                "correct it"
            )
        return value


class Price(Section):
    """Prices per million tokens, both in one currency."""

    prompt: float = Field(ge=0)
    generated: float = Field(ge=0)


class EndpointSection(Section):
    """A model behind an OpenAI-compatible server; it judges, and is never trained.

    `endpoint`: the server's base URL, usually ending in /v1. `api_key_env`: the environment variable with the key.
    `budget`: in the currency of `price`; a request that could exceed it is not sent, and the run stops. `timeout_s`:
    for a complete reply. `extra_body`: sent with each request; null leaves out a key that the server does not know.
    """

    endpoint: str
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    price: Price | None = None
    budget: float | None = Changeable(None, gt=0)
    max_concurrency: int = Changeable(16, ge=1)
    max_requests_per_minute: int | None = Changeable(None, ge=1)
    timeout_s: float = Changeable(120.0, gt=0)
    max_attempts: int = Changeable(8, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict, description="sent with each request, for this server")

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is not a number, or an unclosed bracket
            is_address = False
        if "@" in value or "?" in value or "#" in value:
            raise ValueError(
                "the URL contains a password or a query; a recipe must not contain secrets; use api_key_env"
            )
        if not is_address or any(char.isspace() for char in value):
            raise ValueError(f"{value!r} is not a URL; the form is http://HOST:PORT/v1; fix it")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variable(cls, value: str | None) -> str | None:
        """Refuse text that is not a variable's name, without repeating it: it may be a pasted key."""
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError(
                "api_key_env: the value is not the name of an environment variable, such as OPENAI_API_KEY; a recipe "
                "must not contain secrets; export the key and name its variable"
            )
        return value

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_question_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted({"messages", "model", "n", "stream", "stream_options"} & set(value)):
            raise ValueError(
                f"extra_body: {', '.join(taken)} would break the judge's request; other keys that the server knows are "
                "allowed; remove it"
            )
        return value

    @field_validator("budget")
    @classmethod
    def _budget_is_priced(cls, value: float | None, info: Any) -> float | None:
        if value is not None and info.data.get("price") is None:
            raise ValueError("without `price` no cost can be counted; add price: {prompt: ..., generated: ...}")
        return value

    @model_validator(mode="after")
    def _budget_is_bounded(self) -> "EndpointSection":
        limits = {self.extra_body.get(key) for key in ("max_tokens", "max_completion_tokens")}
        if self.budget is not None and "max_tokens" in self.extra_body and limits == {None}:
            raise ValueError(
                "extra_body: without max_tokens the cost of a reply is unbounded, and `budget` cannot be enforced; "
                "keep it"
            )
        return self


def _tag_of(value: Any) -> str:
    is_endpoint = "endpoint" in value if isinstance(value, dict) else isinstance(value, EndpointSection)
    return ENDPOINT_MODEL if is_endpoint else LOCAL_MODEL


_Models = Annotated[
    Annotated[ModelSection, Tag(LOCAL_MODEL)] | Annotated[EndpointSection, Tag(ENDPOINT_MODEL)], Discriminator(_tag_of)
]
NamedModel = Annotated[_Models, BeforeValidator(lambda value: {"model": value} if isinstance(value, str) else value)]
"""A section; a text is its `model`."""
