"""`prompts`: the source of prompts. A text instead of a section names a file, a folder, or a dataset."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from selfreward.recipe.paths import InputPath, NameOrPath, base_of, existing_path, looks_like_a_path
from selfreward.recipe.section import Changeable, Section

FORMATS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")
COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst")
FILE_DROPPED_RATE: Final = 0.02
DATASET_DROPPED_RATE: Final = 0.1


def format_of(name: str) -> str:
    """Return the suffix that says how a file is read, without that of a compression; "" for an unknown one."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        kind = suffixes[-2] if len(suffixes) > 1 else ""
        return kind if kind in FORMATS and kind != ".parquet" else ""
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ""


class _Prompts(Section):
    """`max_dropped_rate` limits the share of the rows read, and of the prompts tried, that are dropped because no
    response can be given to them; repeated prompts do not count."""

    system_prompt: str | None = None
    max_dropped_rate: float = Changeable(DATASET_DROPPED_RATE, ge=0, le=1)


class BuiltinPrompts(_Prompts):
    """The varied prompts included in the package."""

    kind: Literal["builtin"]


class Columns(Section):
    """Names of columns, for rows of another shape than those that are found (docs/data.md). Null: found.

    `input` and `system` are a text that follows the prompt and a system prompt of the row. `answer` is the correct
    final answer; it becomes a check.
    """

    prompt: str | None = None
    input: str | None = None
    system: str | None = None
    reference: str | None = None
    answer: str | None = None
    id: str | None = None


AnswerCheck = Literal["auto", "numeric", "exact", "math"]


class _Rows(_Prompts):
    """`column` is another name for `columns.prompt`. `answer_check` is the kind of check that an answer becomes."""

    column: str | None = None
    columns: Columns = Columns()
    answer_check: AnswerCheck = "auto"

    @model_validator(mode="after")
    def _prompt_is_named_once(self) -> "_Rows":
        if self.column is not None and self.columns.prompt not in (None, self.column):
            raise ValueError(
                f"column: {self.column} and columns.prompt: {self.columns.prompt} name two columns; the two keys mean "
                "the same; remove one"
            )
        return self

    @property
    def named_columns(self) -> Columns:
        return self.columns.model_copy(update={"prompt": self.columns.prompt or self.column})


class FilePrompts(_Rows):
    """A file of rows or of lines, or a folder of such files; docs/data.md lists formats and shapes of rows.

    A file is its owner's to correct: one bad row in fifty is more likely a mistake than a kind of row, and a smaller
    file with a bad row is refused at once. A public dataset is nobody's to correct; one row in ten is allowed, and
    beyond that a wrong column is more likely.
    """

    kind: Literal["file"]
    path: InputPath = Field(min_length=1)
    max_dropped_rate: float = Changeable(FILE_DROPPED_RATE, ge=0, le=1)


class DatasetPrompts(_Rows):
    """A dataset, by its name in the `datasets` library: of the hub, or a folder."""

    kind: Literal["dataset"]
    name: NameOrPath = Field(min_length=1)
    config: str | None = None
    split: str = "train"
    revision: str | None = None


class VerifiablePrompts(_Prompts):
    """Generated prompts with declarative checks, one for each combination of topic and checks; split by topic."""

    kind: Literal["verifiable"]
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1, description="null: every kind that the generator has")


FactTopic = Literal["capital", "continent", "language", "symbol", "opposite", "plural"]


class FactsPrompts(_Prompts):
    """Short questions about facts, each with a check of its answer; split by entity. `topics: null` is all."""

    kind: Literal["facts"]
    topics: list[FactTopic] | None = Field(None, min_length=1)


SHORT: Final = "short"
"""The key of the text for which a section stands, where a recipe has a text and an override sets a key beside it."""


def _section(value: Any, info: ValidationInfo) -> Any:
    """Return the section that a text stands for: a path when it is one or looks like one, else a dataset's name."""
    if isinstance(value, dict) and isinstance(text := value.get(SHORT), str):
        return {**_section(text, info), **{key: item for key, item in value.items() if key != SHORT}}
    if not isinstance(value, str):
        return value
    if value in ("builtin", "verifiable", "facts"):
        return {"kind": value}
    exists = existing_path(value, base_of(value, info)) or existing_path(value)
    if not value or format_of(value) or looks_like_a_path(value) or exists:
        return {"kind": "file", "path": value}
    return {"kind": "dataset", "name": value}


_Sections = Annotated[
    BuiltinPrompts | FilePrompts | DatasetPrompts | VerifiablePrompts | FactsPrompts, Field(discriminator="kind")
]
PromptsSection = Annotated[_Sections, BeforeValidator(_section, json_schema_input_type=_Sections | str)]
