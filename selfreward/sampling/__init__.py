"""Sampling of responses to prompts: the stages and their sampler."""

from collections.abc import Iterable, Sequence
from typing import Any

from selfreward.parts import Engine
from selfreward.recipe import Recipe
from selfreward.records import Response
from selfreward.sampling.sampler import Sampler
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import INITIAL_RESPONSES, PROMPTS, RESPONSES, Table
from selfreward.workload import ResponseBound, Workload, sampling_requests


def responses(recipe: Recipe, *, engine: Engine, work: Workload) -> Stage[Response]:
    """Return the stage of the policy's responses."""
    return _stage(RESPONSES, "policy", recipe, engine, work)


def initial_responses(recipe: Recipe, *, engine: Engine, work: Workload) -> Stage[Response]:
    """Return the stage of M_0's responses to the same prompts, if pairing uses them and the policy is not M_0."""
    return _stage(INITIAL_RESPONSES, "initial", recipe, engine, work)


def candidates(recipe: Recipe, optional: Sequence[Table[Any]]) -> dict[Table[Response], ResponseBound]:
    """Return the workload of the responses to judge, by table, including M_0's if pairing uses them."""
    tables = (RESPONSES, *(table for table in optional if table == INITIAL_RESPONSES))
    return dict.fromkeys(tables, ResponseBound(recipe.sampling.num_responses, recipe.sampling.max_tokens))


def _stage(table: Table[Response], role: str, recipe: Recipe, engine: Engine, work: Workload) -> Stage[Response]:
    sampler = Sampler(recipe.sampling, engine=engine, run_seed=recipe.seed)

    def make(reading: Reading) -> list[Response]:
        prompts, model = list(reading.rows(PROMPTS)), reading.roles[role]
        return sampler.sample(prompts, model=model, iteration=reading.iteration, table=table)

    own = role == "policy"
    return Stage(
        table,
        make,
        reads=(Read(PROMPTS),),
        queries=frozenset({role}),
        max_requests=lambda lengths: sampling_requests(
            role, work.prompts, lengths, max_tokens=work.max_tokens, n=recipe.sampling.num_responses
        ),
        only_if_read=not own,
        only_if=lambda reading: own or reading.roles[role].id != reading.roles["policy"].id,
        tally=_count if own else lambda _: {},
    )


def _count(responses: Iterable[Response]) -> dict[str, int]:
    reasons = [response.finish_reason for response in responses]
    return {"num_responses": len(reasons), "num_truncated_responses": reasons.count("length")}
