"""Work of models outside the engine: requests, tokens and cost of endpoints, tokens of reward models."""

from collections.abc import Sequence

from selfreward.plan.amounts import Work, summed
from selfreward.plan.work import IterationWork
from selfreward.recipe import EndpointSection, Recipe


def work_outside_engine(iterations: Sequence[IterationWork]) -> dict[str, Work]:
    """Return the work of the complete run by name of the model."""
    named: dict[str, list[Work]] = {}
    for iteration in iterations:
        for others in iteration.outside_engine.values():
            for name, work in others.items():
                named.setdefault(name, []).append(work)
    return {name: summed(works) for name, works in named.items()}


def cost(section: EndpointSection, *, num_prompt: int, num_generated: int) -> float | None:
    """Return the cost in the currency of `price`; None without a price."""
    price = section.price
    return None if price is None else (num_prompt * price.prompt + num_generated * price.generated) / 1e6


def beyond_budget(recipe: Recipe, iterations: Sequence[IterationWork]) -> list[str]:
    """Return a sentence for each endpoint whose budget may be too small."""
    found = []
    for name, work in work_outside_engine(iterations).items():
        section = recipe.endpoints.get(name)
        if section is None or section.budget is None:
            continue
        most = cost(section, num_prompt=work.num_prompt_tokens, num_generated=work.num_generated_tokens)
        if most is not None and most > section.budget:
            found.append(
                f"models.{name}.budget is {section.budget:g}, and the run may cost up to {money(most)}: it would stop "
                "when the budget is spent; a higher budget resumes it"
            )
    return found


def money(amount: float) -> str:
    """Format an amount in cents, or with two digits below one cent."""
    return f"{amount:,.2f}" if amount >= 0.01 or amount == 0 else f"{amount:.1e}"
