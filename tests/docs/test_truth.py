"""What the documentation says exists, exists: files, links, names, settings, targets, error codes, methods, moves."""

import json
import pkgutil
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.contracts.measurement import Comparison
from app.contracts.recipe import METHODS, DataRole
from app.contracts.states import INGEST_MOVES, MOVES
from app.settings import Settings

ROOT = Path(__file__).parents[2]
TAGS = {"sh", "python", "text", "json", "yaml"}
FOLDERS = "app|worker|tests|docs|migrations|benchmarks|docker"
NOT_SETTINGS = {"SLIMLINE_URL", "SLIMLINE_API_KEY", "SLIMLINE_SHARED"}
"""Variables of the command and of the tests, not of the service."""
NOT_CODES = re.compile(
    r"SLIMLINE_|(LOCAL_)?(RANK|WORLD_SIZE)$|NCCL_|GLOO_|SC_|CUDA_VISIBLE|G?OMP_|ORT_|LC_ALL|LD_LIBRARY|MALLOC_|XDG_|OTEL_|SAME_(UPPER|LOWER)$"
)
STATUS_CODES = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
"""Problems made of an HTTP status alone; see `app.errors`."""


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_blocks_are_tagged_and_data_parses(document: Any) -> None:
    for block in document.blocks:
        assert block.tag in TAGS, block.text
        if block.tag == "json":
            json.loads(block.text)
        if block.tag == "yaml":
            yaml.safe_load(block.text)
    assert document.text.count("```") == 2 * len(document.blocks), "a fence that is not closed, or is indented"


def test_files_it_names_exist(document: Any) -> None:
    made = {block.file for block in document.blocks if block.file}
    named = set(re.findall(rf"`((?:{FOLDERS})/[\w./*-]+)`", document.prose))
    missing = [name for name in named if not list(ROOT.glob(name.rstrip("/"))) and name not in made]
    assert missing == []


def test_links_lead_somewhere(document: Any) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.prose):
        if not target.startswith("http"):
            assert (document.path.parent / target).exists(), target


def test_names_it_names_exist(document: Any) -> None:
    """`app.jobs.service.submit` and the like: modules, functions, classes, attributes."""
    for name in set(re.findall(r"`((?:app|worker)\.[A-Za-z_][\w.]*)(?:\(\))?`", document.prose)):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"{name}: {error}")


def test_settings_it_names_exist(document: Any) -> None:
    known = {name for name, _, _ in Settings().rows()} | NOT_SETTINGS
    assert set(re.findall(r"SLIMLINE_[A-Z_]+[A-Z]", document.text)) <= known


def test_make_targets_it_names_exist(document: Any) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)(?=`|$)", document.text, re.MULTILINE)) <= targets


def test_few_commands_are_not_run(documents: Any) -> None:
    """What waits for ever, or needs an engine: start, make, compose. Everything else has to be run."""
    allowed = re.compile(
        r"make |slimline (up|migrate|server|worker|beat)\b|docker |cp |celery |alembic downgrade |# |$|[A-Z_]+="
    )
    for page in documents:
        for block in page.blocks:
            commands = [line for line in block.text.splitlines() if line[:1] not in (" ", "│", "└")]
            if block.tag == "text" and commands and re.match(r"make|slimline|docker|\$", commands[0]):
                assert all(allowed.match(line) for line in commands), (page.name, block.text)


def test_the_table_of_changes_is_true() -> None:
    rows = re.findall(r"^\| I want to \w.*\|$", read("README.md"), re.MULTILINE)
    assert len(rows) >= 12
    for row in rows:
        places = re.findall(r"`([\w./-]+)`|\]\(([\w./-]+)\)", row)
        assert places, row
        for place in ("".join(pair) for pair in places):
            assert (ROOT / place).exists(), f"{place} in {row}"


def test_no_method_is_claimed_that_is_not_there() -> None:
    listed = set(re.findall(r"^\| `([a-z0-9]+(?:\.[a-z0-9]+)?)` \|", read("README.md"), re.MULTILINE))
    assert listed == METHODS.keys()


def test_the_benchmark_table_has_its_place() -> None:
    text = read("README.md")
    assert 0 < text.index("<!-- service-benchmark:begin -->") < text.index("<!-- service-benchmark:end -->")


def test_every_move_is_in_the_architecture() -> None:
    text = read("docs/architecture.md")
    for moves in (MOVES, INGEST_MOVES):
        for source, targets in moves.items():
            for target in targets:
                assert f"{source} -> {target}" in text


def test_the_picture_is_a_picture() -> None:
    root = ET.parse(ROOT / "docs/architecture.svg").getroot()
    assert root.tag.endswith("svg")
    assert root.get("viewBox")
    assert "architecture.svg" in read("docs/architecture.md")


def codes_in_code() -> set[str]:
    """Every code that a problem, a rejection or a failed job can have."""
    found = set(STATUS_CODES)
    for folder in ("app", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r"\"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\"", path.read_text()))
    found |= {
        f"{kind}_NOT_FOUND" for kind in ("MODEL", "DATASET", "JOB", "ARTIFACT", "METHOD", "EVENT", "WEBHOOK", "KEY")
    }
    found |= {f"{kind}_REJECTED" for kind in ("MODEL", "DATASET")}
    found |= {role.missing_code for role in DataRole}
    return {code for code in found if not NOT_CODES.match(code)} - {"UPLOAD_PROBLEMS"}


def test_every_code_has_its_entry_and_no_other() -> None:
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \|", read("app/problems/catalogue.md"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == codes_in_code()


def test_the_comparison_shown_is_one(documents: Any) -> None:
    [page] = [page for page in documents if page.name.endswith("read-the-comparison.md")]
    [shown] = [block for block in page.blocks if block.tag == "json"]
    comparison = Comparison.model_validate_json(shown.text)
    assert comparison.final
    for name in type(comparison.final).model_fields:
        assert f"`{name}`" in page.prose, f"{name} is not explained"


def test_decisions_are_numbered_and_complete() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What was tried"], page.name
