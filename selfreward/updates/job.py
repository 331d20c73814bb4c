"""One training job as files: its inputs, and the work folder that no other job uses."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingJob:
    """Training as a function of files.

    `samples_files` contain the responses (and judgments) that the pairs were made of, with the engine's
    log-probabilities. `policy` and `initial` are model folders. `work_folder` survives a kill, so that training resumes
    within an update; the trained model, which plain `transformers` loads, ends up in `work_folder / "checkpoint"`.
    """

    iteration: int
    pairs_file: Path
    policy: Path
    initial: Path
    work_folder: Path
    seed: int
    samples_files: tuple[Path, ...] = ()
