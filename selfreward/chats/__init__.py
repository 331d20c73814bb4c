"""Models that judges query by name: in the run's own engine, or behind an OpenAI-compatible endpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from selfreward.parts import Chat, Engine, OwnTemplate
from selfreward.recipe import EndpointSection


def build(
    local: Iterable[str],
    endpoints: Mapping[str, EndpointSection],
    *,
    engine: Engine,
    cache_folder: Path,
    encoders: Mapping[str, OwnTemplate] | None = None,
) -> dict[str, Chat]:
    """Return all models that can judge, by name. `cache_folder` stores the replies of endpoints, a file per model.

    `encoders` encode the conversations of models with a chat template of their own; the engine encodes the others.
    """
    from selfreward.chats.local import LocalChat

    chats: dict[str, Chat] = {name: LocalChat(name, engine, (encoders or {}).get(name)) for name in local}
    if endpoints:
        from selfreward.chats.endpoint import EndpointChat

        chats |= {
            name: EndpointChat(name, section, cache_file=cache_folder / f"{name}.jsonl")
            for name, section in endpoints.items()
        }
    return chats
