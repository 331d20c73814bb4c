"""The steps of one iteration, in order.

The package of each recipe section makes its steps. `steps.py` defines steps, `loop.py` runs them, and `plan` sums their
requests. Iteration 0 measures M_0 and trains nothing.
"""

from collections.abc import Sequence

from selfreward import evaluation, judging, meta_judging, monitoring, pairing, prompts, recipe_file, sampling, updates
from selfreward.monitoring import interventions
from selfreward.parts import Judge
from selfreward.recipe import Recipe
from selfreward.records import Decision
from selfreward.steps import Iteration, Step
from selfreward.tables import JUDGE
from selfreward.tools import Tools
from selfreward.workload import Workload


def compose(
    original: Recipe,
    t: int,
    decisions: Sequence[Decision],
    tools: Tools,
    *,
    judge: Judge | None = None,
    selector: pairing.Selector | None = None,
) -> Iteration:
    """Return iteration `t` of the recipe, patched by the interventions of the monitor's `decisions`.

    `judge` and `selector` replace the recipe's. Raises RecipeError for a patch that cannot be used.
    """
    recipe = interventions.effective_recipe(original, decisions)
    text = recipe_file.dump(recipe)
    # Held-out responses are sampled by the unpatched recipe, so that checkpoints of all iterations are comparable.
    evaluator = evaluation.evaluator(original, source=tools.source, engine=tools.engine, anchor=tools.anchor)
    if t == 0:
        return Iteration(0, (evaluation.held_out(evaluator, 0),), text)

    judge = judge or tools.judge(recipe)
    meta_judge = tools.meta_judge(recipe, t)
    selector = selector or pairing.build(recipe.pairing)
    optional = selector.reads if t > 1 else ()  # in iteration 1 M_0 is the policy, and there is no previous judge
    candidates = sampling.candidates(recipe, optional)
    work = Workload(tools.source.training_prompts(t), recipe.sampling.num_responses, recipe.sampling.max_tokens, t)
    steps: tuple[Step, ...] = (
        prompts.fresh(tools.source, t, shard_prompts=recipe.iterations.shard_prompts),
        sampling.responses(recipe, engine=tools.engine, work=work),
        sampling.initial_responses(recipe, engine=tools.engine, work=work),
        judging.judgments(judge, candidates, work=work),
        judging.previous_judgments(judge, work=work),
        *([meta_judging.battles(meta_judge, work=work)] if meta_judge else []),
        pairing.pairs(
            selector, candidates, optional, more=meta_judging.judgment_pairs(meta_judge) if meta_judge else None
        ),
        pairing.dropped_prompts(selector, candidates, optional),
        evaluation.judge_probe(evaluator, judge=judge, work=work, num_prompts=recipe.evaluation.num_judge_prompts),
        monitoring.gate(tools.monitor, judge=JUDGE),
        updates.dpo(
            recipe,
            candidates,
            pairs=pairing.bounds(selector, candidates, optional, work=work),
            more=meta_judging.bounds(meta_judge, judge, work) if meta_judge else None,
        ),
        evaluation.held_out(evaluator, t, self_judge=judge if recipe.evaluation.self_judge else None),
        *evaluation.second_validation(evaluator, t),
        *evaluation.test_set(evaluator),
    )
    return Iteration(t, steps, text)
