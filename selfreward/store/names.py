"""Names of files and folders in a run folder, relative to it."""

from pathlib import Path

MANIFEST = "manifest.json"


def folder_of(iteration: int) -> str:
    return f"iteration-{iteration:02d}"


def iteration_of(name: str) -> int:
    """Return the iteration NN of `iteration-NN/...`."""
    return int(Path(name).parts[0].removeprefix("iteration-"))


def shard_name(iteration: int, stage: str, shard: int) -> str:
    return f"{folder_of(iteration)}/{stage}/{shard:05d}.parquet"


def merged_name(iteration: int, stage: str) -> str:
    return f"{folder_of(iteration)}/{stage}.parquet"


def is_shard(name: str, iteration: int) -> bool:
    path = Path(name)
    return len(path.parts) == 3 and path.parts[0] == folder_of(iteration) and path.suffix == ".parquet"
