"""The container files install this checkout with pinned versions. Building them needs a builder, and a network."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "containers" / "Dockerfile"
APPTAINER = ROOT / "containers" / "selfreward.def"
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
SECTIONS = {"files", "post", "environment", "runscript", "test"}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"": []}
    for line in APPTAINER.read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            found[line[1:]] = []
        elif line and not line.lstrip().startswith("#"):
            found[list(found)[-1]].append(line.strip())
    return found


def test_the_dockerfile_has_known_instructions_and_starts_from_a_pinned_image() -> None:
    found = instructions()
    assert {name for name, _ in found} == INSTRUCTIONS
    assert found[0][0] == "FROM" and re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", found[0][1])


def test_the_apptainer_definition_has_known_sections_and_the_same_image() -> None:
    found = sections()
    assert set(found) == SECTIONS | {""}
    assert found[""] == ["Bootstrap: docker", f"From: {dict(instructions())['FROM']}"]


def test_both_install_the_same_packages_with_the_extras_of_this_checkout() -> None:
    commands = {rest for name, rest in instructions() if name == "RUN" and "install" in rest}
    docker = {word for command in commands for word in shlex.split(command) if "[" in word or "==" in word}
    apptainer = {word for line in sections()["post"] for word in shlex.split(line) if "[" in word or "==" in word}
    assert docker == apptainer
    (extras,) = (re.fullmatch(r"/src\[([\w,]+)\]", word) for word in docker if "[" in word)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= known.keys() - {"dev", "cpu"}
    assert all("==" in requirement for requirement in known["cuda"]), "the engine in the image is the tested one"


@pytest.mark.parametrize("kind", ["docker", "apptainer", "ignore"])
def test_what_is_copied_exists_and_is_all_that_the_build_needs(kind: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    copied = {
        "docker": [name for instruction, rest in instructions() if instruction == "COPY" for name in rest.split()[:-1]],
        "apptainer": [line.split()[0] for line in sections()["files"]],
        "ignore": [
            line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"
        ],
    }[kind]
    assert set(copied) == needed
    assert all((ROOT / name).exists() for name in copied)


def test_the_shell_of_the_apptainer_definition_parses(tmp_path: Path) -> None:
    script = tmp_path / "post.sh"
    script.write_text("\n".join(sections()["post"]), encoding="utf-8")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
