"""Templates of the recipe: a base model with a template given to it, and variables of templates."""

import json
import shutil
from pathlib import Path

import pytest

from selfreward.errors import ChatTemplateError, RecipeError
from selfreward.model_files import materialise
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import ModelSection
from selfreward.records import Message

USER, SYSTEM = Message("user", "Name a sea."), Message("system", "Be brief.")
BARE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model: random:tiny without its chat template."""
    folder = tmp_path / "base"
    shutil.copytree(materialise(ModelSection(model="random:tiny")), folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def with_template(folder: Path, template: str) -> ChatTokenizer:
    (folder / "chat_template.jinja").write_text(template)
    return ChatTokenizer(folder)


def test_a_base_model_without_a_template_is_refused_with_the_key(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"no chat template.* models\.judge\.chat_template to chatml, plain or"):
        materialise(ModelSection(model=str(base)), key="models.judge")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a sea.<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("plain", "System: Be brief.\n\nUser: Name a sea.\n\nAssistant:"),
    ],
)
def test_a_built_in_template_is_a_part_of_the_folder(base: Path, name: str, text: str) -> None:
    folder = materialise(ModelSection(model=str(base), chat_template=name))
    assert folder != base
    assert not (base / "chat_template.jinja").exists(), "the user's own folder is left alone"
    assert ChatTokenizer(folder).render([SYSTEM, USER]) == text
    assert (folder / "model.safetensors").resolve() == (base / "model.safetensors").resolve()
    assert materialise(ModelSection(model=str(base), chat_template=name)) == folder


def test_a_template_of_a_file_replaces_the_models_own(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "mine.jinja").write_text(BARE.replace("start", "pad"))
    folder = materialise(ModelSection(model="random:tiny", chat_template=str(tmp_path / "mine.jinja")))
    plain = AutoTokenizer.from_pretrained(folder)
    rendered = plain.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|pad|>user\nHi<|end|>\n", "whoever loads the folder gets this template"
    (tmp_path / "mine.jinja").write_text(BARE)
    assert materialise(ModelSection(model="random:tiny", chat_template=str(tmp_path / "mine.jinja"))) != folder


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), ("", "it is empty"), ("{{ 1 / 0 }}", "ZeroDivisionError")]
)
def test_a_template_that_cannot_be_used_is_refused(base: Path, tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "mine.jinja").write_text(content)
    with pytest.raises(RecipeError, match=said):
        materialise(ModelSection(model=str(base), chat_template=str(tmp_path / "mine.jinja")))


def test_the_token_that_ends_a_turn_ends_a_response(base: Path, tmp_path: Path) -> None:
    """As with chatml on a base model, whose end token is another one."""
    (tmp_path / "mine.jinja").write_text(BARE.replace("<|end|>", "<|pad|>"))
    folder = materialise(ModelSection(model=str(base), chat_template=str(tmp_path / "mine.jinja")))
    (end,), (pad,) = (ChatTokenizer(folder).encode_text(token) for token in ("<|end|>", "<|pad|>"))
    assert ChatTokenizer(base).end_token_ids == (end,)
    assert ChatTokenizer(folder).end_token_ids == tuple(sorted((end, pad)))
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == sorted((end, pad))


def test_variables_are_given_in_every_conversation(base: Path) -> None:
    switch = "{{ style }}{% if enable_thinking %}<think>{% endif %}"
    template = f"{BARE}{{% if add_generation_prompt %}}<|start|>assistant\n{switch}{{% endif %}}"
    (base / "chat_template.jinja").write_text(template)
    section = ModelSection(model=str(base), chat_template_kwargs={"enable_thinking": True, "style": "terse "})
    chat = ChatTokenizer.of(section, materialise(section))
    assert chat.render([USER]).endswith("assistant\nterse <think>")
    assert chat.decode(chat.encode([USER])).endswith("assistant\nterse <think>")
    assert chat.decode(chat.encode([USER], thinking=False)).endswith("assistant\nterse ")


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "two words"])
def test_variables_of_the_program_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="chat_template_kwargs"):
        ModelSection(model="x", chat_template_kwargs={name: 1})


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (BARE, "<|start|>user\nName a sea.<|end|>\n<|start|>assistant\n"),
        (
            "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}END",
            "USER: Name a sea.\nASSISTANT:",
        ),
        # Mistral's and Llama 2's way: the assistant begins where the user's turn ends.
        (
            "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
            "{% else %} {{ m.content }}<|end|>{% endif %}{% endfor %}",
            "[INST] Name a sea. [/INST]",
        ),
        (BARE + "{{ '<|start|>assistant\n' }}", "<|start|>user\nName a sea.<|end|>\n<|start|>assistant\n"),
    ],
)
def test_a_prompt_ends_where_the_assistant_begins(base: Path, template: str, prompt: str) -> None:
    chat = with_template(base, template)
    assert chat.render([USER]) == prompt
    assert chat._tokenizer.decode(chat.encode([USER])) == prompt


def test_a_template_that_never_shows_an_assistant_is_refused(base: Path) -> None:
    chat = with_template(
        base, "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    with pytest.raises(ChatTemplateError, match="no generation prompt"):
        chat.encode([USER])


def test_the_cache_follows_xdg_unless_it_has_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfreward.model_files.cache import cache_root

    monkeypatch.setenv("SELFREWARD_CACHE", "/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_root() == Path("/mine")
    monkeypatch.delenv("SELFREWARD_CACHE")
    assert cache_root() == Path("/shared/selfreward")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == Path.home() / ".cache" / "selfreward"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "selfreward"
