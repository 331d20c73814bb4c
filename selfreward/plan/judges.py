"""What each kind of judge asks about responses, at most: the counterpart of `judging/`, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from selfreward import recipe
from selfreward.judging.comparing import LETTERS
from selfreward.judging.constitution import read_principles
from selfreward.judging.expected_score import WORDINGS
from selfreward.judging.written import SCHEMA
from selfreward.parts import ChatRequest
from selfreward.plan.lengths import Lengths
from selfreward.plan.requests import Requests
from selfreward.records import Prompt
from selfreward.templates import Template, Trusted

CHANGING = frozenset({"policy", "best"})
"""Names that stand for another checkpoint in each iteration."""


@dataclass(frozen=True)
class Judged:
    """`num_responses` to each prompt, `max_tokens` long at most, seen by the judge of this iteration."""

    prompts: Sequence[Prompt]
    num_responses: int
    max_tokens: int
    iteration: int


def models_of(section: recipe.JudgingSection) -> frozenset[str]:
    """Names of the models that take part."""
    if isinstance(section, recipe.EnsembleJudge):
        return frozenset().union(*map(models_of, section.members))
    named = (getattr(section, "by", None), getattr(section, "reference", None))
    return frozenset(name for name in named if name is not None)


def judge_requests(section: recipe.JudgingSection, judged: Judged, lengths: Lengths) -> list[Requests]:
    """Raises RecipeError for principles that cannot be read."""
    match section:
        case recipe.AdditiveJudge() | recipe.RubricJudge():
            return _written(section, judged, lengths)
        case recipe.ExpectedScoreJudge():
            return _expected_score(section, judged, lengths)
        case recipe.PairwiseJudge() | recipe.ConstitutionJudge():
            contests = judged.num_responses * (judged.num_responses - 1) // 2
            return comparisons(section, judged, lengths, num_contests=contests)
        case recipe.VerifierJudge():
            return []
        case recipe.RewardModelJudge():
            return [replace(_forward(section.by, judged, lengths), in_engine=False)]
        case recipe.IntrinsicJudge():
            names = {section.by, section.reference}
            if judged.iteration == 1 and names <= {"initial", *CHANGING}:
                return []  # all of them are M_0
            return [_forward(name, judged, lengths) for name in sorted(names)]
        case recipe.EnsembleJudge():
            return [requests for member in section.members for requests in judge_requests(member, judged, lengths)]
        case _:
            assert_never(section)


def comparisons(
    section: recipe.Comparing, judged: Judged, lengths: Lengths, *, num_contests: int, num_own: int = 1
) -> list[Requests]:
    """So many contests a prompt, in both orders; before them `num_own` responses of a judge that commits itself."""
    is_constitution = isinstance(section, recipe.ConstitutionJudge)
    template = Template.load("constitution" if is_constitution else "pairwise")
    principles: list[str | None] = [None]
    if isinstance(section, recipe.ConstitutionJudge):
        principles = [*read_principles(Path(section.principles))]
        if section.each_judgment == "one":  # which one is drawn: the longest bounds it
            principles = [max(principles, key=lambda principle: lengths.text(str(principle)))]
    ask = _choice(template, LETTERS, section.reasoning, num_draws=section.num_draws)
    asked = [
        _questions(
            section, template, ask, judged, lengths,
            times=2 * num_contests,
            shown=("response_a", "response_b"),
            reasoning=Trusted("yes") if section.reasoning else None,
            **({"principle": Trusted(principle)} if principle else {}),
        )
        for principle in principles
    ]  # fmt: skip
    return [*_commitments(section, judged, lengths, times=num_own), *asked]


def battles(
    section: recipe.MetaJudgingSection, judge: recipe.AdditiveJudge, judged: Judged, lengths: Lengths
) -> list[Requests]:
    """Each judgment of one response a prompt against each other, in both orders."""
    template = Template.load("meta_judge")
    num_judgments = min(judge.num_draws, section.max_judgments)
    empty = {"response": "", "judgment_a": "", "judgment_b": ""}
    first_P = [lengths.question(template, prompt, thinking=True, **empty) for prompt in judged.prompts]
    return [
        Requests(
            by=section.by,
            first_P=tuple(judged.max_tokens + first for first in first_P),
            rest=2 * judge.max_tokens,
            times=num_judgments * (num_judgments - 1),
            num_common=min(first_P, default=0),
            ask=ChatRequest((), max_tokens=section.max_tokens, temperature=section.temperature),
        )
    ]


def judgment_prompts(judge: recipe.AdditiveJudge, judged: Judged, lengths: Lengths) -> list[int]:
    """Tokens of the prompt that a judgment was sampled from, for each prompt that is judged."""
    *_, asked = _written(judge, judged, lengths)
    return [first + asked.rest for first in asked.first_P]


def _written(section: recipe.AdditiveJudge | recipe.RubricJudge, judged: Judged, lengths: Lengths) -> list[Requests]:
    template = Template.load(section.kind)
    ask = ChatRequest(
        (), section.max_tokens, section.num_draws, section.temperature,
        json_schema=SCHEMA if section.structured else None,
    )  # fmt: skip
    criteria = [{"criterion": Trusted(f"{c.name}: {c.description}")} for c in getattr(section, "criteria", [])]
    structured = Trusted("json") if section.structured else None
    return _commitments(section, judged, lengths) + [
        _questions(
            section, template, ask, judged, lengths, times=judged.num_responses, structured=structured, **criterion
        )
        for criterion in criteria or [{}]
    ]


def _expected_score(section: recipe.ExpectedScoreJudge, judged: Judged, lengths: Lengths) -> list[Requests]:
    reasoning = section.reasoning
    asked = _commitments(section, judged, lengths)
    for wording in WORDINGS[: 1 if reasoning else section.num_draws]:
        template = Template.load(wording.template)
        ask = _choice(template, wording.labels, reasoning, num_draws=section.num_draws)
        asked.append(
            _questions(
                section, template, ask, judged, lengths,
                times=judged.num_responses, **({"reasoning": Trusted("yes")} if reasoning else {}),
            )
        )  # fmt: skip
    return asked


def _choice(
    template: Template, choices: tuple[str, ...], reasoning: recipe.Reasoning | None, *, num_draws: int
) -> ChatRequest:
    ask = ChatRequest((), max_tokens=0, opening=template.opening, choices=choices)
    if reasoning is None:
        return ask
    return replace(ask, max_tokens=reasoning.max_tokens, n=num_draws, temperature=reasoning.temperature)


def _questions(
    section: recipe.Asking,
    template: Template,
    ask: ChatRequest,
    judged: Judged,
    lengths: Lengths,
    *,
    times: int,
    shown: Sequence[str] = ("response",),
    **values: str | None,
) -> Requests:
    """A prompt without the reference that the judge is to see is not asked about."""
    values |= dict.fromkeys(shown, "")
    own_tokens = section.commit_first.max_tokens if section.commit_first else 0
    measured = [
        lengths.question(
            template, prompt,
            thinking=not ask.choices,
            own_response="" if section.commit_first else None,
            reference=prompt.reference if section.reference_answer else None,
            **values,
        )
        for prompt in judged.prompts
        if prompt.reference or not section.reference_answer
    ]  # fmt: skip
    return Requests(
        by=section.by,
        first_P=tuple(own_tokens + first for first in measured),
        rest=len(shown) * judged.max_tokens,
        times=times,
        num_common=min(measured, default=0),
        ask=ask,
        opening_tokens=lengths.opening(ask),
    )


def _commitments(section: recipe.Asking, judged: Judged, lengths: Lengths, *, times: int = 1) -> list[Requests]:
    """What the judge itself responds to the prompts."""
    if section.commit_first is None:
        return []
    first_P = tuple(map(lengths.prompt, judged.prompts))
    return [Requests(section.by, first_P, times=times, ask=ChatRequest((), section.commit_first.max_tokens))]


def _forward(name: str, judged: Judged, lengths: Lengths) -> Requests:
    """Prompt and response once through a model."""
    first_P = tuple(map(lengths.prompt, judged.prompts))
    return Requests(name, first_P, rest=judged.max_tokens, times=judged.num_responses)
