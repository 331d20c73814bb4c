"""Judge prompts as template files, and their loader."""

from selfreward.templates.template import Template, Verbatim
