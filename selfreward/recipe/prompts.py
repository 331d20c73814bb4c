"""`prompts`: where prompts come from."""

from typing import Annotated, Literal

from pydantic import Field

from selfreward.recipe.section import Section


class _Prompts(Section):
    system_prompt: str | None = None


class BuiltinPrompts(_Prompts):
    """The varied prompts that ship with the package."""

    kind: Literal["builtin"]


class FilePrompts(_Prompts):
    """A JSONL or Parquet file; a row has `prompt` (text or a list of messages), perhaps `id`, `checks`, `reference`."""

    kind: Literal["file"]
    path: str
    column: str = "prompt"


class DatasetPrompts(_Prompts):
    """A dataset by the name that the `datasets` library loads."""

    kind: Literal["dataset"]
    name: str
    config: str | None = None
    split: str = "train"
    column: str = "prompt"
    revision: str | None = None


class VerifiablePrompts(_Prompts):
    """Generated prompts, topics times checks, each with its declarative checks; split by topic."""

    kind: Literal["verifiable"]
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1, description="null: every kind the generator knows")


PromptsSection = Annotated[
    BuiltinPrompts | FilePrompts | DatasetPrompts | VerifiablePrompts, Field(discriminator="kind")
]
