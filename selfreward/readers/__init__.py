"""Parsers from a judge's text to a verdict: a score, a choice, or the reason why there is none. They never raise."""

from selfreward.readers.read_choice import read_choice
from selfreward.readers.read_json import read_json_score
from selfreward.readers.read_score import read_score
from selfreward.readers.reasoning import without_reasoning
from selfreward.readers.verdicts import Unscored, Verdict
