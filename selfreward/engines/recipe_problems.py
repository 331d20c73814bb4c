"""The checks that a recipe's engines fit the machine, its packages and the model."""

from collections.abc import Iterator

from selfreward.devices import visible_gpus
from selfreward.model_files.json_file import read_json_object, text_config
from selfreward.problems import Facts, Problem, warning
from selfreward.ray_cluster import INSTALL, has_ray
from selfreward.recipe import EngineSection


def problems(section: EngineSection, facts: Facts) -> Iterator[Problem]:
    """Yield why the engines of a recipe cannot start. How many GPUs a cluster has is known when they start."""
    size, replicas = section.tensor_parallel_size, section.replicas
    is_cluster = facts.recipe.launch.ray.address is not None
    num_gpus = len(visible_gpus())
    if not has_ray():
        yield from _without_ray(section, num_gpus, is_cluster=is_cluster)
    elif not is_cluster:
        yield from _on_this_machine(size, replicas, num_gpus)
    if size > 1:
        yield from _of_heads(size, facts)


def _without_ray(section: EngineSection, num_gpus: int, *, is_cluster: bool) -> Iterator[Problem]:
    size, replicas = section.tensor_parallel_size, section.replicas
    if is_cluster:
        yield Problem(f"launch.ray.address: Ray is not installed; install it with {INSTALL}, or set it to null")
    elif replicas != "auto" and replicas > 1:
        yield Problem(
            f"engine.replicas: found {replicas}, and Ray is not installed; several engines need it; install it with "
            f"{INSTALL}, or set it to 1"
        )
    elif replicas == "auto" and num_gpus // size > 1:
        yield warning(
            f"engine.replicas: auto is 1 without Ray, so {num_gpus - size} of {num_gpus} GPUs generate nothing; "
            f"install it with {INSTALL}"
        )


def _on_this_machine(size: int, replicas: str | int, num_gpus: int) -> Iterator[Problem]:
    wanted = 1 if isinstance(replicas, str) else replicas
    if size > 1 and size > num_gpus:
        yield Problem(
            f"engine.tensor_parallel_size: found {size}; this machine has {num_gpus} GPUs; at most as many are "
            "allowed; lower it"
        )
    elif num_gpus and wanted * size > num_gpus and wanted > 1:
        yield Problem(
            f"engine.replicas: found {wanted}, of {size} GPUs each; this machine has {num_gpus}; lower it, use auto, "
            "or set launch.ray.address to a cluster that has more"
        )


def _of_heads(size: int, facts: Facts) -> Iterator[Problem]:
    """Yield heads that cannot be divided; of those of keys, several ranks may have the same ones."""
    config = text_config(read_json_object(facts.models["policy"].path / "config.json"))
    heads = config.get("num_attention_heads")
    shared = config.get("num_key_value_heads", heads)
    if isinstance(heads, int) and heads % size:
        yield Problem(
            f"engine.tensor_parallel_size: found {size}; the policy has {heads} attention heads, which must be a "
            "multiple of it; use a divisor"
        )
    elif isinstance(shared, int) and shared and shared % size and size % shared:
        yield Problem(
            f"engine.tensor_parallel_size: found {size}; the policy has {shared} heads of keys and values; one of the "
            "two must be a multiple of the other; use another number"
        )
