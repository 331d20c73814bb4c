"""Prompt texts as files, and their loader: what judges are asked."""

from selfreward.templates.template import Template, Verbatim
