"""What is taken from a configuration file of accelerate, and what is refused."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import LaunchSection
from selfreward.settled import settled
from selfreward.updates import accelerate_file
from selfreward.updates.accelerate_file import resolved
from selfreward.updates.settings import settings_of

PLAIN = {"distributed_type": "MULTI_GPU", "num_machines": 2, "num_processes": 16, "mixed_precision": "bf16"}
SHARDED = {**PLAIN, "distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}


def read(folder: Path, values: object) -> LaunchSection:
    import json

    (folder / "accelerate.yaml").write_text(json.dumps(values))  # JSON is YAML
    return resolved(LaunchSection(accelerate_config=str(folder / "accelerate.yaml")))


def launch(sharding: str, *, nodes: int = 2, processes: int = 8) -> LaunchSection:
    return LaunchSection.model_validate({"nodes": nodes, "processes_per_node": processes, "sharding": sharding})


def test_processes_nodes_and_sharding(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN) == launch("none")
    assert read(tmp_path, {"distributed_type": "NO"}) == LaunchSection()
    assert read(tmp_path, SHARDED) == launch("fsdp")
    hybrid = {**SHARDED, "fsdp_config": {"fsdp_version": 2, "fsdp_reshard_after_forward": "HYBRID_SHARD"}}
    assert read(tmp_path, hybrid) == launch("hsdp")
    mesh = {"parallelism_config_dp_replicate_size": 2, "parallelism_config_dp_shard_size": 8}
    assert read(tmp_path, {**SHARDED, "parallelism_config": mesh}) == launch("hsdp")
    assert read(tmp_path, {**hybrid, "num_machines": 1}) == launch("fsdp", nodes=1, processes=16)


def test_a_file_that_accelerate_writes(tmp_path: Path) -> None:
    from accelerate.commands.config.default import write_basic_config

    write_basic_config(save_location=str(tmp_path / "default.json"))
    assert resolved(LaunchSection(accelerate_config=str(tmp_path / "default.json"))).num_processes >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixed_precision": "fp16"}, "mixed_precision is fp16; .* bf16 and no are allowed"),
        ({"gpu_ids": "0,1"}, "gpu_ids is 0,1; all is allowed; .* set CUDA_VISIBLE_DEVICES"),
        ({"num_processes": 3}, "num_processes is 3 and num_machines is 2; .* each of which has as many"),
        ({"distributed_type": "MEGATRON_LM"}, "distributed_type is MEGATRON_LM; NO, MULTI_GPU, MULTI_CPU and FSDP"),
        ({"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, "dynamo_config is set, .* not compiled; remove it"),
        ({"fsdp_config": {"fsdp_version": 1}}, "fsdp_version is 1; FSDP2 is used: set it to 2"),
        ({"fsdp_config": {"fsdp_offload_params": True}}, "fsdp_offload_params is True; .* set it to false"),
        ({"fsdp_config": {"fsdp_activation_checkpointing": True}}, "use training.gradient_checkpointing"),
        ({"parallelism_config": {"parallelism_config_tp_size": 2}}, "parallelism_config_tp_size is set"),
        ({"parallelism_config": {"parallelism_config_dp_shard_size": 4}}, "1 replicas of 4 shards; known are 1 of 16"),
        ({"number": 1}, r"accelerate cannot read it \(The config file .* unknown keys"),
        ({"compute_environment": "AMAZON_SAGEMAKER"}, "accelerate cannot read it|is not LOCAL_MACHINE"),
    ],
)
def test_what_contradicts_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=f"accelerate.yaml: .*{message}"):
        read(tmp_path, {**SHARDED, **changes})


@pytest.mark.parametrize("text", ["[", "3", "", "num_processes: x\ndistributed_type: NO"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    for name in ("broken.yaml", "missing.yaml"):
        with pytest.raises(RecipeError, match=rf"launch.accelerate_config: .*{name}: "):
            resolved(LaunchSection(accelerate_config=str(tmp_path / name)))


def test_deepspeed_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate_file.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"the package deepspeed is not installed; .* pip install deepspeed"):
        read(tmp_path, {**PLAIN, "distributed_type": "DEEPSPEED"})


def test_the_keys_that_it_replaces_are_refused_beside_it() -> None:
    with pytest.raises(ValueError, match="accelerate_config and nodes, sharding are both set"):
        LaunchSection(accelerate_config="a.yaml", nodes=2, sharding="fsdp")


def test_a_run_and_a_plan_compute_as_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "accelerate.yaml").write_text("{distributed_type: MULTI_CPU, num_machines: 1, num_processes: 2}")
    overrides = (f"launch.accelerate_config={tmp_path / 'accelerate.yaml'}", f"output_dir={tmp_path / 'run'}")
    recipe = recipe_file.load(Path(__file__).parents[3] / "recipes/tiny.yaml", overrides)
    assert settled(recipe).launch == settings_of(recipe).launch == LaunchSection(processes_per_node=2)
