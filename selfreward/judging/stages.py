"""The judging stages: this iteration's judge on its responses and, where pairing needs it, the previous one's too."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from selfreward.parts import Judge, Models
from selfreward.records import Judgment, Response
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import JUDGMENTS, PREVIOUS_JUDGMENTS, PROMPTS, RESPONSES, Table
from selfreward.workload import ResponseBound, Workload, all_cached


def judgments(judge: Judge, candidates: Mapping[Table[Response], ResponseBound], *, work: Workload) -> Stage[Judgment]:
    """Return the stage that judges all candidates; `candidates` maps each table of responses to its workload."""
    num_responses = sum(each.num_responses for each in candidates.values())
    total_work = replace(
        work,
        num_responses=num_responses,
        max_tokens=max(each.max_tokens for each in candidates.values()),
        num_own=candidates[RESPONSES].num_responses,
    )
    return Stage(
        JUDGMENTS,
        lambda reading: _judge(judge, reading, candidates, reading.roles),
        reads=(Read(PROMPTS), *map(Read, candidates)),
        queries=judge.by,
        max_requests=lambda lengths: judge.max_requests(total_work, lengths),
        tally=count,
    )


def previous_judgments(judge: Judge, *, work: Workload) -> Stage[Judgment]:
    """Return the stage that judges the same responses with the previous iteration's judge, from iteration 2 on."""
    return Stage(
        PREVIOUS_JUDGMENTS,
        lambda reading: _judge(judge, reading, (RESPONSES,), reading.roles.at_previous_start),
        reads=(Read(PROMPTS), Read(RESPONSES)),
        queries=judge.by,
        max_requests=lambda lengths: all_cached(
            judge.max_requests(replace(work, iteration=work.iteration - 1), lengths)
        ),
        only_if_read=True,
    )


def _judge(judge: Judge, reading: Reading, tables: Iterable[Table[Response]], models: Models) -> list[Judgment]:
    responses = [response for table in tables for response in reading.rows(table)]
    return judge.judge(list(reading.rows(PROMPTS)), responses, models=models, iteration=reading.iteration)


def count(judgments: Iterable[Judgment]) -> dict[str, int]:
    """Count the judgments, and the unscored ones by reason, without those of single criteria or members."""
    counts = Counter(num_judgments=0, num_unscored_judgments=0)
    for judgment in judgments:
        if judgment.part:
            continue
        counts["num_judgments"] += 1
        if judgment.unscored is not None:
            counts["num_unscored_judgments"] += 1
            counts[f"num_unscored_judgments:{judgment.unscored}"] += 1
    return dict(counts)
