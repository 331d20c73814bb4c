"""The records that flow through an iteration. A table is one file, `iteration-NN/NAME.parquet`, and is named once.

prompts -> responses -> judgments (-> battles) -> pairs, and the prompts that gave none. Tables that one package alone
writes and reads stand in that package.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from selfreward.records import Battle, DroppedPrompt, Judgment, PreferencePair, Prompt, Response

R = TypeVar("R")


@dataclass(frozen=True)
class Table(Generic[R]):
    """`name`: the file, the line on the console, the row in reports. `record`: what a row is.

    `group`: under which name reports add up its cost ("": its own). `column`: the same in a plan, and `note` is what a
    reader of the plan should know of that column. `seeds`: the name that seeds and ids are made of, where a table was
    renamed and its draws must stay the same ("": `name`).
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


# One value for each iteration, `iteration-NN/NAME.json`: the funnel, what was measured of the judge, of the update, of
# M_t, of the best checkpoint at the end, and the decision.
COUNTS, JUDGE, TRAINING, EVALUATION, TEST, DECISION = "counts", "judge", "training", "evaluation", "test", "decision"

PROMPTS = Table("prompts", Prompt)
RESPONSES = Table("responses", Response)
INITIAL_RESPONSES = Table("initial_responses", Response, column="responses")
JUDGMENTS = Table("judgments", Judgment)
PREVIOUS_JUDGMENTS = Table("previous_judgments", Judgment, column="judgments")
BATTLES = Table("battles", Battle)
PAIRS = Table("pairs", PreferencePair)
DROPPED_PROMPTS = Table("dropped_prompts", DroppedPrompt)
