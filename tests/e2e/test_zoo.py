"""The sample models and data through the door and one job each. How well a method does is tested with the engine."""

import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("e2e")

DYNAMIC = [{"method": "quantize.dynamic"}]
PRUNE = [{"method": "prune.magnitude", "amount": 0.5}]
UNIT = {"scale": 1 / 255}
CIFAR = {**UNIT, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
KWS_SCALE, KWS_ZERO_POINT = 0.5847029, 83


def submit(service: Any, **spec: Any) -> str:
    job = service.post("/v1/jobs", spec)
    assert "id" in job, job
    return str(job["id"])


@pytest.mark.slow
def test_every_model(service: Any, shared: Path) -> None:
    """Each is let in and takes dynamic quantization; one with no layer for it is refused, and is pruned instead."""
    files = sorted((shared / "models").rglob("*.onnx"))
    models = {file.name: service.upload("models", file) for file in files}
    jobs = {name: submit(service, model=model, recipe=DYNAMIC) for name, model in models.items()}
    assert files
    for file in files:
        job = service.finish(jobs[file.name])
        model = service.ask(f"/v1/models/{models[file.name]}")
        assert model["state"] == "ready", (file.name, model["problem"])
        layers = service.ask(f"/v1/models/{model['id']}/layers")["data"]
        takes_it = [layer["name"] for layer in layers if layer["methods"]["quantize.dynamic"]["applies"]]
        if not takes_it:
            assert all(layer["methods"]["quantize.dynamic"]["why"] for layer in layers), file.name
            assert job["failure"]["code"] == "NOTHING_TO_QUANTIZE", (file.name, job["failure"])
            job = service.finish(submit(service, model=model["id"], recipe=PRUNE))
        check_result(service, job, file)


def check_result(service: Any, job: Any, file: Path) -> None:
    """The job of `file` gave an artifact that shrank, still runs and still agrees somewhat with the original."""
    assert job["state"] == "succeeded", (file.name, job["failure"])
    original, final = job["comparison"]["original"], job["comparison"]["final"]
    assert original["size_bytes"] == file.stat().st_size
    assert final["size_zstd_bytes"] < original["size_zstd_bytes"], file.name
    assert final["latency_ms"]["p50"] > 0, file.name
    assert final["fidelity"]["sqnr_db"] > (20 if job["spec"]["recipe"][0]["method"] == "quantize.dynamic" else 3)
    [artifact] = job["artifacts"]
    content = httpx.get(f"{service.url}/v1/artifacts/{artifact['id']}/content").content
    assert len(content) == final["size_bytes"] == artifact["size_bytes"], file.name


@pytest.mark.slow
def test_every_dataset(service: Any, shared: Path) -> None:
    ids = {file: service.upload("datasets", file) for file in sorted((shared / "data").iterdir())}
    assert ids
    for file, id_ in ids.items():
        data = read_checked(service, id_)
        assert data["state"] == "ready", (file.name, data["problem"])
        assert data["samples"] == count_samples(file), file.name


def read_checked(service: Any, dataset: str) -> Any:
    while (data := service.ask(f"/v1/datasets/{dataset}"))["state"] not in ("ready", "rejected"):
        pass
    return data


def count_samples(file: Path) -> int:
    """Images of a zip, rows of an .npz."""
    if file.suffix == ".npz":
        return max(len(array) for array in np.load(file).values() if array.ndim)
    with zipfile.ZipFile(file) as archive:
        return sum(not info.is_dir() for info in archive.infolist())


def measure(service: Any, model: Path, data: Path, preprocess: dict[str, Any] | None) -> Any:
    """Accuracy of the original model, as the service measures it."""
    fields = ("-F", f"preprocess={json.dumps(preprocess)}") if preprocess else ()
    dataset = service.ask("-F", f"file=@{data}", *fields, "/v1/datasets")["id"]
    job = submit(service, model=service.upload("models", model), recipe=PRUNE, data={"evaluate": dataset})
    ended = service.finish(job)
    assert ended["state"] == "succeeded", ended["failure"]
    return ended["comparison"]["original"]["accuracy"]


@pytest.mark.parametrize(
    ("model", "data", "preprocess", "published"),
    [
        pytest.param("resnet20_cifar10_jpegtuned", "cifar10_jpeg_test.zip", CIFAR, 86.16, marks=pytest.mark.slow),
        pytest.param("resnet56_cifar10", "cifar10_jpeg_test.zip", CIFAR, 83.20, marks=pytest.mark.slow),
        ("mnist_row_lstm", "mnist_test.npz", UNIT, 97.9),
        pytest.param("digits32_resnet18", "digits32_evaluate.npz", None, 95.55, marks=pytest.mark.slow),
        pytest.param("digits32_mbv2hard", "digits32_evaluate.npz", None, 88.66, marks=pytest.mark.slow),
        ("digits32_vit", "digits32_evaluate.npz", None, 78.59),
    ],
)
def test_published_accuracy(
    service: Any, shared: Path, model: str, data: str, preprocess: dict[str, Any] | None, published: float
) -> None:
    accuracy = measure(service, shared / f"models/{model}.onnx", shared / "data" / data, preprocess)
    assert accuracy["metric"] == "top1"
    assert accuracy["n"] == count_samples(shared / "data" / data)
    assert 100 * accuracy["value"] == pytest.approx(published, abs=0.1)


def test_keywords(service: Any, shared: Path, tmp_path: Path) -> None:
    """As stored they do not fit: nothing can say that `x_int8` is the input, nor add its channel axis."""
    stored, model = shared / "data/kws_mfcc_test1000.npz", shared / "models/kws_dscnn.onnx"
    sent = {"model": service.upload("models", model), "data": {"evaluate": service.upload("datasets", stored)}}
    failure = service.finish(submit(service, recipe=PRUNE, **sent))["failure"]
    assert failure["code"] == "DATA_ARRAYS_MISMATCH"
    assert "x_int8" in failure["message"]
    assert "or the one array x" in failure["hint"]
    arrays = np.load(stored)
    np.savez(tmp_path / "kws.npz", x=arrays["x_int8"][:, None], y=arrays["y"])
    preprocess = {"scale": KWS_SCALE, "mean": [KWS_ZERO_POINT * KWS_SCALE]}
    accuracy = measure(service, model, tmp_path / "kws.npz", preprocess)
    assert 100 * accuracy["value"] == pytest.approx(91.5, abs=0.1)


def test_pictures_without_labels_give_fidelity(service: Any, shared: Path) -> None:
    preprocess = {**UNIT, "mean": [0.5], "std": [0.5], "stored_layout": "nhwc"}
    assert (
        measure(service, shared / "models/efficientnet_lite0.onnx", shared / "data/sample_pictures_224.npz", preprocess)
        is None
    )
