"""The first stage of an iteration: its fresh prompts from the source."""

from collections.abc import Iterable
from itertools import zip_longest

from selfreward.errors import StoreError
from selfreward.parts import PromptSource
from selfreward.records import Prompt
from selfreward.steps import Reading, Stage
from selfreward.tables import PROMPTS


def fresh(source: PromptSource, iteration: int, *, shard_prompts: int) -> Stage[Prompt]:
    """Return the stage of block `iteration` of the training prompts, in shards of `shard_prompts`."""
    prompts = source.training_prompts(iteration)

    def check(reading: Reading) -> None:
        """Refuse prompts that changed in the source since the run began."""
        if any(
            a is None or b is None or a.messages != b.messages for a, b in zip_longest(reading.rows(PROMPTS), prompts)
        ):
            raise StoreError(
                f"iteration {iteration} began with prompts that the recipe's source no longer gives; the prompts of an "
                f"iteration must not change; restore the source, or remove the folder iteration-{iteration:02d} to "
                "make it again with the prompts that the source gives now, or set another output_dir"
            )

    def tally(stored: Iterable[Prompt]) -> dict[str, int]:
        kept = list(stored)
        return {"num_prompts": len(kept), "num_overlapping_prompts": source.num_overlapping(kept)}

    return Stage(
        PROMPTS,
        lambda reading: prompts[reading.shard * shard_prompts : (reading.shard + 1) * shard_prompts],
        num_shards=-(-len(prompts) // shard_prompts),
        tally=tally,
        check=check,
    )
