"""The checks that one engine can load all models of a recipe in turn, and of what their chat templates support."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from selfreward.errors import ChatTemplateError
from selfreward.model_files.estimated import has_tokenizer
from selfreward.model_files.json_file import read_json_object
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.problems import Facts, Problem, warning
from selfreward.recipe import ModelSection, NamedModel

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def problems(section: Mapping[str, NamedModel], facts: Facts, *, scoring: Set[str]) -> Iterator[Problem]:
    """Yield models whose shape differs from the policy's; `scoring` models run outside the engine."""
    policy = _shape(facts.models["policy"].path)
    for name in section:
        model = facts.models.get(name)
        if model is not None and name not in scoring and (found := _shape(model.path)) != policy:
            yield Problem(
                f"models.{name}: its shape is {found}; the policy's is {policy}, and the engine loads weights in "
                "place, so the two must be equal; use a model of the policy's architecture"
            )
    for name, each in facts.recipe.local_models.items():
        if name in facts.models and has_tokenizer(facts.models[name].path):
            chat = ChatTokenizer.of(each, facts.models[name].path)
            yield from _of_variables(f"models.{name}", each, chat)
            if name not in scoring:
                yield from _of_turns(f"models.{name}", chat, stop=facts.recipe.sampling.stop)
    if facts.recipe.policy.chat_template == "plain" and not facts.recipe.sampling.stop:
        yield warning(
            "models.policy.chat_template: plain has no token of its own that ends a turn, and a base model often "
            "continues with the user's next turn, which is then judged and trained on; responses should end there; set "
            'sampling.stop to ["\\nUser:"]'
        )
    yield from _of_system_turns(facts)


def _of_variables(key: str, section: ModelSection, chat: ChatTokenizer) -> Iterator[Problem]:
    for name in section.chat_template_kwargs:
        if name not in chat.template:
            yield warning(
                f"{key}.chat_template_kwargs: the chat template does not contain {name!r}, so it may have no effect"
            )


def _of_turns(key: str, chat: ChatTokenizer, *, stop: Sequence[str]) -> Iterator[Problem]:
    """Yield what a user should know about the chat template of a model whose responses end at `stop` too."""
    try:
        if not chat.has_generation_prompt:
            yield warning(
                f"{key}: its chat template has no generation prompt; what it writes before the text of an assistant is "
                "appended to every prompt"
            )
    except ChatTemplateError as error:
        yield Problem(f"{key}: {error}")
    if chat.turn_end and chat.turn_end not in stop and chat.turn_end_id not in chat.end_token_ids:
        yield warning(
            f"{key}: its chat template ends the turn of an assistant with {chat.turn_end!r:.60}, which does not begin "
            "with a token that ends a response; add it to sampling.stop, or its token to eos_token_id in "
            "generation_config.json; for a base model whose tokenizer has no such token, use chat_template: plain"
        )


def _of_system_turns(facts: Facts) -> Iterator[Problem]:
    """Yield a warning when prompts have a system turn, and the policy's chat template has no system role."""
    folder = facts.models["policy"].path
    if not has_tokenizer(folder) or ChatTokenizer.of(facts.recipe.policy, folder).has_system_role:
        return
    iterations = range(1, facts.recipe.iterations.max + 1)
    if any(prompt.messages[0].role == "system" for t in iterations for prompt in facts.source.training_prompts(t)):
        yield warning(
            "models.policy: its chat template has no system role; the system prompt is put before the first user turn"
        )


def _shape(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json")
    return {key: config.get(key) for key in _SHAPE}
