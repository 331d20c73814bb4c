"""Prompt texts as files, their loader, and the readers that turn judge text into verdicts."""

from selfreward.templates.readers import Unscored, Verdict, read_additive
from selfreward.templates.template import Template

__all__ = ["Template", "Unscored", "Verdict", "read_additive"]
