"""Errors and warnings about a recipe before it runs; each package checks its own section.

The schema refuses errors within a section. `problems(section, facts)` of the section's package finds errors that depend
on other sections, models, prompts or the machine.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from selfreward.errors import ChatTemplateError, RecipeError
from selfreward.parts import Chat, Engine, LeftOut, PromptSource
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint, Prompt
from selfreward.workload import Lengths


@dataclass(frozen=True)
class Problem:
    """A problem in one sentence. A warning does not prevent the run."""

    text: str
    is_warning: bool = False

    def of(self, label: str) -> "Problem":
        """Return the same problem, attributed to the recipe with the interventions `label`."""
        return replace(self, text=f"with {label}: {self.text}")


def warning(text: str) -> Problem:
    return Problem(text, is_warning=True)


@dataclass(frozen=True)
class Facts:
    """The context of a section: the complete recipe, its prompts, its engine, its models by name."""

    recipe: Recipe
    source: PromptSource
    engine: Engine
    models: Mapping[str, Checkpoint]
    lengths: Lengths

    @property
    def weights(self) -> dict[str, str]:
        """Map each model name to the identity of its weights at the start: equal values are the same model."""
        local = {name: model.id for name, model in self.models.items()}
        remote = {name: f"{section.endpoint} {section.model}" for name, section in self.recipe.endpoints.items()}
        return {**remote, **local, "best": self.models["initial"].id}


def left_out(prompt: Prompt, max_tokens: int, lengths: Lengths) -> LeftOut | None:
    """Return why the policy cannot give a response of `max_tokens` to this prompt; None when it can."""
    try:
        num_tokens = lengths.prompt(prompt)
    except ChatTemplateError as error:
        cause = str(error).partition("; ")[0]
        advice = (
            "only turns that the template supports are allowed; correct or remove the prompt, set "
            "models.policy.chat_template to a template that renders them, or use another model"
        )
        return LeftOut(prompt.id, "refused_by_template", f"prompt {prompt.id}: {cause}", advice)
    if num_tokens + max_tokens <= lengths.context_tokens:
        return None
    found = (
        f"prompt {prompt.id}: {num_tokens} tokens plus {max_tokens} for the response; the context has "
        f"{lengths.context_tokens}"
    )
    advice = "shorten or remove the prompt, lower max_tokens, or raise engine.context_tokens"
    return LeftOut(prompt.id, "too_long", found, advice)


def named(chats: Mapping[str, Chat], name: str, where: str) -> Chat:
    """Return the model that the section `where` names. Raises RecipeError when there is none."""
    if name not in chats:
        meant = difflib.get_close_matches(name, chats, n=1)
        hint = f"did you mean {meant[0]!r}?" if meant else "use one of these, or add the model under `models`"
        raise RecipeError(f"{where}.by: there is no model {name!r}; there are {', '.join(chats)}; {hint}")
    return chats[name]


def warnings_of(found: Iterable[Problem]) -> list[str]:
    """Return the distinct warnings. Raises RecipeError with all errors."""
    problems = list(dict.fromkeys(found))
    if refused := [problem.text for problem in problems if not problem.is_warning]:
        raise RecipeError("\n".join(refused))
    return [problem.text for problem in problems]
