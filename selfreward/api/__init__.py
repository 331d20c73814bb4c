"""The Python interface behind `selfreward.run`, `selfreward.load_run` and `selfreward.judge`."""

from selfreward.api.judging import judge
from selfreward.api.run_folder import Run, load_run
from selfreward.api.running import run
