"""The algorithm, top to bottom.

M_{t-1} generates responses and judges them in its own second role; fresh preference pairs and an on-policy DPO
update make M_t; M_t is measured on held-out prompts; the monitor decides whether another iteration is worth it.

Every stage goes through the store, which runs it only when its files are not there yet: a run that was killed
at any moment and is started again takes exactly this path, and does nothing twice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from selfreward.errors import StoreError
from selfreward.history import count, not_trained, summarise
from selfreward.parts import Judged, MetaJudge, Models, Parts, TrainingJob
from selfreward.records import (
    Battle,
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
    models: Models = {**parts.models, "policy": parts.initial, "best": parts.initial}
    before: Models | None = None
    baseline = evaluate(parts, store, 0, models=models, previous=None)
    checkpoints = [parts.initial]  # M_0, M_1, ...
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while not decisions or decisions[-1].decision == "continue":
        iteration = len(history) + 1
        store.write_text(f"iteration-{iteration:02d}/recipe.yaml", parts.recipe_text)
        policy, summary = run_iteration(parts, store, iteration, models, before)
        checkpoints.append(policy)
        history.append(summary)
        decisions.append(decide(parts, store, history))
        before, models = models, {**models, "policy": policy, "best": checkpoints[decisions[-1].best_iteration]}
        keep_what_is_needed(parts, store, decisions)
        if any(parts.engine.usage().values()):  # an engine that was not needed has no swap to tell of
            store.record_facts(engine=parts.engine.facts())
        parts.reporter.write(history, decisions, baseline)
    return decisions[-1]


def run_iteration(
    parts: Parts, store: Store, iteration: int, models: Models, before: Models | None
) -> tuple[Checkpoint, IterationSummary]:
    """Makes M_t of M_{t-1}, `models["policy"]`; `before` is what the names stood for in the previous iteration.

    Without enough pairs nothing is trained, and M_t is M_{t-1}.
    """
    policy = models["policy"]
    sample_and_judge(parts, store, iteration, models, before)
    make_pairs(parts, store, iteration)
    counts = count(store, iteration)
    judging = evaluate_judge(parts, store, iteration, models)
    if not parts.monitor.may_train(counts):
        return policy, summarise(store, iteration, counts, judging, {}, not_trained(iteration))
    trained, training = train(parts, store, iteration, policy)
    evaluation = evaluate(parts, store, iteration, models={**models, "policy": trained}, previous=policy)
    return trained, summarise(store, iteration, counts, judging, training, evaluation)


def sample_and_judge(parts: Parts, store: Store, iteration: int, models: Models, before: Models | None) -> None:
    """prompts -> responses -> judgments (-> battles); shard k of each reads only shard k of the ones before."""
    fresh = parts.prompts.training_prompts(iteration)
    size = parts.shard_prompts
    num_shards = -(-len(fresh) // size)
    policy, initial = models["policy"], models["initial"]

    def stage(name: str, record_type: type, make: Callable[[int], Iterable[Any]]) -> None:
        store.stage(iteration, name, record_type, num_shards, make)

    def prompts(shard: int) -> list[Prompt]:
        stored = list(store.read(iteration, "prompts", Prompt, shard))
        if [p.messages for p in stored] != [p.messages for p in fresh[shard * size : (shard + 1) * size]]:
            raise StoreError(
                f"{store.folder}: iteration {iteration} began with other prompts than the recipe's source gives now; "
                "a run needs the same ones to the end; restore the source, or set another output_dir"
            )
        return stored

    def sampled(name: str, model: Checkpoint, shard: int) -> list[Response]:
        return parts.sampler.sample(prompts(shard), model=model, iteration=iteration, stage=name)

    def judge(judges: Models, shard: int, *stages: str) -> list[Judgment]:
        responses = [r for name in stages for r in read(store, iteration, name, Response, shard)]
        return parts.judge.judge(prompts(shard), responses, models=judges, iteration=iteration)

    def battles(meta_judge: MetaJudge, shard: int) -> list[Battle]:
        judged = read_judged(store, iteration, shard)
        return meta_judge.battles(
            judged.prompts, judged.responses, judged.judgments, models=models, iteration=iteration
        )

    stage("prompts", Prompt, lambda k: fresh[k * size : (k + 1) * size])
    stage("responses", Response, lambda k: sampled("responses", policy, k))
    if "initial_responses" in parts.selector.needs and policy.id != initial.id:
        stage("initial_responses", Response, lambda k: sampled("initial_responses", initial, k))
    stage("judgments", Judgment, lambda k: judge(models, k, "responses", "initial_responses"))
    if "previous_judgments" in parts.selector.needs and before is not None:
        stage("previous_judgments", Judgment, lambda k: judge(before, k, "responses"))
    if (meta_judge := parts.meta_judge) is not None and meta_judge.may_judge(iteration):
        stage("battles", Battle, lambda k: battles(meta_judge, k))


def make_pairs(parts: Parts, store: Store, iteration: int) -> None:
    """judgments -> pairs of responses, and battles -> pairs of judgments; a prompt without a pair leaves a reason."""
    num_shards = store.num_shards(iteration, "prompts")

    def select(shard: int) -> Selection:
        return parts.selector.select(read_judged(store, iteration, shard))

    def pairs_of_judgments(meta_judge: MetaJudge, shard: int, num_response_pairs: int) -> Iterable[PreferencePair]:
        so_far = [p.kind for k in range(shard) for p in store.read(iteration, "pairs", PreferencePair, k)]
        return meta_judge.pairs(
            read(store, iteration, "judgments", Judgment, shard),
            read(store, iteration, "battles", Battle, shard),
            all_battles=store.read(iteration, "battles", Battle),
            num_response_pairs=so_far.count("response") + num_response_pairs,
            num_judgment_pairs=so_far.count("judgment"),
        )

    def pairs(shard: int) -> list[PreferencePair]:
        made = list(select(shard).pairs)
        if parts.meta_judge is not None and store.has(iteration, "battles"):
            made += pairs_of_judgments(parts.meta_judge, shard, len(made))
        return made

    store.stage(iteration, "pairs", PreferencePair, num_shards, pairs)
    store.stage(iteration, "dropped_prompts", DroppedPrompt, num_shards, lambda k: select(k).dropped)


def read_judged(store: Store, iteration: int, shard: int) -> Judged:
    """All that was made of one shard of prompts so far."""
    return Judged(
        prompts=read(store, iteration, "prompts", Prompt, shard),
        responses=read(store, iteration, "responses", Response, shard),
        judgments=read(store, iteration, "judgments", Judgment, shard),
        initial_responses=read(store, iteration, "initial_responses", Response, shard),
        previous_judgments=read(store, iteration, "previous_judgments", Judgment, shard),
    )


def read(store: Store, iteration: int, stage: str, record_type: type, shard: int) -> list[Any]:
    """A shard of a stage; nothing of one that this run does not have."""
    return list(store.read(iteration, stage, record_type, shard)) if store.has(iteration, stage) else []


def train(parts: Parts, store: Store, iteration: int, policy: Checkpoint) -> tuple[Checkpoint, Mapping[str, object]]:
    """The DPO update: a function of files. The engine sleeps meanwhile."""
    work_folder, stages = store.work_folder(iteration, "training"), store.folder / f"iteration-{iteration:02d}"
    job = TrainingJob(
        iteration=iteration,
        pairs_file=stages / "pairs.parquet",
        samples_files=tuple(
            stages / f"{name}.parquet"
            for name in ("responses", "initial_responses", "judgments")
            if store.has(iteration, name)
        ),
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


def evaluate_judge(parts: Parts, store: Store, iteration: int, models: Models) -> Evaluation:
    """How far this iteration's judge is to be trusted, without labels."""

    def measure() -> dict[str, object]:
        judged = (read_judged(store, iteration, k) for k in range(store.num_shards(iteration, "prompts")))
        return asdict(parts.evaluator.evaluate_judge(store, iteration, judged=judged, models=models))

    return Evaluation.from_json(store.once_json(iteration, "judge", measure))


def evaluate(parts: Parts, store: Store, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
    """M_t on held-out prompts, against M_{t-1} and M_0; iteration 0 measures M_0 alone."""

    def measure() -> dict[str, object]:
        return asdict(parts.evaluator.evaluate(store, iteration, models=models, previous=previous))

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


def keep_what_is_needed(parts: Parts, store: Store, decisions: Sequence[Decision]) -> None:
    """`best` points to the checkpoint to use now; old checkpoints beside it are removed to bound the disk."""
    best = decisions[-1].best_iteration
    if best > 0:
        store.point("best", f"iteration-{best:02d}/checkpoint")
    if parts.keep_checkpoints is not None:
        judges = {decision.best_iteration for decision in decisions[-2:]}  # this `best` and the one before may judge
        for old in store.folders("checkpoint")[: -parts.keep_checkpoints]:
            if old not in judges:
                store.remove_folder(old, "checkpoint")
