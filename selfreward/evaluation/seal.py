"""The best checkpoint against M_0 on prompts that nothing was decided on: once in the life of a run, when it stops.

The best one was chosen on the other prompts, so that what these say of it is too good.
"""

from selfreward.evaluation.bench import Bench, Sides
from selfreward.evaluation.metrics import Sheet, measure_anchor, put_win_rates
from selfreward.evaluation.outcomes import length_deltas, rows
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.tables import SEAL_COMPARISONS, SEAL_OUTCOMES, SEAL_RESPONSES_OF
from selfreward.records import Evaluation, PromptOutcome
from selfreward.steps import Probe, Read, Reading, Stage
from selfreward.tables import SEAL
from selfreward.workload import Workload

WIN_RATE = "seal_win_rate_vs_initial"


def seal(bench: Bench) -> tuple[Probe, ...]:
    """Nothing without prompts, and not due while the best checkpoint is M_0 itself."""
    prompts, seed = bench.source.seal_prompts(), bench.seed
    if not prompts:
        return ()
    best, initial = SEAL_RESPONSES_OF["best"], SEAL_RESPONSES_OF["initial"]

    def sides(reading: Reading, shard: int | None) -> Sides:
        ours, theirs = (list(reading.rows(table, shard=shard)) for table in (best, initial))
        return Sides(ours, {"initial": theirs})

    def compared(reading: Reading) -> tuple[Sides, list[Outcome]]:
        found = sides(reading, None)
        theirs = found.baselines["initial"]
        return found, outcomes(found.own, theirs, reading.rows(SEAL_COMPARISONS), [theirs])

    def made(reading: Reading) -> list[PromptOutcome]:
        found, by_prompt = compared(reading)
        against = reading.roles["initial"].iteration
        return rows(by_prompt, found.own, found.baselines["initial"], set="seal", by="anchor", against=against)

    def measure(reading: Reading) -> Evaluation:
        found, by_prompt = compared(reading)
        sheet = Sheet()
        put_win_rates(sheet, WIN_RATE, by_prompt, length_deltas(found.own, found.baselines["initial"]), seed=seed)
        measure_anchor(sheet, list(reading.rows(SEAL_COMPARISONS)), by_prompt, seed=seed)
        return Evaluation(reading.iteration, sheet.metrics, sheet.not_measured)

    responses = tuple(bench.responses(table, prompts, role) for role, table in SEAL_RESPONSES_OF.items())
    comparisons = bench.comparisons(
        SEAL_COMPARISONS, prompts, sides,
        reads=tuple(map(Read, SEAL_RESPONSES_OF.values())),
        work=Workload(prompts, 2, bench.decoding.max_tokens, 1),
    )  # fmt: skip
    reads = tuple(Read(table, "iteration") for table in (best, initial, SEAL_COMPARISONS))
    outcome_stage = Stage(SEAL_OUTCOMES, made, reads=reads, num_shards=1)
    probe = Probe(
        SEAL, (*responses, comparisons, outcome_stage), reads, measure,
        when="at_end", only_if=lambda reading: reading.roles["best"].id != reading.roles["initial"].id,
    )  # fmt: skip
    return (probe,)
