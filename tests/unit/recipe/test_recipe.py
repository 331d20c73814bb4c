"""Recipes as files: parsing, errors and their messages, and lossless dumps."""

import re
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import recipe as schema
from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import Recipe, aliases
from selfreward.recipe.renamed import KEYS
from selfreward.records import Checkpoint
from selfreward.roles import Roles

MINIMAL = """\
name: small
output_dir: runs/small
models:
  policy: {model: "random:tiny"}
prompts: {kind: builtin}
judging:
  kind: additive
"""


def parse(text: str = MINIMAL, *overrides: str) -> Recipe:
    return recipe_file.parse(text, name="small.yaml", overrides=overrides)


def refusal(text: str = MINIMAL, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


# YAML 1.2: numbers are numbers and words are words, in the file and on the command line.


@pytest.mark.parametrize("written", ["5e-7", "5.0e-7", "0.0000005", "5E-7", "5e-07"])
def test_numbers_stay_numbers(written: str) -> None:
    assert parse(MINIMAL + f"training: {{learning_rate: {written}}}\n").training.learning_rate == 5e-7
    assert parse(MINIMAL, f"training.learning_rate={written}").training.learning_rate == 5e-7


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "no", "y", "n", "On", "NO", "2026-01-31", "12:30:00", "random:tiny"]
)
def test_words_are_words(word: str) -> None:
    assert parse(MINIMAL + f"note: {word}\n").note == word
    assert parse(MINIMAL, f"note={word}").note == word


@pytest.mark.parametrize("word", ["yes", "on", "'true'", "1"])
def test_words_are_not_booleans(word: str) -> None:
    assert f"engine.seeded: found {word if word == '1' else repr(word.strip(chr(39)))}" in refusal(
        MINIMAL, f"engine.seeded={word}"
    )
    assert parse(MINIMAL, "engine.seeded=false").engine.seeded is False


@pytest.mark.parametrize("written", ["7", "1.5", "true", "null"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(written: str) -> None:
    assert "name: found" in refusal(MINIMAL.replace("name: small", f"name: {written}"))
    assert parse(MINIMAL.replace("name: small", 'name: "7"')).name == "7"


def test_whole_numbers_do_where_fractions_are_wanted_but_not_the_other_way_round() -> None:
    assert parse(MINIMAL, "sampling.temperature=1").sampling.temperature == 1.0
    assert "seed: found 1.5" in refusal(MINIMAL, "seed=1.5")
    assert "seed: found true" in refusal(MINIMAL, "seed=true")


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_are_finite(written: str) -> None:
    assert "training.learning_rate: found" in refusal(MINIMAL, f"training.learning_rate={written}")
    assert "sampling.temperature: found" in refusal(MINIMAL + f"sampling: {{temperature: {written}}}\n")


# Unknown keys and wrong values: location, allowed values, suggestion.


@pytest.mark.parametrize(
    ("text", "line", "key", "meant"),
    [
        (MINIMAL + "samplin: {}\n", 8, "samplin", "sampling"),
        (MINIMAL + "sampling:\n  temperature: 1.0\n  num_response: 3\n", 10, "sampling.num_response", "num_responses"),
        (MINIMAL + "  num_drawz: 3\n", 8, "judging.num_drawz", "num_draws"),
        (MINIMAL.replace('tiny"}', 'tiny", revison: x}'), 4, "models.policy.revison", "revision"),
        (MINIMAL + "training:\n  losses:\n  - kind: sft\n    wieght: 2\n", 11, "training.losses.0.wieght", "weight"),
        (MINIMAL + "evaluation: {verifiable: {num_promts: 3}}\n", 8, "evaluation.verifiable.num_promts", "num_prompts"),
        (MINIMAL + "evaluation: {prompts: {kind: file, pth: x}}\n", 8, "evaluation.prompts.pth", "path"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_what_was_meant(text: str, line: int, key: str, meant: str) -> None:
    first = next(row for row in refusal(text).splitlines() if "unknown key" in row)
    assert first.startswith(f"small.yaml:{line}: {key}: unknown key; allowed are ")
    assert first.endswith(f"did you mean '{meant}'?")
    assert meant in first.split("allowed are ")[1].split("; ")[0].split(", ")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("training.lr", "learning_rate"),
        ("r", "models.policy.lora.rank"),
        ("models.policy.lora.r", "rank"),
        ("models.policy.lora_alpha", "models.policy.lora.alpha"),
        ("training.lora_rank", "models.policy.lora.rank"),
        ("bs", "training.batch_size"),
        ("training.train_batch_size", "batch_size"),
        ("judging.judge", "by"),
        ("models.policy.path", "model"),
        ("beta", "training.beta"),
        ("num_generations", "sampling.num_responses"),
        ("sampling.n", "num_responses"),
        ("max_new_tokens", "sampling.max_tokens"),
        ("judging.max_new_tokens", "max_tokens"),
        ("max_model_len", "engine.context_tokens"),
        ("model", "models.policy.model"),
        ("models.policy.model_name_or_path", "model"),
        ("dataset", "prompts"),
        ("temperature", "sampling.temperature"),
        ("num_train_epochs", "training.num_epochs"),
        ("steps", "iterations.max"),
        ("iterations.num_iterations", "max"),
    ],
)
def test_the_names_of_other_trainers_are_answered_with_ours(key: str, meant: str) -> None:
    assert refusal(MINIMAL, f"{key}=1").splitlines()[0].endswith(f"; did you mean '{meant}'?")


def test_every_suggested_key_exists() -> None:
    recipe = parse(MINIMAL, "models.policy.lora={}", "prompts={kind: dataset, name: x}", "judging.by=policy")
    sentences = " ".join((*aliases.ANSWERS.values(), *aliases.KEYS.values()))
    sections = "|".join(type(recipe).model_fields)
    named = set(re.findall(rf"\b(?:{sections})(?:\.[a-z_]+)+", sentences)) - {"metrics.jsonl", "report.json", "run.log"}
    for meant in named | set(aliases.KEYS.values()):
        value: typing.Any = recipe
        for part in meant.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)


@pytest.mark.parametrize(
    ("section", "found", "meant"),
    [
        ("judging", "additiv", "additive"),
        ("prompts", "buildin", "builtin"),
        ("pairing", "best_vs_wurst", "best_vs_worst"),
        ("engine", "vlm", "vllm"),
    ],
)
def test_a_misspelt_kind_is_named(section: str, found: str, meant: str) -> None:
    message = refusal(MINIMAL, f"{section}.kind={found}")
    assert f"{section}.kind: found '{found}'; allowed are " in message
    assert f"did you mean '{meant}'?" in message


def test_a_wrong_value_is_answered_with_the_default() -> None:
    assert refusal(MINIMAL, "training.learning_rate=high").endswith(
        "found 'high'; input should be a valid number; correct it, or leave it out for the default, 5e-07"
    )
    assert refusal(MINIMAL, "seed=-1").endswith("; correct it, or leave it out for the default, 0")
    no_default = "monitor.interventions.DRIFT=[{name: x, set: 3}]"
    assert refusal(MINIMAL, no_default).endswith("; write {...}")


def test_a_kind_is_not_guessed() -> None:
    assert "judging: no `kind`" in refusal(MINIMAL, "judging={num_draws: 3}")
    assert refusal(MINIMAL, "prompts.kind=kafka").endswith("use one of these")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=zero", "seed: found 'zero'"),
        ("seed=-1", "seed: found -1; input should be greater than or equal to 0"),
        ("sampling=3", "sampling: found 3"),
        ("sampling=null", "sampling: found null"),
        ("models=[a]", "models: found ['a']"),
        ("models.policy=7", "models.policy: found 7"),
        ("training.losses=sigmoid", "training.losses: found 'sigmoid'"),
        ("training.losses=[]", "training.losses: found []"),
        ("training.losses=[{kind: sigmoyd}]", "training.losses.0.kind: found 'sigmoyd'; allowed are sigmoid"),
        ("pairing={kind: length_controlled, rho: 0.5}", "pairing.rho: found 0.5; input should be less than 0.5"),
        ("evaluation.num_prompts=1", "evaluation.num_prompts: found 1"),
        ("refinement={kind: critique}", "refinement: found"),
        ("note={a: b}", "note: found {'a': 'b'}"),
        ("output_dir=''", "output_dir: found ''"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override: str, words: str) -> None:
    message = refusal(MINIMAL, override)
    assert message.startswith(f"override: {words}"), message


def test_a_wrong_value_in_the_file_has_its_line() -> None:
    assert refusal(MINIMAL + "seed: zero\n").startswith("small.yaml:8: seed: found 'zero'")


def test_a_long_wrong_value_does_not_flood_the_terminal() -> None:
    assert len(refusal(MINIMAL + "note:\n" + "- another line\n" * 5000)) < 400


@pytest.mark.parametrize(
    ("folder", "name"),
    [("runs/mine", "mine"), ("runs/my data!", "my-data-"), ("/", "run"), ("runs/..", "run"), ("runs/_é", "run")],
)
def test_three_keys_are_a_recipe_which_is_named_after_its_folder(folder: str, name: str) -> None:
    text = f'output_dir: "{folder}"\nmodels: {{policy: {{model: "random:tiny"}}}}\nprompts: {{kind: builtin}}\n'
    recipe = parse(text)
    assert (recipe.name, recipe.judging.kind) == (name, "expected_score")
    assert parse(recipe_file.dump(recipe)) == recipe


@pytest.mark.parametrize(
    ("verifiable", "found"),
    [
        ("valdation", "evaluation.verifiable: found 'valdation'; allowed are validation; did you mean 'validation'?"),
        ("{pth: a.jsonl}", "evaluation.verifiable.pth: unknown key; allowed are answer_check, check_kinds"),
        ("{path: a.jsonl, num_checks: 2}", "num_checks and check_kinds have no effect"),
    ],
)  # fmt: skip
def test_what_the_pass_rate_is_measured_on_is_checked(verifiable: str, found: str) -> None:
    assert found in refusal(MINIMAL, f"evaluation.verifiable={verifiable}")


@pytest.mark.parametrize("key", ["models", "prompts"])
def test_a_missing_required_key_is_named(key: str) -> None:
    lines = MINIMAL.replace("models:\n  policy", "models: {policy").replace('tiny"}\n', 'tiny"}}\n')
    lines = lines.replace("judging:\n  kind: additive", "judging: {kind: additive}")
    text = "".join(line + "\n" for line in lines.splitlines() if not line.startswith(key))
    assert f"small.yaml: {key}: missing; this key is required; add it" in refusal(text)


def test_a_missing_key_of_a_section_has_the_sections_line() -> None:
    assert refusal(MINIMAL.replace("{kind: builtin}", "{kind: file}")).startswith("small.yaml:5: prompts.path: missing")


def test_all_errors_are_reported_at_once() -> None:
    rows = refusal(MINIMAL + "seed: zero\nsampling: {temprature: 1.0}\nengine: {kind: vlm}\n").splitlines()
    assert [row.split(": ")[1] for row in rows] == ["seed", "engine.kind", "sampling.temprature"]


def test_a_setting_without_effect_is_refused() -> None:
    message = refusal(MINIMAL + "  temperature: 0\n")
    assert message.startswith("small.yaml:6: judging: num_draws: 3 has no effect at temperature 0")
    assert parse(MINIMAL, "judging.temperature=0", "judging.num_draws=1").judging.num_draws == 1


@pytest.mark.parametrize("name", ["a/b", "../up", "..", ".hidden", "", "a\\b", '"a\\n"', "a b", '"a\\0"'])
def test_a_name_that_is_not_a_plain_folder_name_is_refused(name: str) -> None:
    assert "name: found" in refusal(MINIMAL.replace("name: small", f"name: {name or repr('')}"))


def test_the_policy_is_needed_and_reserved_names_are_refused() -> None:
    assert "models: `policy` is missing" in refusal(MINIMAL.replace("policy:", "polcy:"))
    m_0 = Checkpoint("m", Path("m"), 0)
    for role in sorted(Roles.at_start({"policy": m_0}).advanced(best=m_0).keys() - {"policy"}):
        assert f"models: {role} is a reserved name" in refusal(MINIMAL, f"models.{role}={{model: x}}")


# --set


def test_set_reaches_nested_keys_and_creates_missing_sections() -> None:
    changed = parse(MINIMAL, "judging.num_draws=5", "training.beta=0.3", "evaluation.anchor.by=other", "seed=7")
    assert (changed.judging.num_draws, changed.training.beta, changed.seed) == (5, 0.3, 7)  # type: ignore[union-attr]
    assert changed.evaluation.anchor.by == "other"
    with pytest.raises(RecipeError, match=r"evaluation\.anchor.*an anchor must stay the same"):
        parse(MINIMAL, "evaluation.anchor.by=policy")
    assert parse(MINIMAL, "models.other.model=org/name").models["other"].model == "org/name"


def test_set_takes_lists_mappings_and_null_and_the_last_one_wins() -> None:
    losses = parse(MINIMAL, "training.losses=[{kind: sigmoid}, {kind: sft, weight: 0.2}]").training.losses
    assert [(loss.kind, loss.weight) for loss in losses] == [("sigmoid", 1.0), ("sft", 0.2)]
    assert parse(MINIMAL, "evaluation.verifiable=null").evaluation.verifiable is None
    assert parse(MINIMAL, "evaluation.verifiable=").evaluation.verifiable is None
    revived = parse(MINIMAL + "evaluation: {verifiable: null}\n", "evaluation.verifiable.num_prompts=3").evaluation
    assert revived.verifiable is not None and revived.verifiable.num_prompts == 3
    assert parse(MINIMAL, "seed=1", "seed=2").seed == 2
    assert parse(MINIMAL, "note=a=b").note == "a=b"


def test_set_overrides_the_file_and_leaves_the_rest() -> None:
    before = parse(MINIMAL + "sampling: {num_responses: 7, temperature: 0.9}\n")
    after = parse(MINIMAL + "sampling: {num_responses: 7, temperature: 0.9}\n", "sampling.num_responses=3")
    assert after == before.model_copy(update={"sampling": before.sampling.model_copy(update={"num_responses": 3})})


@pytest.mark.parametrize(
    "override", ["seed", "=3", "a..b=3", ".seed=3", "seed.=3", "training.losses[0]=3", "a b=3", ""]
)
def test_a_set_without_key_and_value_is_refused(override: str) -> None:
    assert refusal(MINIMAL, override).startswith(f"{override}: not KEY=VALUE")


def test_an_error_in_set_is_attributed_to_set_and_not_to_a_line_of_the_file() -> None:
    assert refusal(MINIMAL, "judging.num_drawz=3").startswith("override: judging.num_drawz: unknown key")
    assert refusal(MINIMAL, "judgin.num_draws=3").startswith("override: judgin: unknown key")
    assert refusal(MINIMAL, "training.losses=[{").startswith("override training.losses:1: ")
    mixed = refusal(MINIMAL + "sampling: {temprature: 1.0}\n", "seed=x").splitlines()
    assert [row.split(": ")[0] for row in mixed] == ["override", "small.yaml:8"]


# Files that are not recipes


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment\n", "- name\n- output_dir\n", "hello", "3", "null", "--- \n"]
)
def test_a_document_that_is_not_a_mapping_is_refused(text: str) -> None:
    said = "found no keys; a recipe is a mapping of sections; `selfreward init` writes one to start from"
    assert refusal(text) == f"small.yaml: {said}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [a\nseed: 0\n", 2),
        ("name: a\n\tseed: 0\n", 2),
        (MINIMAL + "note: 'open\n", 9),
        (MINIMAL + "a: b: c\n", 8),
        (MINIMAL + "---\nname: another\n", 8),
    ],
)
def test_broken_yaml_is_named_with_its_line(text: str, line: int) -> None:
    assert refusal(text).startswith(f"small.yaml:{line}: ")


def test_a_duplicate_key_is_refused() -> None:
    assert refusal(MINIMAL + "name: other\n").startswith('small.yaml:8: found duplicate key "name"')
    assert 'duplicate key "num_draws"' in refusal(MINIMAL + "  num_draws: 3\n  num_draws: 5\n")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"missing\.yaml: no such file"):
        recipe_file.load(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="it is a pipe or a device"):
        recipe_file.load(Path("/dev/zero"))
    with pytest.raises(RecipeError, match="it is a folder"):
        recipe_file.load(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(MINIMAL.encode() + "note: Grüße\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml: cannot be read .*UTF-8"):
        recipe_file.load(latin)
    latin.write_text(MINIMAL + "note: Grüße 😀\n", encoding="utf-8")
    assert recipe_file.load(latin, ["seed=3"]).note == "Grüße 😀"


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert recipe_file.load(file) == parse()


@pytest.mark.parametrize(
    "text",
    [
        'note: !!python/object/apply:os.system ["touch PLANTED"]\n',
        "note: !!python/name:os.system\n",
        "engine: !!python/object:selfreward.recipe.EngineSection {kind: vllm}\n",
        "note: !secret word\n",
        "note: !!binary aGVsbG8=\n",
        "seed: !!int '7'\n",
    ],
)
def test_tags_are_refused_and_nothing_is_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "small.yaml:8: the tag !" in refusal(MINIMAL + text)
    assert not list(tmp_path.iterdir())


def test_aliases_are_refused_before_they_grow() -> None:
    rows = ["note:", "  a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"  {b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)]
    assert refusal(MINIMAL + "\n".join(rows)).startswith("small.yaml:10: the alias *a; ")
    assert "the alias *a" in refusal(MINIMAL + "checkpoints: &a {keep: *a}\n")


def test_input_made_to_break_readers_is_refused() -> None:
    assert "nested" in refusal(MINIMAL + "note: " + "[" * 5000 + "]" * 5000)
    assert "digits" in refusal(MINIMAL + "seed: " + "9" * 5000)
    assert "surrogate" in refusal(MINIMAL + 'note: "\\ud800"\n')


# Dumps


MEMBERS = {
    schema.BuiltinPrompts: "prompts={kind: builtin, system_prompt: 'Be brief: no, on, 5e-7.'}",
    schema.FilePrompts: "prompts={kind: file, path: 'C:\\a b\\ü.jsonl', column: q}",
    schema.DatasetPrompts: "prompts={kind: dataset, name: org/set, config: 'no', revision: '2026-01-31'}",
    schema.VerifiablePrompts: "prompts={kind: verifiable, num_checks: 2, check_kinds: ['on', 'null', '1.0']}",
    schema.FactsPrompts: "prompts={kind: facts, topics: [capital, opposite]}",
    schema.AdditiveSection: "judging={kind: additive, num_draws: 11, temperature: 1}",
    schema.ExpectedScoreSection: "judging={kind: expected_score, by: initial, min_score_mass: 1e-9}",
    schema.VerifierSection: "judging={kind: verifier, aggregate: all}",
    schema.PairwiseSection: "judging={kind: pairwise, reasoning: {max_tokens: 9}, num_draws: 2, commit_first: {}}",
    schema.RubricSection: "judging={kind: rubric, criteria: [{name: 'no', description: 'a: b'}], normalise: true}",
    schema.ConstitutionSection: "judging={kind: constitution, principles: p.yaml, clamp: [0.1, 0.9], reasoning: {}}",
    schema.RewardModelSection: "judging={kind: reward_model, by: rm}",
    schema.IntrinsicSection: "judging={kind: intrinsic, reference: best, per_token: true}",
    schema.LikelihoodSection: "judging={kind: likelihood, by: initial, per_token: true}",
    schema.SelfConsistencySection: "judging={kind: self_consistency, answer: exact, marker: 'no: '}",
    schema.EnsembleSection: "judging={kind: ensemble, members: [{kind: verifier}, {kind: additive, by: initial}]}",
    schema.BestVsWorst: "pairing={kind: best_vs_worst, allow_truncated_chosen: true}",
    schema.LengthControlled: "pairing={kind: length_controlled, rho: 0.4}",
    schema.TopK: "pairing={kind: top_k, k: 3, min_margin: 0.5}",
    schema.InitialRejected: "pairing={kind: initial_rejected, label: preference, min_reliability: 0.4}",
}


def members(union: object) -> set[type]:
    return set(typing.get_args(typing.get_args(union)[0]))


def test_the_table_of_kinds_is_complete() -> None:
    unions = (schema.PromptsSection, schema.JudgingSection, schema.PairingSection)
    assert set(MEMBERS) == set().union(*map(members, unions))


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_every_kind_survives_dump_and_parse(member: type) -> None:
    recipe = parse(
        MINIMAL, MEMBERS[member], "evaluation.verifiable=null", "monitor.max_hours=0.5", "checkpoints.keep=2"
    )
    assert any(isinstance(section, member) for section in (recipe.prompts, recipe.judging, recipe.pairing))
    assert recipe_file.parse(recipe_file.dump(recipe)) == recipe


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["judging={kind: expected_score, num_draws: 4}"],
            "num_draws: 4 prompt variants; there are 3 without reasoning",
        ),
        (["judging={kind: pairwise, num_draws: 2}"], "num_draws: 2 has no effect without reasoning"),
        (["judging={kind: pairwise, reasoning: {temperature: 0}, num_draws: 2}"], "has no effect at temperature 0"),
        (["judging={kind: pairwise, temperature: 0.5}"], "judging.temperature: unknown key"),
        (["judging={kind: constitution, principles: a, clamp: [0.4, 0.6]}"], "clamp: it bounds probabilities after"),
        (
            ["judging={kind: constitution, principles: a, clamp: [0.3, 0.6], reasoning: {}}"],
            "bounds symmetric around 0.5",
        ),
        (["judging={kind: rubric, criteria: [{name: a, description: b}, {name: a, description: c}]}"], "a, a; each"),
        (["judging={kind: intrinsic, reference: policy}"], "policy is also `by`, so every score would be 0"),
        (["judging={kind: ensemble, members: [{kind: verifier}]}"], "at least 2 items"),
        (
            ["judging={kind: ensemble, variance_weight: 2.0, members: [{kind: verifier}, {kind: additive}]}"],
            "no effect",
        ),
        (
            ["judging={kind: ensemble, members: [{kind: additive}, {kind: additive, num_draws: 4}]}"],
            "some have num_draws 3, others 4",
        ),
        (
            ["judging={kind: verifier}", "meta_judging={}"],
            "meta_judging: it pairs several judgments of one response written by the policy",
        ),
        (["judging={kind: additive, by: initial}", "meta_judging={}"], "meta_judging: it pairs several judgments"),
        (["pairing={kind: top_k, label: consistency}", "checkpoints.keep=1"], "no previous judge"),
        (["evaluation.anchor.by=best"], "best changes during the run"),
        (["models.policy={endpoint: 'http://h/v1', model: x}"], "models.policy: an endpoint cannot be trained"),
        (["models.g={endpoint: 'ftp://h', model: x}"], "'ftp://h' is not a URL"),
        (["models.g={endpoint: 'http://u:p@h/v1', model: x}"], "must not contain secrets"),
        (["models.g={endpoint: 'http://h/v1', model: x, budget: 1.0}"], "without `price` no cost can be counted"),
        (["models.g={endpoint: 'http://h/v1', modell: x}"], "did you mean 'model'"),
    ],
)
def test_settings_without_effect_and_incompatible_sections_are_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(MINIMAL, *overrides)


def test_a_password_in_an_address_is_not_shown() -> None:
    assert "hunter2" not in refusal(MINIMAL, "models.g={endpoint: 'http://u:hunter2@h/v1', model: x}")


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
AWKWARD = st.sampled_from(
    ["", " ", "no", "on", "~", "null", "5e-7", "0o17", "2026-01-31", "- a", "a: b", "#", "'", "*a", "&a", "!!str", "%",
     "<<", "=", "\t", "\x00", "\u0085", "\u2028", "\ufeff", "a\n\n b\n", "\n\na", "\r\n", "word " * 60, "a  b " * 40]
)  # fmt: skip


@given(
    note=ANY_TEXT | AWKWARD,
    system_prompt=AWKWARD | ANY_TEXT,
    kinds=st.lists(AWKWARD | ANY_TEXT, min_size=1, max_size=3),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(min_value=0),
)
@settings(max_examples=60, deadline=None)
def test_any_text_and_number_survives_dump_and_parse(
    note: str, system_prompt: str, kinds: list[str], rate: float, seed: int
) -> None:
    base = parse()
    recipe = base.model_copy(
        update={
            "note": note,
            "seed": seed,
            "prompts": schema.VerifiablePrompts(kind="verifiable", system_prompt=system_prompt, check_kinds=kinds),
            "training": base.training.model_copy(update={"learning_rate": rate}),
        }
    )
    assert recipe_file.parse(recipe_file.dump(recipe)) == recipe


def test_the_dump_contains_every_default() -> None:
    text = recipe_file.dump(parse())
    for key in ("num_responses: 4", "beta: 0.1", "reference: iteration_start", "keep: null", "min_pairs: 8"):
        assert key in text


# Changes when a run is resumed


def changes(*overrides: str, before: str = MINIMAL) -> tuple[list[str], list[str]]:
    return recipe_file.changed_keys(parse(before), parse(before, *overrides))


def test_nothing_changed() -> None:
    assert changes() == ([], [])
    assert changes("sampling.temperature=0.8", "judging.num_draws=3") == ([], [])


@pytest.mark.parametrize(
    "override",
    ["iterations.max=9", "engine.kv_cache_gib=4", "training.micro_batch_size=1", "monitor.max_hours=1", "note=x",
     "checkpoints.keep=1", "engine.max_num_seqs=8", "training.save_every_steps=5", "engine.batch_tokens=100"],
)  # fmt: skip
def test_runtime_keys_may_change(override: str) -> None:
    (may,), may_not = changes(override)
    assert may.startswith(f"{override.split('=')[0]}: ") and may_not == []


@pytest.mark.parametrize(("old", "new"), KEYS.items())
def test_a_key_of_the_version_before_is_read_with_a_warning_unless_its_new_name_is_there_too(
    old: str, new: str
) -> None:
    value = "true" if old.startswith("pairing") else "0.5" if "share" in old else "4"
    section, _, key = old.partition(".")
    kind = "kind: best_vs_worst, " if section == "pairing" else ""
    new_key = new.partition(".")[2]
    wanted = recipe_file.parse(MINIMAL, overrides=[f"{section}={{{kind}{new_key}: {value}}}"])
    with pytest.warns(FutureWarning, match=f"{re.escape(old)} was renamed; it is called {re.escape(new)} now"):
        assert recipe_file.parse(MINIMAL, overrides=[f"{section}={{{kind}{key}: {value}}}"]) == wanted
    assert refusal(MINIMAL, f"{section}={{{kind}{key}: {value}, {new_key}: {value}}}") == (
        f"override: {old}: this key was renamed; it is called {new} now; rename it"
    )


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("sampling.temperature=0.7", "sampling.temperature: 0.8 -> 0.7"),
        ("models.policy.revision=abc", "models.policy.revision: None -> 'abc'"),
        ("models.gpt.model=x/y", "models.gpt.model: None -> 'x/y'"),
        ("training.losses=[{kind: ipo}]", "training.losses.0.kind: 'sigmoid' -> 'ipo'"),
        ("evaluation.verifiable=null", "evaluation.verifiable.num_prompts: 128 -> None"),
        ("evaluation.prompts={kind: builtin}", "evaluation.prompts.kind: None -> 'builtin'"),
        ("judging={kind: verifier}", "judging.kind: 'additive' -> 'verifier'"),
        ("pairing={kind: length_controlled}", "pairing.rho: None -> 0.35"),
        ("engine.dtype=float32", "engine.dtype: 'auto' -> 'float32'"),
        ("iterations.num_prompts_per_iteration=8", "iterations.num_prompts_per_iteration: 512 -> 8"),
    ],
)  # fmt: skip
def test_any_other_change_is_named(override: str, shown: str) -> None:
    may, may_not = changes(override, "iterations.max=5")
    assert shown in may_not
    assert "iterations.max: 4 -> 5" in may


def test_the_schema_for_editors_names_every_section() -> None:
    assert set(Recipe.model_json_schema()["properties"]) == set(Recipe.model_fields)


def test_the_included_recipes_are_valid() -> None:
    recipes = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        recipe = recipe_file.load(path)
        assert recipe.name == path.stem
        assert recipe_file.parse(recipe_file.dump(recipe)) == recipe


def test_a_key_that_the_user_made_may_not_change() -> None:
    key = "models.policy.chat_template_kwargs"
    assert changes(f"{key}={{style: terse}}") == ([], [f"{key}: {{}} -> {{'style': 'terse'}}"])
    before = parse(MINIMAL, "models.grader={endpoint: http://localhost:1/v1, model: m, extra_body: {seed: 1}}")
    after = parse(MINIMAL, "models.grader={endpoint: http://localhost:1/v1, model: m, extra_body: {seed: 2}}")
    assert recipe_file.changed_keys(before, after) == ([], ["models.grader.extra_body: {'seed': 1} -> {'seed': 2}"])
