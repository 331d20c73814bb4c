"""A configuration file of accelerate in the place of `launch.nodes`, `processes_per_node` and `sharding`.

Only what says where to compute is taken from it. What would change the result, or what this program does in another
way, is refused with the key to use instead.
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from selfreward.errors import RecipeError
from selfreward.recipe import LaunchSection

Sharding = Literal["none", "fsdp", "hsdp"]
_PLAIN: Final = ("NO", "MULTI_GPU", "MULTI_CPU")
_CHECKPOINTING: Final = "use training.gradient_checkpointing"
_UNUSED: Final[Mapping[str, str]] = {
    "dynamo_config": "models are not compiled",
    "fp8_config": "training computes in bfloat16 or float32",
    "megatron_lm_config": "FSDP shards the model",
    "mpirun_config": "torchrun and Ray start the processes",
    "tpu_use_cluster": "training runs on GPUs or CPUs",
}
_FSDP: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "fsdp_version": (lambda value: int(value) == 2, "FSDP2 is used: set it to 2"),
    "fsdp_offload_params": (lambda value: not value, "parameters stay on the GPUs: set it to false"),
    "fsdp_cpu_offload": (lambda value: not value, "parameters stay on the GPUs: set it to false"),
    "fsdp_activation_checkpointing": (lambda value: not value, f"set it to false, and {_CHECKPOINTING}"),
    "fsdp_reshard_after_forward": (
        lambda value: value in (True, "true", "FULL_SHARD", "HYBRID_SHARD"),
        "layers are sharded again after their forward pass: set it to true",
    ),
    "fsdp_sharding_strategy": (
        lambda value: value in (1, 4, "1", "4", "FULL_SHARD", "HYBRID_SHARD"),
        "FULL_SHARD (fsdp) and HYBRID_SHARD (hsdp) are known",
    ),
}
"""Keys of `fsdp_config` that would change how training computes: whether a value is what it does, and what that is."""


def resolved(section: LaunchSection) -> LaunchSection:
    """Return the section with what its configuration file says; without one, as it is. Raises RecipeError."""
    if section.accelerate_config is None:
        return section
    where = f"launch.accelerate_config: {section.accelerate_config}"
    config = _read(section.accelerate_config, where)
    _require_known(config, where)
    found = {"sharding": _sharding(config, where), **_sizes(config, where)}
    return section.model_copy(update={**found, "accelerate_config": None})


def _read(path: str, where: str) -> Any:
    """Return the file as accelerate reads it: a `ClusterConfig`."""
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        config = load_config_from_file(path)
        config.num_processes, config.num_machines = int(config.num_processes), int(config.num_machines)
    except (OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
        cause = " ".join(str(error).split())[:300]
        raise RecipeError(
            f"{where}: accelerate cannot read it ({cause}); a file that `accelerate config` writes is allowed; correct "
            "it, or use launch.nodes, processes_per_node and sharding"
        ) from error
    if not isinstance(config, ClusterConfig):
        raise RecipeError(f"{where}: compute_environment is not LOCAL_MACHINE, the one that is known; correct it")
    return config


def _require_known(config: Any, where: str) -> None:
    """Refuse what contradicts how training computes."""
    kind = _kind(config)
    if kind == "DEEPSPEED":
        raise RecipeError(_deepspeed(where))
    if kind not in (*_PLAIN, "FSDP"):
        raise RecipeError(
            f"{where}: distributed_type is {kind}; {', '.join(_PLAIN)} and FSDP are known; use one of them"
        )
    if config.mixed_precision not in (None, "no", "bf16"):
        raise RecipeError(
            f"{where}: mixed_precision is {config.mixed_precision}; training computes in bfloat16 on GPUs that can, "
            "and in float32 otherwise; bf16 and no are allowed; remove it"
        )
    if config.gpu_ids not in (None, "all"):
        raise RecipeError(
            f"{where}: gpu_ids is {config.gpu_ids}; all is allowed; remove it, and set CUDA_VISIBLE_DEVICES"
        )
    for name, reason in _UNUSED.items():
        value = getattr(config, name)
        if value and not (name == "dynamo_config" and value.get("dynamo_backend") == "NO"):
            raise RecipeError(f"{where}: {name} is set, and has no place here: {reason}; remove it")
    if kind == "FSDP":
        for name, (is_so, advice) in _FSDP.items():
            if name in config.fsdp_config and not is_so(config.fsdp_config[name]):
                raise RecipeError(f"{where}: {name} is {config.fsdp_config[name]}; {advice}")


def _kind(config: Any) -> str:
    kind = config.distributed_type
    return "NO" if kind is False else str(kind.value)  # in YAML, NO without quotes is false


def _deepspeed(where: str) -> str:
    instead = "use distributed_type: FSDP, or launch.sharding, which shard the same state"
    if importlib.util.find_spec("deepspeed") is None:
        return (
            f"{where}: distributed_type is DEEPSPEED, and the package deepspeed is not installed; install it with: "
            f"pip install deepspeed; or {instead}"
        )
    return f"{where}: distributed_type is DEEPSPEED, with which training cannot be resumed yet; {instead}"


def _sizes(config: Any, where: str) -> dict[str, int]:
    total, nodes = config.num_processes, config.num_machines
    if total < 1 or nodes < 1 or total % nodes:
        raise RecipeError(
            f"{where}: num_processes is {total} and num_machines is {nodes}; num_processes counts the processes of all "
            "machines, each of which has as many; correct them"
        )
    return {"nodes": nodes, "processes_per_node": total // nodes}


def _sharding(config: Any, where: str) -> Sharding:
    replicas, shards = (int(value) for value in _mesh(config, where))
    if _kind(config) != "FSDP":
        if shards > 1:
            raise RecipeError(f"{where}: parallelism_config shards; distributed_type: FSDP is needed for it; set that")
        return "none"
    nodes, total = config.num_machines, config.num_processes
    if replicas * shards > 1 and (replicas, shards) not in ((1, total), (nodes, total // nodes)):
        raise RecipeError(
            f"{where}: parallelism_config has {replicas} replicas of {shards} shards; known are 1 of {total}, and one "
            f"for each of the {nodes} machines; correct it"
        )
    is_hybrid = str(config.fsdp_config.get("fsdp_sharding_strategy")) in ("4", "HYBRID_SHARD")
    is_hybrid = is_hybrid or config.fsdp_config.get("fsdp_reshard_after_forward") == "HYBRID_SHARD"
    return "hsdp" if (is_hybrid or replicas > 1) and nodes > 1 else "fsdp"


def _mesh(config: Any, where: str) -> tuple[Any, Any]:
    """Return the replicas and the shards of `parallelism_config`, 1 and 1 where it is empty."""
    mesh = config.parallelism_config
    for name in ("tp", "cp", "sp"):
        if int(mesh.get(f"parallelism_config_{name}_size", 1)) != 1:
            raise RecipeError(f"{where}: parallelism_config_{name}_size is set; data parallelism is known; remove it")
    prefix = "parallelism_config_dp_"
    return mesh.get(f"{prefix}replicate_size", 1), mesh.get(f"{prefix}shard_size", 1)
