"""The child process of `template_check`: renders a chat template on a few conversations, in limited time and memory.

It reads {"template", "tokens", "variables", "max_chars"} from standard input and prints {"failed", "error"}: the first
conversation that exceeds a limit, or the simplest one if it cannot be rendered at all. It is a script of jinja2 alone,
because transformers takes seconds to import; the environment has the same extensions, filters and globals as that of
transformers.
"""

import json
import resource
import sys
from datetime import datetime
from functools import cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_BYTES = 2**30
MAX_CPU_S = 3  # for all conversations, of which an ordinary template renders thousands in that time
_SAID = "Hello"
_LONG = "All work and no play makes a dull text. " * 100


class _Generation(jinja2.ext.Extension):
    """The block {% generation %}, which marks what an assistant wrote and changes no text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Any) -> str:
        return str(caller())


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def conversations() -> dict[str, dict[str, Any]]:
    """Return the variables of each rendering by its name, the simplest one first."""
    user, assistant = {"role": "user", "content": _SAID}, {"role": "assistant", "content": "Hello!"}
    system = {"role": "system", "content": "Answer briefly."}
    turns = [{**(assistant if turn % 2 else user), "content": _LONG} for turn in range(21)]
    return {
        "one user turn": {"messages": [user], "add_generation_prompt": True},
        "one turn without thinking": {"messages": [user], "add_generation_prompt": True, "enable_thinking": False},
        "three turns": {"messages": [user, assistant, user], "add_generation_prompt": True},
        "a system and a user turn": {"messages": [system, user], "add_generation_prompt": True},
        "a finished conversation": {"messages": [user, assistant], "add_generation_prompt": False},
        "21 long turns": {"messages": turns, "add_generation_prompt": True},
    }


def probe(
    source: str, tokens: dict[str, str], *, max_chars: int, given: dict[str, Any] | None = None
) -> tuple[str, str] | None:
    """Return the first conversation that exceeds a limit or, if it is the simplest one, fails; and the error.

    `given` are variables of the recipe.
    """
    compiled = cache(_environment().from_string)
    for number, (name, variables) in enumerate(conversations().items()):
        try:
            template = compiled(source)
            parts, num_chars = [], 0
            for part in template.generate(**{**tokens, "tools": None, "documents": None, **(given or {}), **variables}):
                parts.append(part)
                num_chars += len(part)
                if num_chars > max_chars:
                    return name, f"it makes more than {max_chars:,} characters"
            if number == 0 and _SAID not in "".join(parts):
                return name, f"its text, {_SAID!r}, is not in what the template makes"
        except (MemoryError, RecursionError) as error:
            return name, f"{type(error).__name__}: {error}"
        except jinja2.TemplateSyntaxError as error:
            return name, f"line {error.lineno}: {error.message}"
        except Exception as error:  # noqa: BLE001 a template may raise anything
            if number == 0:  # a template may refuse other conversations
                return name, f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin)
    found = probe(request["template"], request["tokens"], max_chars=request["max_chars"], given=request["variables"])
    failed, error = found or (None, None)
    print(json.dumps({"failed": failed, "error": error and error[:500]}))


if __name__ == "__main__":
    main()
