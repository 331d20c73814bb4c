"""The questions that a run's judge was asked, rendered again from its recipe, its template and its stored records."""

from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar

from selfreward import recipe_file
from selfreward.errors import StoreError
from selfreward.judging.client import JudgeInput
from selfreward.judging.generative import score_messages
from selfreward.recipe import AdditiveSection
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.store import Store
from selfreward.tables import INITIAL_RESPONSES, JUDGMENTS, PROMPTS, RESPONSES, Table
from selfreward.templates import Template

R = TypeVar("R")

_NO_RECIPE = "the recipe of the iteration cannot be read, so the judge's question is unknown"
_NO_RECORDS = "their judgments or responses are not stored, so the judge's question is unknown"
_OWN_RESPONSE = "the judge's own response (commit_first) is part of its question, and is not stored"
_OTHER_TEMPLATE = "the judge's template is another one in this version, so its question is unknown"


class JudgeQuestions:
    """The questions of one iteration; records are read at first use."""

    def __init__(self, store: Store, iteration: int) -> None:
        self._store = store
        self._iteration = iteration

    def about(self, judgment_id: str) -> tuple[Message, ...] | str:
        """Return the question that this judgment replies to, or the reason why it is unknown."""
        judgment = self._judgments.get(judgment_id)
        response = self._responses.get(judgment.response_id) if judgment else None
        if judgment is None or response is None:
            return _NO_RECORDS
        section = self._section
        if section is None:
            return _NO_RECIPE
        template = Template.load(section.kind)
        if judgment.template_sha256 != template.sha256:
            return _OTHER_TEMPLATE
        if section.commit_first is not None:
            return _OWN_RESPONSE
        prompt = self._prompts[judgment.prompt_id]
        about = JudgeInput(prompt.messages, reference=prompt.reference if section.reference_answer else None)
        return score_messages(template, section, about, response)

    @cached_property
    def _section(self) -> AdditiveSection | None:
        """The judge of the iteration, after its interventions; None when it cannot be read."""
        try:
            recipe = recipe_file.load_stored(self._store.folder / f"iteration-{self._iteration:02d}" / "recipe.yaml")
        except StoreError:
            return None
        return recipe.judging if isinstance(recipe.judging, AdditiveSection) else None

    @cached_property
    def _judgments(self) -> dict[str, Judgment]:
        return {judgment.id: judgment for judgment in self._stored(JUDGMENTS)}

    @cached_property
    def _responses(self) -> dict[str, Response]:
        return {response.id: response for table in (RESPONSES, INITIAL_RESPONSES) for response in self._stored(table)}

    @cached_property
    def _prompts(self) -> dict[str, Prompt]:
        return {prompt.id: prompt for prompt in self._stored(PROMPTS)}

    def _stored(self, table: Table[R]) -> Iterator[R]:
        return self._store.read(self._iteration, table) if self._store.has(self._iteration, table) else iter(())
