"""Updates: new weights from the records of an iteration. One file per kind; training is a function of files."""

from selfreward.updates.dpo import dpo
from selfreward.updates.recipe_problems import problems
