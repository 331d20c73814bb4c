"""Interventions: the keys that each changes, the next one to try, and the active ones after a series of decisions."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.monitoring import interventions
from selfreward.monitoring.interventions import (
    active_interventions,
    effect_of,
    effective_recipe,
    next_intervention,
    patch,
    variants,
)
from selfreward.recipe import INTERVENTIONS, InterventionsSection, UserIntervention
from selfreward.records import Decision

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
ADDITIVE = "judging={kind: additive, by: policy, num_draws: 3, max_tokens: 8}"
ENSEMBLE = (
    "judging={kind: ensemble, members: [{kind: additive, num_draws: 3}, {kind: verifier}, "
    "{kind: expected_score, by: initial, num_draws: 1}]}"
)


def recipe_of(*overrides):
    return recipe_file.load(TINY, overrides)


def changes(before, after):
    return recipe_file.changed_keys(before, after)[1]


def listing(decision="STARVED", *names):
    return f"monitor.interventions.{decision}=[{', '.join(names)}]"


def decision(t, name, intervention="", effect=None, **bounds):
    found = {number: {"mean": mean} for number, mean in bounds.items()}
    return Decision(t, name, "", 0, bounds=found, intervention=intervention, effect=effect)


def history(*named):
    """Decisions as the monitor writes them, from `(decision, next intervention)`, with the effects of earlier ones."""
    decided = []
    for t, (name, intervention) in enumerate(named, 1):
        bare = decision(t, name, intervention)
        decided.append(decision(t, name, intervention, effect_of(bare, decided)))
    return decided


@pytest.mark.parametrize(
    ("name", "overrides", "changed"),
    [
        ("more_draws", [ADDITIVE], ["judging.num_draws: 3 -> 6"]),
        ("min_reliability", ["monitor.min_reliability=0.6"], ["pairing.min_reliability: None -> 0.6"]),
        ("consistency_weights", [], ["pairing.weight: 'equal' -> 'consistency'"]),
        ("initial_rejected", [], ["pairing.kind: 'best_vs_worst' -> 'initial_rejected'"]),
        ("higher_temperature", [], ["sampling.temperature: 1.0 -> 1.2"]),
        ("higher_temperature", ["sampling.temperature=1.4"], ["sampling.temperature: 1.4 -> 1.5"]),
        ("higher_rho", ["pairing={kind: length_controlled, rho: 0.3}"], ["pairing.rho: 0.3 -> 0.35"]),
        ("higher_rho", ["pairing={kind: length_controlled, rho: 0.43}"], ["pairing.rho: 0.43 -> 0.45"]),
        ("higher_rho", [], ["pairing.kind: 'best_vs_worst' -> 'length_controlled'", "pairing.rho: None -> 0.35"]),
        ("larger_beta", [], ["training.beta: 0.1 -> 0.2"]),
        ("pin_judge", [], ["judging.by: 'policy' -> 'best'"]),
        ("fresh_prompts", [], []),
        ("stop", [], []),
    ],
)
def test_each_is_a_patch_of_keys_that_exist(name, overrides, changed):
    recipe = recipe_of(*overrides)
    assert changes(recipe, patch(recipe, name)) == changed


def test_every_name_of_the_schema_is_known():
    recipe = recipe_of(ADDITIVE)
    assert {name for name in INTERVENTIONS if patch(recipe, name)} == set(INTERVENTIONS)


def test_another_kind_of_pairing_keeps_the_shared_settings():
    recipe = recipe_of("pairing={kind: top_k, k: 3, min_margin: 0.5, allow_truncated_chosen: true, min_scored: 3}")
    for name, kind in (("initial_rejected", "initial_rejected"), ("higher_rho", "length_controlled")):
        pairing = patch(recipe, name).pairing
        assert pairing.kind == kind
        assert (pairing.min_margin, pairing.allow_truncated_chosen, pairing.min_scored) == (0.5, True, 3)


def test_more_draws_of_a_judge_that_does_not_sample_are_prompt_variants():
    recipe = recipe_of("judging={kind: expected_score, num_draws: 2}")
    more = patch(recipe, "more_draws")
    assert more.judging.num_draws == 3
    with pytest.raises(RecipeError, match="would not change"):
        patch(more, "more_draws")


def test_members_of_an_ensemble_are_patched_and_the_others_left():
    recipe = recipe_of(ENSEMBLE)
    members = patch(recipe, "more_draws").judging.members
    assert [getattr(m, "num_draws", None) for m in members] == [6, None, 1]
    members = patch(recipe, "pin_judge").judging.members
    assert [getattr(m, "by", None) for m in members] == ["best", None, "initial"]


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("more_draws", ["judging={kind: verifier}"], ["more_draws", "verifier", "has no draws"]),
        ("more_draws", ["judging.num_draws=3"], ["judging.num_draws would not change"]),
        (
            "more_draws",
            [ADDITIVE.replace("3", "1").replace("}", ", temperature: 0.0}")],
            ["no effect at temperature 0"],
        ),
        ("pin_judge", ["judging.by=initial"], ["pin_judge", "no judge is by policy"]),
        ("pin_judge", [ADDITIVE, "meta_judging={}"], ["pin_judge", "meta_judging", "by: policy"]),
        ("consistency_weights", ["checkpoints.keep=1"], ["checkpoints.keep", "set it to 2"]),
        ("higher_temperature", ["sampling.temperature=1.5"], ["sampling.temperature would not change"]),
        ("higher_temperature", ["sampling.temperature=1.9"], ["sampling.temperature would not change"]),
        ("initial_rejected", ["pairing={kind: initial_rejected}"], ["pairing would not change"]),
    ],
)
def test_an_inapplicable_intervention_is_refused_by_name(name, overrides, words):
    recipe = recipe_of(*overrides, listing("STARVED", name))
    for refused in (lambda: patch(recipe, name), lambda: variants(recipe)):
        with pytest.raises(RecipeError) as error:
            refused()
        assert str(error.value).startswith(f"monitor.interventions: {name}: ")
        assert "override" not in str(error.value)
        for word in words:
            assert word in str(error.value)


OWN = "{name: colder, set: {sampling.temperature: 0.5, 'judging': {kind: verifier}, training.learning_rate: 5.0e-7}}"


def test_user_interventions_set_keys_and_complete_sections():
    recipe = recipe_of(listing("PLATEAU", OWN))
    patched = patch(recipe, "colder")
    assert (patched.sampling.temperature, patched.judging.kind, patched.training.learning_rate) == (
        0.5, "verifier", 5e-7,
    )  # fmt: skip
    assert patched == recipe_file.parse(recipe_file.dump(patched)), "it is written down as a recipe"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("{name: mine, set: {prompts: {kind: builtin}}}", ["mine", "prompts", "sampling, judging"]),
        ("{name: mine, set: {evaluation.num_prompts: 9}}", ["evaluation.num_prompts", "must stay the same"]),
        ("{name: mine, set: {monitor.delta: 0.4}}", ["monitor.delta"]),
        ("{name: mine, set: {sampling.temprature: 1.0}}", ["sampling.temprature", "did you mean 'temperature'"]),
        ("{name: mine, set: {sampling.temperature: hot}}", ["sampling.temperature", "'hot'"]),
        ("{name: mine, set: {sampling.temperature: 1.0}}", ["would not change"]),
        ("{name: mine, set: {pairing.rho: 0.4}}", ["pairing", "rho", "unknown key"]),
    ],
)
def test_a_user_intervention_that_is_not_allowed_is_refused(own, words):
    with pytest.raises(RecipeError) as error:
        variants(recipe_of(listing("PLATEAU", own)))
    for word in words:
        assert word in str(error.value)


def test_one_name_is_one_patch_and_stop_ends_a_list():
    hot, cold = (f"{{name: mine, set: {{sampling.temperature: {t}}}}}" for t in (1.3, 0.7))
    with pytest.raises(RecipeError, match="two patches have this name"):
        variants(recipe_of(listing("PLATEAU", hot), listing("STARVED", cold)))
    with pytest.raises(RecipeError, match="larger_beta after it is never tried"):
        variants(recipe_of(listing("PLATEAU", "stop", "larger_beta")))


def test_a_recipe_is_checked_with_each_alone_and_with_those_before_it():
    recipe = recipe_of(listing("PLATEAU", "higher_temperature", "larger_beta", "initial_rejected", "stop"))
    found = {name: (r.sampling.temperature, r.training.beta, r.pairing.kind) for name, r in variants(recipe).items()}
    assert found == {
        "higher_temperature": (1.2, 0.1, "best_vs_worst"),
        "larger_beta": (1.0, 0.2, "best_vs_worst"),
        "higher_temperature and larger_beta": (1.2, 0.2, "best_vs_worst"),
        "initial_rejected": (1.0, 0.1, "initial_rejected"),
        "higher_temperature and larger_beta and initial_rejected": (1.2, 0.2, "initial_rejected"),
    }
    assert variants(recipe_of()) == {}


def test_active_from_the_next_iteration_and_removed_when_it_did_not_help():
    recipe = recipe_of(listing("PLATEAU", "higher_temperature", "larger_beta"))
    decided = history(("CONTINUE", ""), ("PLATEAU", "higher_temperature"), ("PLATEAU", "larger_beta"), ("CONTINUE", ""))
    found = [effective_recipe(recipe, decided[:t]) for t in range(5)]
    assert [(r.sampling.temperature, r.training.beta) for r in found] == [
        (1.0, 0.1), (1.0, 0.1), (1.2, 0.1), (1.0, 0.2), (1.0, 0.2),
    ]  # fmt: skip
    assert [d.effect and d.effect["helped"] for d in decided] == [None, None, False, True]
    assert found[0] is recipe


def test_an_intervention_that_helped_remains_active_with_the_next_one():
    decided = history(("STARVED", "more_draws"), ("PLATEAU", "larger_beta"), ("STARVED", "min_reliability"))
    assert active_interventions(decided[:2]) == ["more_draws", "larger_beta"]
    assert decided[2].effect["helped"] is None, "nothing was trained, so nothing is known of a gain"
    assert active_interventions(decided) == ["more_draws", "min_reliability"]


@pytest.mark.parametrize(
    ("tried_for", "found", "helped"),
    [
        ("PLATEAU", "PLATEAU", False), ("PLATEAU", "CONTINUE", True), ("PLATEAU", "INCONCLUSIVE", True),
        ("PLATEAU", "INVALID", None), ("PLATEAU", "STARVED", None), ("DRIFT", "INVALID", None),
        ("STARVED", "INVALID", True), ("STARVED", "STARVED", False), ("DRIFT", "DRIFT", False),
    ],
)  # fmt: skip
def test_it_helped_when_the_decision_did_not_recur(tried_for, found, helped):
    assert history((tried_for, "fresh_prompts"), (found, ""))[1].effect["helped"] is helped


def test_a_starved_iteration_that_was_compared_is_evidence_of_a_gain():
    effect = effect_of(decision(2, "STARVED", gain_vs_previous=0.1), [decision(1, "PLATEAU", "higher_temperature")])
    assert effect is not None and effect["helped"] is True


@pytest.mark.parametrize(
    ("name", "before", "after", "number"),
    [
        ("STARVED", {"reliability": 0.2, "pair_yield_rate": 0.9}, {"reliability": 0.6}, "reliability"),
        ("STARVED", {"pair_yield_rate": 0.2}, {"pair_yield_rate": 0.6}, "pair_yield_rate"),
        ("PLATEAU", {"gain_vs_previous": 0.2, "tau": 0.1}, {"gain_vs_previous": 0.6}, "gain_vs_previous"),
        ("DRIFT", {"tau": 0.2}, {"tau": 0.6, "gold_accuracy_vs_best": 0.1}, "tau"),
    ],
)
def test_an_effect_contains_the_number_that_the_decision_is_based_on(name, before, after, number):
    effect = effect_of(decision(2, "CONTINUE", **after), [decision(1, name, "fresh_prompts", **before)])
    assert effect == {
        "name": "fresh_prompts", "tried_for": name, "helped": True, "number": number, "before": 0.2, "after": 0.6,
    }  # fmt: skip


def test_an_unmeasured_effect_has_no_number():
    effect = effect_of(decision(2, "STARVED"), [decision(1, "STARVED", "fresh_prompts", reliability=0.1)])
    assert effect is not None and (effect["before"], effect["after"]) == (0.1, None)
    tried = [decision(1, "STARVED", "fresh_prompts", reliability=0.1)]
    hidden = effect_of(decision(2, "PLATEAU", reliability=0.1), tried, still_starved=True)
    assert hidden is not None and hidden["helped"] is False, "another decision goes before, and the judge is as noisy"
    assert effect_of(decision(2, "CONTINUE"), [decision(1, "CONTINUE")]) is None
    assert effect_of(decision(1, "CONTINUE"), []) is None


def test_the_list_is_tried_in_order_and_what_failed_is_not_tried_again():
    listed = InterventionsSection(PLATEAU=["larger_beta", "higher_rho", "stop"], STARVED=["larger_beta"])
    row = [("PLATEAU", "larger_beta"), ("PLATEAU", "higher_rho"), ("PLATEAU", "")]
    assert [next_intervention("PLATEAU", listed, history(*row[:t])) for t in (1, 2, 3)] == [
        "larger_beta",
        "higher_rho",
        "stop",
    ]
    assert next_intervention("STARVED", listed, history(*row)) == "larger_beta", "it failed at another decision"
    assert next_intervention("CONTINUE", listed, history(("CONTINUE", ""))) is None
    assert next_intervention("DRIFT", listed, history(("DRIFT", ""))) is None


def test_one_listed_twice_is_tried_twice():
    listed = InterventionsSection(STARVED=["fresh_prompts", "fresh_prompts"])
    row = [("STARVED", "fresh_prompts"), ("STARVED", "fresh_prompts"), ("STARVED", "")]
    assert [next_intervention("STARVED", listed, history(*row[:t])) for t in (1, 2, 3)] == [
        "fresh_prompts",
        "fresh_prompts",
        None,
    ]


def test_one_that_helped_is_used_again_while_it_still_changes_something():
    recipe = recipe_of("judging.num_draws=2", listing("STARVED", "more_draws", "min_reliability"))
    listed = recipe.monitor.interventions
    row = [
        ("STARVED", "more_draws"),
        ("CONTINUE", ""),
        ("STARVED", "min_reliability"),
        ("CONTINUE", ""),
        ("STARVED", ""),
    ]
    chosen = [
        next_intervention("STARVED", listed, history(*row[: t - 1], ("STARVED", "")), recipe=recipe) for t in (1, 3, 5)
    ]
    # There are three prompt variants, and the minimum is already active.
    assert chosen == ["more_draws", "min_reliability", None]
    twice = recipe_of(ADDITIVE, listing("STARVED", "more_draws"))
    again = history(("STARVED", "more_draws"), ("CONTINUE", ""), ("STARVED", "more_draws"))
    assert (
        next_intervention("STARVED", twice.monitor.interventions, history(*row[:2], ("STARVED", "")), recipe=twice)
        == "more_draws"
    )
    assert effective_recipe(twice, again).judging.num_draws == 12


named = st.lists(
    st.sampled_from(["fresh_prompts", "larger_beta", "higher_temperature", "initial_rejected"]), max_size=4
)


@settings(deadline=None, max_examples=25)
@given(
    lists=st.fixed_dictionaries(dict.fromkeys(("STARVED", "DRIFT", "PLATEAU"), named)),
    row=st.lists(st.sampled_from(["STARVED", "DRIFT", "PLATEAU", "CONTINUE", "INVALID", "INCONCLUSIVE"]), max_size=8),
)
def test_active_interventions_can_always_be_recomputed_from_the_decisions(lists, row):
    recipe = recipe_of().model_copy(deep=True)
    section = InterventionsSection(**lists)
    recipe = recipe.model_copy(update={"monitor": recipe.monitor.model_copy(update={"interventions": section})})
    decided = []
    for t, name in enumerate(row, 1):
        bare = decision(t, name, effect=effect_of(decision(t, name), decided))
        chosen = next_intervention(name, section, [*decided, bare], recipe=recipe)
        decided.append(decision(t, name, chosen or "", bare.effect))
        assert chosen is None or chosen in getattr(section, name)
        assert effective_recipe(recipe, decided) is not None  # each patch of the row can be applied
    failed = [(d.effect["tried_for"], d.effect["name"]) for d in decided if d.effect and d.effect["helped"] is False]
    for tried_for, name in set(failed):
        assert failed.count((tried_for, name)) <= lists[tried_for].count(name)


def test_a_user_intervention_may_not_have_a_built_in_name():
    with pytest.raises(ValueError, match="is a built-in intervention"):
        UserIntervention(name="pin_judge", set={"judging.by": "best"})
    assert interventions.STOP in INTERVENTIONS
