"""The borders of docs/architecture.md, kept by a machine: who may import whom, and how light the server stays."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("app", "worker") for path in (ROOT / folder).rglob("*.py"))
HEAVY = {"torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "numpy", "scipy", "PIL", "pandas", "worker"}


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def imported_by(statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_server_loads_nothing_heavy() -> None:
    assert not imported_by("import app.main; app.main.create_app") & HEAVY


def test_the_command_loads_no_server() -> None:
    assert not imported_by("import app.cli") & (HEAVY | {"fastapi", "sqlalchemy", "celery", "uvicorn"})


def test_families_of_operators_stand_alone() -> None:
    """What they share is in `kernels`; only an operator of com.microsoft may build on the one that it extends."""
    operators = ROOT / "worker/engine/torch_graph/operators"
    for path in operators.glob("*.py"):
        names = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        others = {name for name in names if name and name.startswith("worker.engine.torch_graph.operators.")}
        assert not others or path.name.startswith("contributed_"), f"{path.name} imports {others}"


def test_kernels_enter_no_operator() -> None:
    for path in (ROOT / "worker/engine/torch_graph/kernels").glob("*.py"):
        assert "@operator(" not in path.read_text(), path.name


def test_the_engine_loads_no_service() -> None:
    service = {"celery", "sqlalchemy", "fastapi", "httpx", "obstore", "kombu", "redis"}
    assert not imported_by("from worker.engine import Graph, compress") & service


def test_contracts_need_only_pydantic() -> None:
    loaded = imported_by("import app.contracts.job_spec, app.contracts.events, app.contracts.messages")
    assert not loaded & {"fastapi", "sqlalchemy", "celery", "httpx", "yaml", "structlog", "numpy"}


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_only_the_edge_commits() -> None:
    edge = ROOT / "app/db/database.py"
    sessions = [path for path in (ROOT / "app").rglob("*.py") if path != edge and "sqlalchemy" in path.read_text()]
    found = [f"{path}:{line}" for path in sessions for line, name in calls(path) if name.endswith(".commit")]
    assert found == []


@pytest.mark.parametrize("layer", ["routes", "service"])
def test_no_query_above_the_repository(layer: str) -> None:
    banned = {
        "select",
        "update",
        "insert",
        "delete",
        "text",
        "session.execute",
        "session.scalar",
        "session.scalars",
        "session.query",
    }
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in (ROOT / "app").glob(f"*/{layer}.py")
        for line, name in calls(path)
        if name in banned
    ]
    assert found == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [str(path.relative_to(ROOT)) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_files_and_functions_stay_small() -> None:
    large = [f"{path.relative_to(ROOT)}: file" for path in SOURCES if len(path.read_text().splitlines()) > 500]
    large += [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 80
    ]
    assert large == []


def test_no_pickle_is_ever_read() -> None:
    banned = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "eval", "exec"}
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}" for path in SOURCES for line, name in calls(path) if name in banned
    ]
    assert found == []


def test_every_slice_has_the_same_names_inside() -> None:
    allowed = {"__init__.py", "routes.py", "service.py", "repository.py", "tables.py", "schemas.py"}
    for slice_ in (
        "jobs",
        "models",
        "datasets",
        "artifacts",
        "methods",
        "problems",
        "health",
        "webhooks",
        "audit",
        "keys",
    ):
        here = {path.name for path in (ROOT / "app" / slice_).glob("*.py")}
        assert {"__init__.py", "routes.py", "schemas.py"} <= here, slice_
        extra = here - allowed
        assert len(extra) <= 3, f"{slice_}: {extra}"
