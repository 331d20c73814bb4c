"""The tables of an iteration. A table is one file, `iteration-NN/NAME.parquet`.

prompts -> responses -> judgments (-> battles) -> pairs, and the prompts without a pair. Tables that only one package
writes and reads are defined in that package.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from selfreward.records import Battle, DroppedPrompt, Judgment, PreferencePair, Prompt, Response

R = TypeVar("R")


@dataclass(frozen=True)
class Table(Generic[R]):
    """`name`: the file, the line on the console, the row in reports. `record`: the type of a row.

    `group`: the name under which reports sum its cost ("": its own). `column`: the same in a plan, and `note` explains
    that column. `seeds`: the name used in seeds and ids, where a table was renamed and its samples must stay the same
    ("": `name`).
    """

    name: str
    record: type[R]
    group: str = ""
    column: str = ""
    note: str = ""
    seeds: str = ""

    @property
    def seed_name(self) -> str:
        return self.seeds or self.name


# One JSON file per iteration, `iteration-NN/NAME.json`: the counts of the funnel, the evaluation of the judge, the
# metrics of the update, the evaluation of M_t, the test results of the best checkpoint, and the decision.
COUNTS, JUDGE, TRAINING, EVALUATION, TEST, DECISION = "counts", "judge", "training", "evaluation", "test", "decision"

PROMPTS = Table("prompts", Prompt)
RESPONSES = Table("responses", Response)
INITIAL_RESPONSES = Table("initial_responses", Response, column="responses")
JUDGMENTS = Table("judgments", Judgment)
PREVIOUS_JUDGMENTS = Table("previous_judgments", Judgment, column="judgments")
BATTLES = Table("battles", Battle)
PAIRS = Table("pairs", PreferencePair)
DROPPED_PROMPTS = Table("dropped_prompts", DroppedPrompt)
