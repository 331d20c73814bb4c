"""A random sample of an iteration's pairs for display: the prompt, both sides, and their judgments."""

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
class ShownJudgment:
    """One judgment of a sampled response; exactly one of `score` and `unscored` is set.

    `part` names a criterion or an ensemble member. With `other_id` the score is the probability that the response is
    preferred to that one, and `is_first` is true if it was shown first.
    """

    judge: str
    part: str
    score: float | None
    unscored: str | None
    text: Clipped
    other_id: str = ""
    is_first: bool = False


@dataclass(frozen=True)
class PairSide:
    """One side of a pair. `draws` are a few judgments, those without a part first; `num_left_out` counts the others.

    `num_own` counts all judgments without a part. In a pair of judgments `score` is the Elo rating, and `given_score`
    the score that the judgment gave to the response.
    """

    text: Clipped
    score: float
    num_tokens: int
    draws: tuple[ShownJudgment, ...] = ()
    num_own: int = 0
    num_left_out: int = 0
    is_initial: bool = False
    given_score: float | None = None

    @property
    def own_draws(self) -> tuple[ShownJudgment, ...]:
        return tuple(draw for draw in self.draws if not draw.part)


@dataclass(frozen=True)
class SamplePair:
    """A preference pair; `turns` are (role, text) of the last turns of its prompt.

    For a pair of judgments, `judged` is the judged response.
    """

    id: str
    kind: Literal["response", "judgment"]
    turns: tuple[tuple[str, Clipped], ...]
    num_turns_left_out: int
    chosen: PairSide
    rejected: PairSide
    margin: float
    weight: float = 1.0
    label: float = 1.0
    judged: Clipped | None = None


class RandomPairSample:
    """A random sample of pairs of both kinds: the pairs with the smallest hashes, independent of their order."""

    def __init__(self, iteration: int) -> None:
        self._iteration = iteration
        self._max_pairs = {"response": NUM_RESPONSE_PAIRS, "judgment": NUM_JUDGMENT_PAIRS}
        self._sampled: dict[str, list[tuple[int, int, PreferencePair]]] = {kind: [] for kind in self._max_pairs}
        self._num_added = 0

    def add(self, pair: PreferencePair) -> None:
        sampled = self._sampled[pair.kind]
        self._num_added += 1  # A unique tie-breaker, so that two pairs are never compared.
        heapq.heappush(sampled, (-seed_of(0, self._iteration, "report", pair.id), self._num_added, pair))
        if len(sampled) > self._max_pairs[pair.kind]:
            heapq.heappop(sampled)

    def pairs(self) -> list[PreferencePair]:
        """Return the sampled pairs, pairs of responses first."""
        return [pair for sampled in self._sampled.values() for _, _, pair in sorted(sampled, reverse=True)]


@dataclass(frozen=True)
class Sources:
    """The records that the sampled pairs refer to, by id; `judgments_of` is keyed by the id of a response."""

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

    def _side(self, kind: str, side_id: str, text: str, score: float, token_ids: Sequence[int]) -> PairSide:
        if kind == "judgment":
            judgment = self.judgments.get(side_id)
            given_score = judgment.score if judgment else None
            return PairSide(clip(text, _MAX_RESPONSE), score, len(token_ids), given_score=given_score)
        about = sorted(self.judgments_of.get(side_id, ()), key=lambda j: (bool(j.part), j.draw, j.part))
        own = [judgment for judgment in about if not judgment.part]
        shown = [*own[:_MAX_DRAWS], *about[len(own) :][:_MAX_DRAWS]]
        return PairSide(
            text=clip(text, _MAX_RESPONSE),
            score=score,
            num_tokens=len(token_ids),
            draws=tuple(map(_shown_judgment, shown)),
            num_own=len(own),
            num_left_out=len(about) - len(shown),
            is_initial=side_id in self.initial_ids,
        )


def _last(messages: Sequence[Message]) -> tuple[tuple[str, Clipped], ...]:
    """Return the last turns of a conversation, which the responses answer most directly."""
    last = messages[-_MAX_TURNS:]
    max_shown = _MAX_PROMPT // max(1, len(last))
    return tuple((message.role, clip(message.content, max_shown)) for message in last)


def _shown_judgment(judgment: Judgment) -> ShownJudgment:
    return ShownJudgment(
        judge=judgment.judge,
        part=judgment.part,
        score=judgment.score,
        unscored=judgment.unscored,
        text=clip(judgment.text, _MAX_JUDGMENT),
        other_id=judgment.other_id,
        is_first=judgment.shown_first == judgment.response_id,
    )


def wanted_ids(pairs: Iterable[PreferencePair], kind: str) -> set[str]:
    """Return the ids of both sides of all pairs of a kind."""
    return {side_id for pair in pairs if pair.kind == kind for side_id in (pair.chosen_id, pair.rejected_id)}
