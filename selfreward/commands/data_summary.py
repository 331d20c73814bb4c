"""The summary of a recipe's data that `selfreward validate` prints: rows, splits, and the first prompt."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfreward.errors import ChatTemplateError
from selfreward.model_files import ChatTokenizer
from selfreward.prompts.collecting import counted
from selfreward.recipe import Recipe
from selfreward.records import Prompt
from selfreward.reporting.text import clip, one_line, visible
from selfreward.tools import Tools

_MAX_PROMPT_CHARS = 1200
_HELD_OUT = ("validation", "second_validation", "test", "verifiable", "gold")


def data_summary(recipe: Recipe, tools: Tools) -> str:
    """Return the summary in a few lines."""
    facts = tools.source.facts()
    training = tools.source.training_prompts(1)
    lines = [
        *_source("prompts", facts["training"]),
        *(_source("evaluation.prompts", facts["validation"]) if recipe.evaluation.prompts is not None else ()),
        *([f"gold pairs: {one_line(recipe.evaluation.gold.path, 120)}"] if recipe.evaluation.gold else ()),
        *_left_out(recipe, tools),
        _split(recipe, facts),
        _extras(training),
        *_first_prompt(recipe, tools, training),
    ]
    return "\n".join(lines)


def _source(key: str, facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{key}: {one_line(str(facts['source']), 120)}"
    skipped = dict(facts.get("num_skipped", {}))
    repeated = skipped.pop("same_prompt", 0)
    if facts.get("num_rows"):
        counts = {"used": facts["num_read"], "dropped": sum(skipped.values()), "repeated": repeated}
        yield f"  rows: {facts['num_rows']:,} read" + "".join(f", {n:,} {what}" for what, n in counts.items() if n)
        yield "  shapes: " + ", ".join(f"{count:,} {one_line(name, 60)}" for name, count in facts["shapes"].items())
    if skipped:
        yield f"  dropped: {counted(Counter(skipped))}"
    if unused := facts.get("unused_columns"):
        yield "  columns that are not used: " + one_line(", ".join(map(str, unused)), 300)


def _left_out(recipe: Recipe, tools: Tools) -> Iterator[str]:
    sets = (None, *range(1, recipe.iterations.max + 1))
    kinds = {each.prompt_id: each.kind for t in sets for each in tools.source.left_out(t)}
    if kinds:
        yield f"left out of the sets: {counted(Counter(kinds.values()))}"


def _split(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    num_training, size = facts["training"]["num_prompts"], recipe.iterations.num_prompts_per_iteration
    # The validation prompts with checks are not a set of their own.
    names = [name for name in _HELD_OUT if name != "verifiable" or recipe.evaluation.verifiable != "validation"]
    sizes = {name: facts[name]["num_prompts"] for name in names}
    held_out = ", ".join(f"{size:,} {name.replace('_', ' ')}" for name, size in sizes.items() if size)
    if "verifiable" not in sizes:
        held_out += f" ({facts['verifiable']['num_prompts']:,} of the validation prompts have checks)"
        if recipe.evaluation.anchor.kind != "verifier":
            held_out += "; evaluation.anchor={kind: verifier} would compare models by these checks, without a judge"
    return (
        f"split: {num_training:,} for training ({recipe.iterations.max} x {size:,} are needed), "
        f"held out: {held_out or 'none'}"
    )


def _extras(prompts: Sequence[Prompt]) -> str:
    references = sum(bool(prompt.reference) for prompt in prompts)
    kinds = sorted({str(check["kind"]) for prompt in prompts for check in prompt.checks})
    checks = sum(bool(prompt.checks) for prompt in prompts)
    named = f" ({one_line(', '.join(kinds), 200)})" if kinds else ""
    return f"prompts of iteration 1: {len(prompts):,}, {references:,} with a reference, {checks:,} with checks{named}"


def _first_prompt(recipe: Recipe, tools: Tools, prompts: Sequence[Prompt]) -> Iterator[str]:
    if not prompts:
        return
    tokenizer = ChatTokenizer.of(recipe.policy, tools.models["policy"].path)
    try:
        text = tokenizer.render(prompts[0].messages)
    except ChatTemplateError as error:
        text = str(error)
    clipped = clip(text, _MAX_PROMPT_CHARS)
    yield f"the first prompt ({prompts[0].id}) in the policy's chat template:"
    yield from (f"  | {line}" for line in visible(clipped.text).split("\n"))
    if clipped.num_left_out:
        yield f"  {clipped.note}"
