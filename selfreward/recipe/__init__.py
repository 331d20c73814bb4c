"""The recipe: the schema of a run, one section per package. Reading YAML and reporting errors is in `recipe_file.py`.

Unknown keys are refused. Keys marked `Changeable` may change when a run is resumed; a change of any other is refused.
Defaults are the vetted settings, each with a citation of the paper it comes from.
"""

from selfreward.recipe.evaluation import *
from selfreward.recipe.judging import *
from selfreward.recipe.launch import *
from selfreward.recipe.models import *
from selfreward.recipe.monitor import *
from selfreward.recipe.pairing import *
from selfreward.recipe.prompts import *
from selfreward.recipe.ray import *
from selfreward.recipe.root import *
from selfreward.recipe.section import *
from selfreward.recipe.slurm import *
from selfreward.recipe.training import *
