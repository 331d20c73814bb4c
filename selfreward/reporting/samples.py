"""A few pairs of an iteration as people look at them: what was asked, both sides, and what the judge said of them."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from selfreward.records import Judgment, Message, PreferencePair, Prompt
from selfreward.reporting.text import Clipped, clip
from selfreward.seeding import seed_of

NUM_RESPONSE_PAIRS = 4
NUM_JUDGMENT_PAIRS = 1
_MAX_PROMPT = 1200
_MAX_TURNS = 6
_MAX_RESPONSE = 2000
_MAX_JUDGMENT = 600
_MAX_DRAWS = 3


@dataclass(frozen=True)
class JudgedDraw:
    """One draw of a judge on a sampled response; exactly one of `score` and `unscored` is set.

    `part` names a criterion or a member. With `other_id` the score is the probability that the response is the better
    one of the two; `is_first`: it was shown before the other.
    """

    judge: str
    part: str
    score: float | None
    unscored: str | None
    text: Clipped
    other_id: str = ""
    is_first: bool = False


@dataclass(frozen=True)
class SampledText:
    """One side of a pair. `draws` are a few judgments, the judge's own first; `num_left_out` counts the others.

    `num_own` counts all of the judge's own. Of a pair of judgments `score` is the Elo, and `given` what the judgment
    gave to the response.
    """

    text: Clipped
    score: float
    num_tokens: int
    draws: tuple[JudgedDraw, ...] = ()
    num_own: int = 0
    num_left_out: int = 0
    is_initial: bool = False
    given: float | None = None

    @property
    def own_draws(self) -> tuple[JudgedDraw, ...]:
        return tuple(draw for draw in self.draws if not draw.part)


@dataclass(frozen=True)
class SamplePair:
    """A preference pair; `turns` are (role, text) of the last turns of its prompt.

    `judged` is the response that a pair of judgments is about.
    """

    id: str
    kind: Literal["response", "judgment"]
    turns: tuple[tuple[str, Clipped], ...]
    num_turns_left_out: int
    chosen: SampledText
    rejected: SampledText
    margin: float
    weight: float = 1.0
    label: float = 1.0
    judged: Clipped | None = None


class Draw:
    """Draws pairs of both kinds at random: those with the smallest hashes, in whatever order the pairs come."""

    def __init__(self, iteration: int) -> None:
        self._iteration = iteration
        self._most = {"response": NUM_RESPONSE_PAIRS, "judgment": NUM_JUDGMENT_PAIRS}
        self._drawn: dict[str, list[tuple[int, int, PreferencePair]]] = {kind: [] for kind in self._most}
        self._seen = 0

    def offer(self, pair: PreferencePair) -> None:
        drawn = self._drawn[pair.kind]
        self._seen += 1  # Differs always, so that two pairs are never compared.
        heapq.heappush(drawn, (-seed_of(0, self._iteration, "report", pair.id), self._seen, pair))
        if len(drawn) > self._most[pair.kind]:
            heapq.heappop(drawn)

    def drawn(self) -> list[PreferencePair]:
        """Pairs of responses first."""
        return [pair for drawn in self._drawn.values() for _, _, pair in sorted(drawn, reverse=True)]


@dataclass(frozen=True)
class Sources:
    """What the drawn pairs refer to, by id; `judgments_of` by the id of a response."""

    prompts: Mapping[str, Prompt]
    judgments_of: Mapping[str, Sequence[Judgment]]
    judgments: Mapping[str, Judgment]
    response_texts: Mapping[str, str]
    initial_ids: frozenset[str]

    def sample(self, pair: PreferencePair) -> SamplePair:
        prompt = self.prompts.get(pair.prompt_id)
        messages = prompt.messages if prompt is not None else ()
        turns = _last(messages)
        return SamplePair(
            id=pair.id,
            kind=pair.kind,
            turns=turns,
            num_turns_left_out=len(messages) - len(turns),
            chosen=self._side(pair.kind, pair.chosen_id, pair.chosen_text, pair.chosen_score, pair.chosen_token_ids),
            rejected=self._side(
                pair.kind, pair.rejected_id, pair.rejected_text, pair.rejected_score, pair.rejected_token_ids
            ),
            margin=pair.margin,
            weight=pair.weight,
            label=pair.label,
            judged=self._judged(pair) if pair.kind == "judgment" else None,
        )

    def _judged(self, pair: PreferencePair) -> Clipped | None:
        judgment = self.judgments.get(pair.chosen_id)
        text = self.response_texts.get(judgment.response_id) if judgment else None
        return None if text is None else clip(text, _MAX_RESPONSE)

    def _side(self, kind: str, side_id: str, text: str, score: float, token_ids: Sequence[int]) -> SampledText:
        if kind == "judgment":
            judgment = self.judgments.get(side_id)
            given = judgment.score if judgment else None
            return SampledText(clip(text, _MAX_RESPONSE), score, len(token_ids), given=given)
        about = sorted(self.judgments_of.get(side_id, ()), key=lambda j: (bool(j.part), j.draw, j.part))
        own = [judgment for judgment in about if not judgment.part]
        shown = [*own[:_MAX_DRAWS], *about[len(own) :][:_MAX_DRAWS]]
        return SampledText(
            text=clip(text, _MAX_RESPONSE),
            score=score,
            num_tokens=len(token_ids),
            draws=tuple(map(_draw, shown)),
            num_own=len(own),
            num_left_out=len(about) - len(shown),
            is_initial=side_id in self.initial_ids,
        )


def _last(messages: Sequence[Message]) -> tuple[tuple[str, Clipped], ...]:
    """Of a long conversation the last turns are shown: they are what was responded to."""
    last = messages[-_MAX_TURNS:]
    max_shown = _MAX_PROMPT // max(1, len(last))
    return tuple((message.role, clip(message.content, max_shown)) for message in last)


def _draw(judgment: Judgment) -> JudgedDraw:
    return JudgedDraw(
        judge=judgment.judge,
        part=judgment.part,
        score=judgment.score,
        unscored=judgment.unscored,
        text=clip(judgment.text, _MAX_JUDGMENT),
        other_id=judgment.other_id,
        is_first=judgment.shown_first == judgment.response_id,
    )


def wanted_ids(pairs: Iterable[PreferencePair], kind: str) -> set[str]:
    """Both sides of the pairs of a kind."""
    return {side_id for pair in pairs if pair.kind == kind for side_id in (pair.chosen_id, pair.rejected_id)}
