"""The client against a real server: uploads, lists, refusals."""

import hashlib
from pathlib import Path

import pytest

from app.client import ApiError, Client, ServerUnreachableError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not checked here" * 20_000)
    return path


def test_upload_is_streamed_and_reported(client: Client, file: Path) -> None:
    seen: list[tuple[int, int]] = []
    model = client.upload("models", file, name="mine", on_bytes=lambda done, total: seen.append((done, total)))
    assert (model["name"], model["filename"], model["size_bytes"]) == ("mine", "net.onnx", 320_000)
    assert model["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert seen[-1] == (320_000, 320_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 4


def test_preprocess_goes_with_a_dataset(client: Client, file: Path) -> None:
    dataset = client.upload("datasets", file, preprocess={"scale": 0.5, "mean": [0.1]})
    assert dataset["preprocess"]["scale"] == 0.5
    assert dataset["preprocess"]["mean"] == [0.1]


def test_list_goes_over_pages_and_stops_at_the_limit(client: Client, file: Path) -> None:
    sent = [client.upload("models", file, name=f"n{number}")["id"] for number in range(5)]
    assert [model["id"] for model in client.list("/v1/models", limit=3)] == sent[:1:-1]
    assert {*sent} <= {model["id"] for model in client.list("/v1/models", limit=1000)}


def test_download_of_the_upload(client: Client, file: Path, tmp_path: Path) -> None:
    model = client.upload("models", file)
    client.download(f"/v1/models/{model['id']}/content", model["sha256"], tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.onnx", "net.onnx"]


def test_refusal_carries_the_problem(client: Client, file: Path) -> None:
    model = client.upload("models", file)
    with pytest.raises(ApiError) as refused:
        client.submit({"model": model["id"], "recipe": [{"method": "prune.magnitude", "amount": 7}]})
    assert refused.value.status == 422
    assert refused.value.code
    assert refused.value.request_id
    assert [error.pointer for error in refused.value.errors] == ["/recipe/0/amount"]


def test_unknown_id(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.job("job_00000000000000000000000000")
    assert (refused.value.status, refused.value.code) == (404, "JOB_NOT_FOUND")


def test_too_large_an_upload_is_told_not_hung_up_on(client: Client, tmp_path: Path) -> None:
    (tmp_path / "large.onnx").write_bytes(bytes(40 * 1024**2))
    with pytest.raises(ApiError) as refused:
        client.upload("models", tmp_path / "large.onnx")
    assert refused.value.status == 413


def test_no_server() -> None:
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(ServerUnreachableError, match=r"127\.0\.0\.1:9"):
        nobody.get("/v1/models")
