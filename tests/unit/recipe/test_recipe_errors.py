"""Messages about recipes that are wrong: what is needed, what it is called here, and how to write it."""

import re

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import Recipe

MINIMAL = """\
name: small
output_dir: runs/small
models:
  policy: {model: "random:tiny"}
prompts: {kind: builtin}
"""


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_file.parse(text, name="small.yaml", overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("adapter", "models.policy.lora: {} trains adapters"),
        ("models.policy.adapter", "models.policy.lora: {} trains adapters"),
        ("rl", "training.losses selects its loss"),
        ("load_in_4bit", "models.policy.lora.base_dtype: nf4"),
        ("models.policy.load_in_4bit", "models.policy.lora.base_dtype: nf4"),
        ("report_to", "metrics.jsonl"),
        ("training.report_to", "metrics.jsonl"),
        ("gradient_accumulation_steps", "training.micro_batch_tokens divide it"),
        ("training.gradient_accumulation_steps", "training.micro_batch_tokens divide it"),
        ("training.per_device_train_batch_size", "training.batch_size is the number of pairs of an optimizer step"),
        ("training.max_length", "engine.context_tokens limits prompt and response together"),
        ("sampling.max_length", "sampling.max_tokens the response"),
        ("bf16", "training.weights_dtype"),
        ("engine.bf16", "engine.dtype"),
        ("training.save_steps", "training.save_every_steps"),
        ("save_steps", "checkpoints.keep"),
        ("training.logging_steps", "run.log"),
    ],
)
def test_a_key_of_other_trainers_without_one_counterpart_has_an_answer(key: str, words: str) -> None:
    (message,) = refusal(MINIMAL, f"{key}=1").splitlines()
    assert message.startswith(f"override: {key}: unknown key; ") and words in message
    assert "allowed are" not in message, "the list of keys would hide the answer"


@pytest.mark.parametrize("losses", ["[{kind: dpo}]", "[dpo]", "[{kind: DPO}]"])
def test_dpo_is_the_loss_sigmoid(losses: str) -> None:
    assert refusal(MINIMAL, f"training.losses={losses}").endswith("; DPO's loss is 'sigmoid'")


@pytest.mark.parametrize("value", ["3", "[3]", "true", "word", "{a: {b: 1}}", "[word]"])
@pytest.mark.parametrize(
    "key",
    [*Recipe.model_fields, "models.policy", "models.policy.lora", "models.policy.chat_template", "models.gpt",
     "models.gpt.price", "judging.members", "evaluation.anchor", "evaluation.gold", "evaluation.verifiable",
     "training.losses", "monitor.interventions", "monitor.interventions.DRIFT", "prompts.columns"],
)  # fmt: skip
def test_no_message_speaks_of_classes_or_of_pydantic(key: str, value: str) -> None:
    try:
        recipe_file.parse(MINIMAL, overrides=["models.gpt={endpoint: 'http://a/v1', model: m}", f"{key}={value}"])
    except RecipeError as error:
        assert not re.search(r"Section|instance|object|factory|Pydantic|dictionary|literal\[|function-", str(error)), (
            error
        )


def test_a_wrong_section_is_answered_with_its_keys_or_kinds() -> None:
    assert refusal(MINIMAL, "models.policy.lora=3") == (
        "override: models.policy.lora: found 3; a section is needed; its keys are alpha, base_dtype, rank; "
        "write {KEY: VALUE}"
    )
    assert "found 'vllm'; a section is needed; write {kind: vllm}" in refusal(MINIMAL, "engine=vllm")
    assert "its kind is one of additive, expected_score" in refusal(MINIMAL, "judging=3")
    assert "write models: {policy: my/model}" in refusal(MINIMAL, "models=my/model")
    assert "or the name or the path of a model" in refusal(MINIMAL, "models.policy=3")
    assert len(refusal(MINIMAL, "models.policy.chat_template=3").splitlines()) == 1, "one message for a union"


def test_a_text_in_braces_without_quotes_is_to_be_quoted() -> None:
    assert refusal(MINIMAL.replace("runs/small", "{name}")).startswith("small.yaml:2: output_dir: found {name}, which")
    assert refusal(MINIMAL.replace("runs/small", "{name}")).endswith('quote it: "{name}"')
    assert refusal(MINIMAL, "output_dir={name}").endswith("""quote it: 'output_dir="{name}"'""")
    for message in (
        refusal(MINIMAL.replace("runs/small", "{name}-{seed}")),
        refusal(MINIMAL, "output_dir={name}-{seed}"),
    ):
        assert message.endswith('a text that begins with { needs quotes; write "{name}-{seed}"')


def test_a_value_that_the_shell_has_cut_is_to_be_quoted() -> None:
    message = refusal(MINIMAL, "prompts={kind: file,")
    assert message.startswith("override prompts:1: expected")
    assert message.endswith("quote the override for the shell, as in 'prompts={...}', and close every bracket")
