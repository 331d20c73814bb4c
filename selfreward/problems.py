"""What is wrong with a recipe, or worth knowing before it runs: found by each package for its own section.

The schema refuses what a section alone shows to be wrong. What shows only beside other sections, models, prompts or the
machine is found by `problems(section, facts)` of the package that the section belongs to.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from selfreward.errors import RecipeError
from selfreward.parts import Chat, Engine, PromptSource
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint, Prompt
from selfreward.workload import Lengths


@dataclass(frozen=True)
class Problem:
    """A sentence for a person. A warning lets the run begin."""

    text: str
    is_warning: bool = False

    def of(self, label: str) -> "Problem":
        """The same, of the recipe with the interventions `label`."""
        return replace(self, text=f"with {label}: {self.text}")


def warning(text: str) -> Problem:
    return Problem(text, is_warning=True)


@dataclass(frozen=True)
class Facts:
    """What is known besides a section: the whole recipe, its prompts, its engine, its models by name."""

    recipe: Recipe
    source: PromptSource
    engine: Engine
    models: Mapping[str, Checkpoint]
    lengths: Lengths

    @property
    def weights(self) -> dict[str, str]:
        """What stands behind each model's name when the run begins: two names with the same value are one model."""
        local = {name: model.id for name, model in self.models.items()}
        remote = {name: f"{section.endpoint} {section.model}" for name, section in self.recipe.endpoints.items()}
        return {**remote, **local, "best": self.models["initial"].id}


def too_long(prompts: Iterable[Prompt], max_tokens: int, facts: Facts) -> Iterator[Problem]:
    """The first of these prompts that leaves no room for `max_tokens` of response, if there is one."""
    context = facts.engine.context_tokens
    for prompt in prompts:
        if (num_tokens := facts.lengths.prompt(prompt)) + max_tokens > context:
            yield Problem(
                f"prompt {prompt.id}: {num_tokens} tokens and {max_tokens} for the response; the context holds "
                f"{context}; shorten or leave out the prompt, lower max_tokens, or raise engine.context_tokens"
            )
            return


def named(chats: Mapping[str, Chat], name: str, where: str) -> Chat:
    """The model that the section `where` names. Raises RecipeError when there is none."""
    if name not in chats:
        meant = difflib.get_close_matches(name, chats, n=1)
        hint = f"did you mean {meant[0]!r}?" if meant else "name one of these, or add the model under `models`"
        raise RecipeError(f"{where}.by: there is no model {name!r}; there are {', '.join(chats)}; {hint}")
    return chats[name]


def warnings_of(found: Iterable[Problem]) -> list[str]:
    """The warnings, each once. Raises RecipeError with everything that is refused."""
    problems = list(dict.fromkeys(found))
    if refused := [problem.text for problem in problems if not problem.is_warning]:
        raise RecipeError("\n".join(refused))
    return [problem.text for problem in problems]
