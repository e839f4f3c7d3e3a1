"""Documents as lists of blocks, a copy of the checkout to run them in, and the service they talk to.

A block is run by its tag: `sh` and `python` in order, in one shell per document; with `file=PATH` it is written there
instead. `text` is not run (what waits for ever, or needs what is not here); `json` and `yaml` must parse.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.demo import running_service, wait_until_ready

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "benchmarks", "migrations", "tests", "worker")
FILES = ("Makefile", "README.md", "alembic.ini", "pyproject.toml")
_BLOCK = re.compile(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its tag, the file it is to become, its text."""

    tag: str
    file: str | None
    text: str


@dataclass(frozen=True)
class Document:
    """A page of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def prose(self) -> str:
        """Without its blocks."""
        return _BLOCK.sub("", self.text)

    @property
    def blocks(self) -> list[Block]:
        return [Block(tag, file or None, text) for tag, file, text in _BLOCK.findall(self.text)]

    @property
    def is_run(self) -> bool:
        return any(block.tag in ("sh", "python") for block in self.blocks)


DOCUMENTS = [Document(path) for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md")))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`document` is every page, `run_document` every page with commands in it."""
    for fixture, chosen in (("document", DOCUMENTS), ("run_document", [page for page in DOCUMENTS if page.is_run])):
        if fixture in metafunc.fixturenames:
            marked = [pytest.param(page, marks=_marks(page) if fixture == "run_document" else ()) for page in chosen]
            metafunc.parametrize(fixture, marked, ids=lambda page: page.name)


FOR_BUILDERS = re.compile(r"add-a|change-the|find-the|see-what")
"""How-tos whose commands take longer than the other pages' together; `make test-slow` runs them."""


def _marks(page: Document) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.slow,) if FOR_BUILDERS.match(page.path.name) else ()


@pytest.fixture
def documents() -> list[Document]:
    return DOCUMENTS


@pytest.fixture(scope="session")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running `slimline up`."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLIMLINE_WEBHOOK_PRIVATE_TARGETS", "true")  # receive-webhooks.md says so
        with running_service(folder) as url:
            yield wait_until_ready(folder, url)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, to change at will."""
    root = tmp_path / "slimline"
    root.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, root / file)
    (root / ".venv").symlink_to(sys.prefix)
    return root


@pytest.fixture
def follow(checkout: Path, service_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Document], None]:
    """Does what a page says, in the copy, with the service where the page has localhost:8000."""
    monkeypatch.setenv("SLIMLINE_URL", service_url)
    monkeypatch.setenv("SLIMLINE_DATA", str(checkout / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other crawl on a busy machine
    monkeypatch.setenv("PYTHONPATH", str(checkout))  # as if the copy were the installed checkout
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")

    def run(page: Document) -> None:
        lines = ["set -euo pipefail"]
        for number, block in enumerate(page.blocks):
            name = f".block-{number}.{block.tag}"
            (checkout / name).write_text(block.text.replace("localhost:8000", service_url.removeprefix("http://")))
            if block.file:
                lines.append(f"mkdir -p $(dirname {block.file}) && cp {name} {block.file}")
            elif block.tag == "sh":
                lines.append(f". ./{name}")
            elif block.tag == "python":
                lines.append(f"python {name}")
        done = subprocess.run(
            ["bash", "-x", "-c", "\n".join(lines)],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    return run
