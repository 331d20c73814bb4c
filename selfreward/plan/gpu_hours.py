"""The GPU-hours of a plan by stage, what they cost, and what they rest on."""

from collections.abc import Iterator

from selfreward.plan import cluster as talk
from selfreward.plan.layout import aligned, entry, prose, time_range
from selfreward.plan.planning import Plan
from selfreward.plan.seconds import Seconds
from selfreward.plan.work import columns_of


def gpu_hours(plan: Plan, price: float | None) -> str:
    """Return the table, and sentences on its assumptions. All GPUs are held for the whole run, busy or not."""
    heading = ["", "time", "GPU-hours", *(["cost"] if price is not None else [])]
    rows = [[name, *_cells(seconds, plan.machine.count, price)] for name, seconds in _by_column(plan)]
    assumptions = [_layout(plan), *([_talk()] if plan.machine.count > 1 else []), _unknown(plan)]
    return "\n\n".join([f"GPU-hours\n{aligned([heading, *rows])}", *assumptions])


def _by_column(plan: Plan) -> Iterator[tuple[str, Seconds]]:
    """Yield the sum over iterations of the stages in a column of the tables, then of all other stages, then of all."""
    columns = {name: column for column, names in columns_of(plan.iterations).items() for name in names}
    sums: dict[str, Seconds] = {}
    for stages in plan.stages:
        for name, seconds in stages.items():
            column = columns.get(name, name)
            sums[column] = sums.get(column, Seconds(0.0, 0.0)) + seconds
    yield from sums.items()
    yield "start", plan.start
    yield "total", sum(sums.values(), plan.start)


def _cells(seconds: Seconds, num_gpus: int, price: float | None) -> list[str]:
    hours = [num_gpus * end / 3600 for end in (seconds.low, seconds.high)]
    cost = [] if price is None else [_ends([price * each for each in hours])]
    return [time_range(seconds), _ends(hours), *cost]


def _ends(values: list[float]) -> str:
    low, high = (f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values)
    return low if low == high else f"{low} to {high}"


def _layout(plan: Plan) -> str:
    cluster, launch = plan.cluster, plan.recipe.launch
    engines = f"{cluster.num_replicas} engine{'s' if cluster.num_replicas > 1 else ''}"
    engines += f" of {cluster.gpus_per_replica} GPUs" if cluster.gpus_per_replica > 1 else ""
    shards = {"none": "replicated", "fsdp": f"sharded over {cluster.num_shards} GPUs"}.get(
        launch.sharding, f"sharded over the {cluster.num_shards} GPUs of a node and replicated over nodes"
    )
    trainers = f"{cluster.num_trainers} GPUs, {shards}" if cluster.num_trainers > 1 else "one GPU"
    return entry("layout", f"{engines}; training on {trainers}. All {plan.machine.count} GPUs are held all the time.")


def _talk() -> str:
    network, links = talk.NETWORK_GB_S, talk.LINK_SHARE
    return prose(
        f"Assumed between GPUs: {links.slow:.0%} to {links.fast:.0%} of their links inside a node, "
        f"{network.slow:g} to {network.fast:g} GB/s per GPU between nodes; overlapped with computation at the fast "
        f"end, not at all at the slow end; a model on several GPUs reaches {talk.TENSOR_PARALLEL_SHARE.slow:.0%} to "
        f"{talk.TENSOR_PARALLEL_SHARE.fast:.0%} of their rate."
    )


def _unknown(plan: Plan) -> str:
    disk, driver = talk.DISK_GB_S, talk.DRIVER_S
    return prose(
        f"Assumed: the file system reads and writes {disk.slow:g} to {disk.fast:g} GB/s; the program itself takes "
        f"{1e3 * driver.fast:g} to {1e3 * driver.slow:g} ms per sample, during which the GPUs wait. Not known: "
        "stragglers and lost nodes, the queue of a cluster, compilation and CUDA graphs beyond the start, uneven "
        "lengths of responses between engines, models of endpoints, and how far this hardware is from its maker's "
        "figures (docs/scaling.md)."
    )
