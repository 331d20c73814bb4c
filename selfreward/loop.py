"""The algorithm, top to bottom.

M_{t-1} generates responses and judges them in its own second role; fresh preference pairs and an on-policy DPO
update make M_t; M_t is measured on held-out prompts; the monitor decides whether another iteration is worth it.

Every stage goes through the store, which runs it only when its files are not there yet: a run that was killed
at any moment and is started again takes exactly this path, and does nothing twice.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from selfreward.errors import StoreError
from selfreward.parts import Parts, TrainingJob
from selfreward.records import (
    Checkpoint,
    Decision,
    DroppedPrompt,
    Evaluation,
    IterationSummary,
    Judgment,
    PreferencePair,
    Prompt,
    Response,
    Selection,
)
from selfreward.seeding import seed_of
from selfreward.store import Store

RUNTIME_LIMITS = ("MAX_ITERATIONS", "MAX_HOURS")  # recipe keys that may have been raised since the run stopped


def run(parts: Parts, store: Store) -> Decision:
    """Iterates until the monitor says stop; returns its last decision. Raises SelfRewardError."""
    baseline = evaluate(parts, store, 0, policy=parts.initial, previous=None)
    policy = parts.initial
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while not decisions or decisions[-1].decision == "continue":
        iteration = len(history) + 1
        store.write_text(f"iteration-{iteration:02d}/recipe.yaml", parts.recipe_text)
        policy, summary = run_iteration(parts, store, iteration, policy)
        history.append(summary)
        decisions.append(decide(parts, store, history))
        keep_what_is_needed(parts, store, decisions[-1])
        if any(parts.engine.usage().values()):  # an engine that was not needed has no swap to tell of
            store.record_facts(engine=parts.engine.facts())
        parts.reporter.write(history, decisions, baseline)
    return decisions[-1]


def run_iteration(
    parts: Parts, store: Store, iteration: int, policy: Checkpoint
) -> tuple[Checkpoint, IterationSummary]:
    """Makes M_t of M_{t-1}. Without enough pairs nothing is trained, and M_t is M_{t-1}."""
    sample_and_pair(parts, store, iteration, policy)
    counts = count(store, iteration)
    if not parts.monitor.may_train(counts):
        return policy, summarise(store, iteration, counts, {}, not_trained(iteration))
    trained, training = train(parts, store, iteration, policy)
    evaluation = evaluate(parts, store, iteration, policy=trained, previous=policy)
    return trained, summarise(store, iteration, counts, training, evaluation)


def sample_and_pair(parts: Parts, store: Store, iteration: int, policy: Checkpoint) -> None:
    """prompts -> responses -> judgments -> pairs; shard k of each reads only shard k of the ones before."""
    fresh = parts.prompts.training_prompts(iteration)
    size = parts.shard_prompts
    num_shards = -(-len(fresh) // size)
    # A judge without a model (a verifier) is handed the policy, and does not look at it.
    judge_model = {**parts.models, "policy": policy}.get(parts.judge.by, policy)

    def prompts(shard: int) -> list[Prompt]:
        stored = list(store.read(iteration, "prompts", Prompt, shard))
        if [p.messages for p in stored] != [p.messages for p in fresh[shard * size : (shard + 1) * size]]:
            raise StoreError(
                f"{store.folder}: iteration {iteration} began with other prompts than the recipe's source gives now; "
                "a run needs the same ones to the end; restore the source, or set another output_dir"
            )
        return stored

    def responses(shard: int) -> list[Response]:
        return list(store.read(iteration, "responses", Response, shard))

    def select(shard: int) -> Selection:
        judgments = list(store.read(iteration, "judgments", Judgment, shard))
        return parts.selector.select(prompts(shard), responses(shard), judgments)

    store.stage(iteration, "prompts", Prompt, num_shards, lambda k: fresh[k * size : (k + 1) * size])
    store.stage(
        iteration, "responses", Response, num_shards,
        lambda k: parts.sampler.sample(prompts(k), model=policy, iteration=iteration),
    )  # fmt: skip
    store.stage(
        iteration, "judgments", Judgment, num_shards,
        lambda k: parts.judge.judge(prompts(k), responses(k), model=judge_model, iteration=iteration),
    )  # fmt: skip
    store.stage(iteration, "pairs", PreferencePair, num_shards, lambda k: select(k).pairs)
    store.stage(iteration, "dropped_prompts", DroppedPrompt, num_shards, lambda k: select(k).dropped)


def train(parts: Parts, store: Store, iteration: int, policy: Checkpoint) -> tuple[Checkpoint, Mapping[str, object]]:
    """The DPO update: a function of files. The engine sleeps meanwhile."""
    work_folder, stages = store.work_folder(iteration, "training"), store.folder / f"iteration-{iteration:02d}"
    job = TrainingJob(
        iteration=iteration,
        pairs_file=stages / "pairs.parquet",
        samples_files=(stages / "responses.parquet",),
        policy=policy.path,
        initial=parts.initial.path,
        work_folder=work_folder,
        seed=seed_of(parts.seed, iteration, "training", "", bits=31),
    )

    def update() -> Mapping[str, object]:
        parts.engine.sleep()
        return parts.trainer.train(job)

    metrics = store.once_json(iteration, "training", update)
    path, weights_hash = store.adopt(iteration, "checkpoint", work_folder / "checkpoint")
    return Checkpoint(weights_hash[:16], path, iteration), metrics


def evaluate(
    parts: Parts, store: Store, iteration: int, *, policy: Checkpoint, previous: Checkpoint | None
) -> Evaluation:
    """M_t on held-out prompts, against M_{t-1} and M_0; iteration 0 measures M_0 alone."""

    def measure() -> dict[str, object]:
        return asdict(
            parts.evaluator.evaluate(store, iteration, policy=policy, previous=previous, initial=parts.initial)
        )

    evaluation = Evaluation.from_json(store.once_json(iteration, "evaluation", measure))
    store.merge_rest(iteration)
    return evaluation


def decide(parts: Parts, store: Store, history: Sequence[IterationSummary]) -> Decision:
    """The monitor's written decision. It is asked again at a limit that may have changed since the run stopped."""
    iteration = history[-1].iteration
    stored = store.once_json(
        iteration,
        "decision",
        lambda: asdict(parts.monitor.decide(history, elapsed_s=store.elapsed_s())),
        again_if=lambda decision: decision["reason"] in RUNTIME_LIMITS or not store.has(iteration + 1, "prompts"),
    )
    return Decision.from_json(stored)


def keep_what_is_needed(parts: Parts, store: Store, decision: Decision) -> None:
    """`best` points to the checkpoint to use now; old checkpoints beside it are removed to bound the disk."""
    best = decision.best_iteration
    if best > 0:
        store.point("best", f"iteration-{best:02d}/checkpoint")
    if parts.keep_checkpoints is not None:
        for old in store.folders("checkpoint")[: -parts.keep_checkpoints]:
            if old != best:
                store.remove_folder(old, "checkpoint")


def count(store: Store, iteration: int) -> dict[str, int]:
    """The funnel from prompts to pairs, read from what is stored: the counts add up."""
    counts: Counter[str] = Counter(num_unscored_judgments=0, num_dropped_prompts=0)
    counts["num_prompts"] = sum(1 for _ in store.read(iteration, "prompts", Prompt))
    for response in store.read(iteration, "responses", Response):
        counts["num_responses"] += 1
        counts["num_cut_off_responses"] += response.finish_reason == "length"
    for judgment in store.read(iteration, "judgments", Judgment):
        counts["num_judgments"] += 1
        if judgment.unscored is not None:
            counts["num_unscored_judgments"] += 1
            counts[f"num_unscored_judgments:{judgment.unscored}"] += 1
    counts["num_pairs"] = sum(1 for _ in store.read(iteration, "pairs", PreferencePair))
    for dropped in store.read(iteration, "dropped_prompts", DroppedPrompt):
        counts["num_dropped_prompts"] += 1
        counts[f"num_dropped_prompts:{dropped.reason}"] += 1
    return dict(counts)


def read_history(store: Store) -> tuple[list[IterationSummary], list[Decision], Evaluation | None]:
    """The finished iterations of a run folder, their decisions, and the evaluation of M_0."""
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while stored := store.read_json(len(history) + 1, "decision"):
        iteration = len(history) + 1
        measured = store.read_json(iteration, "evaluation")
        evaluation = Evaluation.from_json(measured) if measured else not_trained(iteration)
        training = store.read_json(iteration, "training") or {}
        history.append(summarise(store, iteration, count(store, iteration), training, evaluation))
        decisions.append(Decision.from_json(stored))
    initial = store.read_json(0, "evaluation")
    return history, decisions, Evaluation.from_json(initial) if initial else None


def not_trained(iteration: int) -> Evaluation:
    return Evaluation(iteration, {}, {"all": "nothing was trained in this iteration"})


def summarise(
    store: Store,
    iteration: int,
    counts: Mapping[str, int],
    training: Mapping[str, object],
    evaluation: Evaluation,
) -> IterationSummary:
    return IterationSummary(
        iteration=iteration,
        counts=counts,
        training=training,
        evaluation=evaluation,
        seconds_by_stage=store.seconds_by_stage(iteration),
        usage_by_stage=store.usage_by_stage(iteration),
    )
