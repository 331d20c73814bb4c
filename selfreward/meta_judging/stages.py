"""The stages of meta-judging: battles between judgments, and pairs of judgments made from them."""

from collections.abc import Callable

from selfreward.meta_judging.judgment_pairs import max_pairs
from selfreward.meta_judging.meta_judge import MetaJudge
from selfreward.parts import ExtraPairs, Judge
from selfreward.records import Battle, PreferencePair
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import BATTLES, JUDGMENTS, PAIRS, PROMPTS, RESPONSES
from selfreward.workload import Lengths, PairBound, Workload


def battles(meta_judge: MetaJudge, *, work: Workload) -> Stage[Battle]:
    """Return the stage that compares all judgments of one response per prompt with each other."""

    def make(reading: Reading) -> list[Battle]:
        return meta_judge.battles(
            list(reading.rows(PROMPTS)),
            list(reading.rows(RESPONSES)),
            list(reading.rows(JUDGMENTS)),
            models=reading.roles,
            iteration=reading.iteration,
        )

    return Stage(
        BATTLES,
        make,
        reads=(Read(PROMPTS), Read(RESPONSES), Read(JUDGMENTS)),
        queries=meta_judge.by,
        max_requests=lambda lengths: meta_judge.max_requests(work, lengths),
    )


def judgment_pairs(meta_judge: MetaJudge) -> ExtraPairs:
    """Return the pairs of judgments; their share is capped over the iteration, including earlier shards."""

    def make(reading: Reading, num_response_pairs: int) -> tuple[PreferencePair, ...]:
        so_far = [pair.kind for pair in reading.rows(PAIRS)]
        return meta_judge.pairs(
            list(reading.rows(JUDGMENTS)),
            list(reading.rows(BATTLES, shard=reading.shard)),
            all_battles=reading.rows(BATTLES),
            num_response_pairs=so_far.count("response") + num_response_pairs,
            num_judgment_pairs=so_far.count("judgment"),
        )

    return ExtraPairs((Read(JUDGMENTS), Read(BATTLES, "iteration"), Read(PAIRS, "so_far")), make)


def bounds(meta_judge: MetaJudge, judge: Judge, work: Workload) -> Callable[[Lengths, int], list[PairBound]]:
    """Return an upper bound on the pairs: one per prompt, within the cap on their share of all pairs."""

    def bound(lengths: Lengths, num_response_pairs: int) -> list[PairBound]:
        num_pairs = min(len(work.prompts), max_pairs(meta_judge.section.max_share, num_response_pairs))
        side_tokens = meta_judge.judge.max_tokens
        *_, judge_requests = judge.max_requests(work, lengths)
        remaining_tokens = lengths.context_tokens - side_tokens
        longest = sorted(
            (min(first + judge_requests.rest, remaining_tokens) for first in judge_requests.first_P), reverse=True
        )
        return [PairBound("judgment", length, side_tokens) for length in longest[:num_pairs]]

    return bound
