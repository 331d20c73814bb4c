"""Models on disk: from the name in a recipe to a folder that `transformers` loads, and its tokenizer."""

from selfreward.model_files.folders import checkpoint_of, materialise
from selfreward.model_files.planning import PlannedContext, planned_folder, planned_model, planned_tokenizer
from selfreward.model_files.recipe_problems import problems
from selfreward.model_files.tokenizer import ChatTokenizer
