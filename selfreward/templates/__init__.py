"""Prompt texts as files, their loader, and the readers that turn judge text into verdicts."""

from selfreward.templates.read_choice import read_choice
from selfreward.templates.read_json import read_json_score
from selfreward.templates.read_score import read_score
from selfreward.templates.reasoning import without_reasoning
from selfreward.templates.template import Template, Trusted
from selfreward.templates.verdicts import Unscored, Verdict

__all__ = [
    "Template",
    "Trusted",
    "Unscored",
    "Verdict",
    "read_choice",
    "read_json_score",
    "read_score",
    "without_reasoning",
]
