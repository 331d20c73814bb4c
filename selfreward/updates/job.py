"""One training job as files: all that it reads, and the folder that is its alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingJob:
    """Training as a function of files.

    `samples_files` hold the responses (and judgments) that pairs were made of, with the engine's log-probabilities.
    `work_folder` survives a kill, so that training resumes inside; the trained model, which plain
    `transformers` loads, ends up in `work_folder / "checkpoint"`. `policy` and `initial` are model folders.
    """

    iteration: int
    pairs_file: Path
    policy: Path
    initial: Path
    work_folder: Path
    seed: int
    samples_files: tuple[Path, ...] = ()
