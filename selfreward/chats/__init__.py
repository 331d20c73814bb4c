"""Models that judges query by name: in the run's own engine, or behind an OpenAI-compatible endpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from selfreward.parts import Chat, Engine
from selfreward.recipe import EndpointSection


def build(
    local: Iterable[str], endpoints: Mapping[str, EndpointSection], *, engine: Engine, cache_folder: Path
) -> dict[str, Chat]:
    """Return all models that can judge, by name. `cache_folder` stores the replies of endpoints, a file per model."""
    from selfreward.chats.local import LocalChat

    chats: dict[str, Chat] = {name: LocalChat(name, engine) for name in local}
    if endpoints:
        from selfreward.chats.endpoint import EndpointChat

        chats |= {
            name: EndpointChat(name, section, cache_file=cache_folder / f"{name}.jsonl")
            for name, section in endpoints.items()
        }
    return chats
