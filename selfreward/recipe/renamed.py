"""Names of version 0.1 with those of version 0.2: keys are read with a warning, the others are refused. Removed with
version 0.3."""

from collections.abc import Mapping
from typing import Final

KEYS: Final[Mapping[str, str]] = {
    "evaluation.num_reserve_prompts": "evaluation.num_second_validation_prompts",
    "evaluation.num_seal_prompts": "evaluation.num_test_prompts",
    "launch.num_processes": "launch.processes_per_node",
    "monitor.first_look_share": "monitor.first_analysis_share",
    "pairing.allow_cut_off_chosen": "pairing.allow_truncated_chosen",
}
"""Keys of a recipe by their path."""

ARGUMENTS: Final[Mapping[str, str]] = {"num_reserve_prompts": "num_second_validation_prompts"}
"""Arguments of `CeilingMonitor`."""

OUTCOME_SETS: Final[Mapping[str, str]] = {"monitor": "validation", "reserve": "second_validation"}
"""Values of the column `set` in a table of outcomes."""
