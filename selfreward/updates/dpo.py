"""The DPO update on preference pairs, with the losses of TRL's stable `DPOTrainer`; full weights or low-rank adapters.

The update raises the implicit reward beta * log(pi / pi_ref) of the chosen response over that of the rejected one.
It runs in child processes on CUDA, so that all its memory is released, and as a function call with one CPU process.

Paper: 2305.18290, section 4 (DPO); on-policy iterations as in Self-Rewarding, 2401.10020, section 2.4.
Differs: the reference is the policy at the start of the iteration, not M_0 (`reference: initial` is the paper's);
learning rate 5e-7 with float32 weights and no warm-up; each iteration trains on its pairs for one epoch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward.errors import TrainingError
from selfreward.recipe import Recipe
from selfreward.records import Response
from selfreward.seeding import seed_of
from selfreward.steps import Block, Read, Update
from selfreward.store.model_folder import require_unchanged
from selfreward.tables import JUDGMENTS, PAIRS, TRAINING, Table
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings, settings_of
from selfreward.workload import Lengths, PairBound, UpdateWork


def dpo(
    recipe: Recipe,
    candidates: Iterable[Table[Response]],
    *,
    pairs: Callable[[Lengths], list[PairBound]],
    more: Callable[[Lengths, int], list[PairBound]] | None = None,
    role: str = "policy",
    name: str = TRAINING,
) -> Update:
    """Return the DPO update of a role on pairs of these candidates and of judgments: on-policy for the policy.

    A plan needs upper bounds on the pairs: those that `pairs` gives, and those that `more` adds to that many.
    """

    def max_work(lengths: Lengths) -> UpdateWork:
        bounds = pairs(lengths)
        return work_of(recipe, [*bounds, *(more(lengths, len(bounds)) if more else [])])

    samples: tuple[Table[Any], ...] = (*candidates, JUDGMENTS)
    return Update(
        name=name,
        role=role,
        reads=(Read(PAIRS, "iteration"), *(Read(table, "iteration", if_made=True) for table in samples)),
        open=lambda: DpoLearner(settings_of(recipe, role), seed=recipe.seed, role=role),
        max_work=max_work,
    )


def work_of(recipe: Recipe, pairs: Sequence[PairBound]) -> UpdateWork:
    """Return the work of an update on the longest of these pairs, up to `training.max_pairs`.

    When packed, a pair's prompt is computed once.
    """
    training = recipe.training
    times = 1 if training.packing == "shared_prefix" else 2
    longest = sorted((times * p.prompt_tokens + 2 * p.side_tokens for p in pairs), reverse=True)
    num_pairs = min(len(longest), training.max_pairs or len(longest))
    one_pass = sum(longest[:num_pairs])
    passes = 2 if training.reference == "initial" else 1  # under the reference and at the start of the iteration
    return UpdateWork(
        num_pairs=num_pairs,
        num_judgment_pairs=min(num_pairs, sum(pair.kind == "judgment" for pair in pairs)),
        num_steps=-(-num_pairs // training.batch_size) * training.num_epochs,
        num_training_tokens=one_pass * training.num_epochs,
        longest_pair_tokens=max(longest, default=0),
        num_tokens_without_gradient=(passes + 1) * one_pass,  # plus the pass after training
    )


def train(job: TrainingJob, settings: Settings) -> Mapping[str, Any]:
    """Train in child processes on CUDA or with several processes, otherwise in this process.

    The metrics are those of `update.train`.
    """
    import torch

    from selfreward.updates.progress import Display

    if torch.cuda.is_available() or settings.launch.num_processes > 1:
        from selfreward.updates.launcher import train_in_children as train
    else:
        from selfreward.updates.update import train

    with Display() as display:
        return train(job, settings, report=display)


class DpoLearner:
    """A `steps.Learner`. All training state is in the block's work folder; no state stays in memory between blocks."""

    def __init__(self, settings: Settings, *, seed: int, role: str = "policy") -> None:
        self._settings, self._seed, self._role = settings, seed, role

    def learn(self, block: Block) -> Mapping[str, Any]:
        """Train on the block and return the metrics that `update.train` describes.

        Raises TrainingError, StoreError and RecipeError.
        """
        for model in (block.start, block.first):
            require_unchanged(model)
        return train(self._job(block), self._settings)

    def save(self, folder: Path) -> None:
        """Check that `folder` exists: `learn` has written the checkpoint into the block's work folder."""
        if not folder.is_dir():
            raise TrainingError(f"{folder}: training ended without a checkpoint; give the same command again")

    def close(self) -> None:
        """Do nothing: `learn` has ended the training processes and released their memory."""

    def _job(self, block: Block) -> TrainingJob:
        samples = {name: path for name, path in block.files.items() if name != PAIRS.name}
        return TrainingJob(
            iteration=block.iteration,
            pairs_file=block.files[PAIRS.name],
            samples_files=tuple(samples.values()),
            policy=block.start.path,
            initial=block.first.path,
            work_folder=block.work_folder,
            seed=seed_of(self._seed, block.iteration, "training", self._role.removeprefix("policy"), bits=31),
        )
