"""The Dockerfiles, without an engine to build them: instructions, sources, pins, users, and what is sent to a build."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


def read(path: Path) -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def of(path: Path, instruction: str) -> list[str]:
    return [rest for word, rest in read(path) if word == instruction]


def test_both_are_found() -> None:
    assert [path.name for path in FILES] == ["server.Dockerfile", "worker.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
class TestDockerfile:
    def test_instructions_are_known_and_begin_with_a_pinned_base(self, path: Path) -> None:
        parsed = read(path)
        assert {word for word, _ in parsed} <= INSTRUCTIONS
        assert parsed[0][0] == "ARG"
        assert re.fullmatch(r"BASE=python:\d+\.\d+\.\d+-slim-bookworm", parsed[0][1])

    def test_stages_name_what_came_before(self, path: Path) -> None:
        known = {"${BASE}"}
        stages = of(path, "FROM")
        assert len(stages) > 1
        for stage in stages:
            base, _, name = stage.partition(" AS ")
            assert base in known
            known.add(name)
        for source in re.findall(r"--from=(\w+)", path.read_text()):
            assert source in known

    def test_what_is_copied_exists_and_is_sent_to_the_build(self, path: Path) -> None:
        sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for copied in of(path, "COPY"):
            if copied.startswith("--from="):
                continue
            *sources, _ = copied.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in sent, source

    def test_every_install_is_held_to_the_constraints(self, path: Path) -> None:
        for run in of(path, "RUN"):
            for install in re.findall(r"pip install [^&;]*", run):
                assert "--constraint constraints.txt" in install or "--no-deps" in install, install

    def test_it_runs_as_a_user_of_its_own(self, path: Path) -> None:
        final = path.read_text().rpartition("FROM")[2]
        assert re.search(r"^USER \d+$", final, re.MULTILINE)

    def test_run_lines_are_valid_shell(self, path: Path) -> None:
        for run in of(path, "RUN"):
            done = subprocess.run(["sh", "-n", "-c", run], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{run}: {done.stderr}"


def test_the_server_gets_no_extra_and_the_worker_its_own() -> None:
    server, worker = (" ".join(of(path, "RUN")) for path in FILES)
    assert "[worker]" in worker
    assert "[" not in re.sub(r"test .*?;|\[ .*? \]", "", server)


def test_the_server_image_can_run_beat_without_the_worker_extra() -> None:
    code = (
        "import sys, worker.__main__;"
        "print({'torch', 'onnx', 'onnxruntime', 'numpy'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_package_holds_the_migrations() -> None:
    """What `pip install .` copies into an image: found as setuptools finds it."""
    import tomllib

    from setuptools import find_namespace_packages  # type: ignore[import-untyped]  # it ships no types

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    found: list[Any] = find_namespace_packages(str(ROOT), include=wanted)
    assert {"app.jobs", "worker.engine.graph.passes", "migrations", "migrations.versions"} <= set(found)
    assert not [name for name in found if name.startswith(("tests", "docs", "benchmarks"))]
