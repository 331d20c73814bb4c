"""`prompts`: the source of prompts."""

from typing import Annotated, Literal

from pydantic import Field

from selfreward.recipe.section import Section


class _Prompts(Section):
    system_prompt: str | None = None


class BuiltinPrompts(_Prompts):
    """The varied prompts included in the package."""

    kind: Literal["builtin"]


class FilePrompts(_Prompts):
    """A JSONL or Parquet file; a row has `prompt` (text or a list of messages) and optionally `id`, `checks`,
    `reference`."""

    kind: Literal["file"]
    path: str
    column: str = "prompt"


class DatasetPrompts(_Prompts):
    """A dataset, by its name in the `datasets` library."""

    kind: Literal["dataset"]
    name: str
    config: str | None = None
    split: str = "train"
    column: str = "prompt"
    revision: str | None = None


class VerifiablePrompts(_Prompts):
    """Generated prompts with declarative checks, one for each combination of topic and checks; split by topic."""

    kind: Literal["verifiable"]
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1, description="null: every kind that the generator has")


class FactsPrompts(_Prompts):
    """Short questions about facts, each with a check of its answer; split by entity. `topics: null` is all."""

    kind: Literal["facts"]
    topics: list[Literal["capital", "state_capital", "continent", "symbol", "opposite"]] | None = Field(
        None, min_length=1
    )


PromptsSection = Annotated[
    BuiltinPrompts | FilePrompts | DatasetPrompts | VerifiablePrompts | FactsPrompts, Field(discriminator="kind")
]
