"""The algorithm, top to bottom.

M_{t-1} generates responses and judges them in its own second role; fresh preference pairs and an on-policy DPO
update make M_t; M_t is measured on held-out prompts; the monitor decides whether another iteration is worth it.

Every stage goes through the store, which runs it only when its files are not there yet: a run that was killed
at any moment and is started again takes exactly this path, and does nothing twice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from selfreward.errors import StoreError
from selfreward.history import count, summarise
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


def run(given: Parts, store: Store) -> Decision:
    """Iterates until the monitor says stop; returns its last decision. Raises SelfRewardError."""
    models: Models = {**given.models, "policy": given.initial, "best": given.initial}
    before: Models | None = None
    baseline = evaluate(given, store, 0, models=models, previous=None)
    checkpoints = [given.initial]  # M_0, M_1, ...
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while not decisions or not decisions[-1].stops:
        iteration = len(history) + 1
        parts = replace(given, **given.changes(decisions))
        store.write_text(f"iteration-{iteration:02d}/recipe.yaml", parts.recipe_text)
        policy = run_iteration(parts, store, iteration, models, before)
        checkpoints.append(policy)
        history.append(summarise(store, iteration))
        decisions.append(decide(parts, store, history, decisions, {**models, "policy": policy}, models["policy"]))
        before, models = models, {**models, "policy": policy, "best": checkpoints[decisions[-1].best_iteration]}
        keep_what_is_needed(parts, store, decisions)
        if decisions[-1].stops:
            open_seal(parts, store, history, models)
        if any(parts.engine.usage().values()):  # an engine that was not needed has no swap to tell of
            store.record_facts(engine=parts.engine.facts())
        parts.reporter.write(history, decisions, baseline)
    return decisions[-1]


def run_iteration(parts: Parts, store: Store, iteration: int, models: Models, before: Models | None) -> Checkpoint:
    """Makes M_t of M_{t-1}, `models["policy"]`; `before` is what the names stood for in the previous iteration.

    With nothing to learn from nothing is trained, and M_t is M_{t-1}.
    """
    policy = models["policy"]
    sample_and_judge(parts, store, iteration, models, before)
    make_pairs(parts, store, iteration)
    counts = count_once(parts, store, iteration)
    judging = evaluate_judge(parts, store, iteration, models)
    if not parts.monitor.may_train(counts, judging):
        return policy
    trained = train(parts, store, iteration, policy)
    evaluate(parts, store, iteration, models={**models, "policy": trained}, previous=policy)
    return trained


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


def train(parts: Parts, store: Store, iteration: int, policy: Checkpoint) -> Checkpoint:
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

    store.once_json(iteration, "training", update)
    path, weights_hash = store.adopt(iteration, "checkpoint", work_folder / "checkpoint")
    return Checkpoint(weights_hash[:16], path, iteration)


def count_once(parts: Parts, store: Store, iteration: int) -> Mapping[str, int]:
    """The funnel from prompts to pairs, and how many prompts overlap with held-out ones; 0 is the contract."""

    def counts() -> dict[str, int]:
        prompts = list(store.read(iteration, "prompts", Prompt))
        return {**count(store, iteration), "num_overlapping_prompts": parts.prompts.num_overlapping(prompts)}

    stored: Mapping[str, int] = store.once_json(iteration, "counts", counts)
    return stored


def evaluate_judge(parts: Parts, store: Store, iteration: int, models: Models) -> Evaluation:
    """How far this iteration's judge is to be trusted, mostly without labels."""

    def measure() -> Evaluation:
        judged = (read_judged(store, iteration, k) for k in range(store.num_shards(iteration, "prompts")))
        return parts.evaluator.evaluate_judge(store, iteration, judged=judged, models=models)

    return measured_once(store, iteration, "judge", measure)


def evaluate(parts: Parts, store: Store, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
    """M_t on held-out prompts, against M_{t-1}, M_0 and the best; iteration 0 measures M_0 alone."""

    def measure() -> Evaluation:
        return parts.evaluator.evaluate(store, iteration, models=models, previous=previous)

    return measured_once(store, iteration, "evaluation", measure)


def measured_once(store: Store, iteration: int, name: str, measure: Callable[[], Evaluation]) -> Evaluation:
    """A measurement, and the stages that it made; those are complete only when it is."""

    def make() -> dict[str, object]:
        measured = asdict(measure())
        store.merge_rest(iteration)
        return measured

    return Evaluation.from_json(store.once_json(iteration, name, make))


def decide(
    parts: Parts,
    store: Store,
    history: list[IterationSummary],
    decisions: Sequence[Decision],
    models: Models,
    previous: Checkpoint,
) -> Decision:
    """The monitor's written decision on the last of `history`; when it is open, once more with the reserve's outcomes.

    It is made again at a limit that may have changed since the run stopped.
    """
    iteration = history[-1].iteration

    def decision() -> Decision:
        return parts.monitor.decide(history, decisions, elapsed_s=store.elapsed_s())

    def make() -> dict[str, object]:
        found = decision()
        if found.wants_reserve:
            parts.evaluator.ask_reserve(store, iteration, models=models, previous=previous)
            store.merge_rest(iteration)
            history[-1] = summarise(store, iteration)
            found = decision()
        return asdict(found)

    stored = store.once_json(
        iteration,
        "decision",
        make,
        again_if=lambda made: made["stopped_by"] in RUNTIME_LIMITS or not store.has(iteration + 1, "prompts"),
    )
    return Decision.from_json(stored)


def open_seal(parts: Parts, store: Store, history: list[IterationSummary], models: Models) -> None:
    """The best checkpoint on prompts that nothing was decided on: once in the life of a run, whenever it stops."""
    opened = any(store.read_json(summary.iteration, "seal") for summary in history)
    if opened or models["best"].id == models["initial"].id or not parts.prompts.seal_prompts():
        return
    iteration = history[-1].iteration
    measured_once(store, iteration, "seal", lambda: parts.evaluator.open_seal(store, iteration, models=models))
    history[-1] = summarise(store, iteration)


def keep_what_is_needed(parts: Parts, store: Store, decisions: Sequence[Decision]) -> None:
    """`best` points to the checkpoint to use now; old checkpoints beside it are removed to bound the disk."""
    best = decisions[-1].best_iteration
    store.point("best", f"iteration-{best:02d}/checkpoint" if best else str(parts.initial.path.absolute()))
    if parts.keep_checkpoints is not None:
        judges = {decision.best_iteration for decision in decisions[-2:]}  # this `best` and the one before may judge
        made = [t for t in store.folders("checkpoint") if t <= len(decisions)]  # a resumed run has later ones too
        for old in made[: -parts.keep_checkpoints]:
            if old not in judges:
                store.remove_folder(old, "checkpoint")
