"""The recipe: the schema of a run, one section per package. Reading YAML and reporting errors is in `recipe_file.py`.

Unknown keys are refused. Keys marked `Runtime` may change on a started run; a change of any other is refused.
Defaults are the vetted settings; the paper they come from stands beside them.
"""

from selfreward.recipe.evaluation import *
from selfreward.recipe.judging import *
from selfreward.recipe.models import *
from selfreward.recipe.monitor import *
from selfreward.recipe.pairing import *
from selfreward.recipe.prompts import *
from selfreward.recipe.root import *
from selfreward.recipe.section import *
from selfreward.recipe.training import *
