"""What a client can send wrongly, over HTTP: what it is told, that nothing stays behind, that the server lives on."""

import http.client
import io
import json
import pickle
import socket
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.xdist_group("e2e")

Make = Callable[[Any], bytes]
UNKNOWN_ID = "00000000000000000000000000"
TELLTALES = ("Traceback", "site-packages", ".py", "Error(", 'File "', "0x")


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def zip_with_link(target: str, name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo(name)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return packed.getvalue()


def bomb(name: str, gibibytes: int = 1) -> bytes:
    """A zip of one member, `gibibytes` of zeros: about a thousandth of them. A full flush makes a block repeatable."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 26)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = block * (16 * gibibytes) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    in_extra = 0xFFFFFFFF
    fields = (8, 0, 33, 0, in_extra, in_extra, len(name), 20)  # deflate, time, date, CRC, sizes, lengths
    tail = name.encode() + struct.pack("<2H2Q", 1, 16, gibibytes << 30, len(body))
    local = struct.pack("<4s2H3H3L2H", b"PK\3\4", 45, 0, *fields) + tail
    entry = struct.pack("<4s3H3H3L5H2L", b"PK\1\2", 45, 45, 0, *fields, 0, 0, 0, 0, 0) + tail
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local) + len(body), 0)
    return local + body + entry + end


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def one_node(op: str, domain: str = "", opset: int = 18) -> bytes:
    """A model of one node called `culprit`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("a", "b")]
    node = helper.make_node(op, ["a"], ["b"], "culprit", domain=domain)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:])
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())


def outside_weights(location: str) -> bytes:
    """A model whose weights are said to lie in the file `location`."""
    model = onnx.load_from_string(one_node("Relu"))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["a", "w"], ["b"], "culprit"))
    return bytes(model.SerializeToString())


def picture(*, count: int = 8, side: int = 12, dtype: str = "f4") -> Any:
    """Samples for `tiny`, which takes 3 x 12 x 12 floats and has 5 classes."""
    return np.ones((count, 3, side, side), dtype)


# What is sent: the code, a word of the message, a word of the hint.
MODELS: dict[str, tuple[Make, str, str, str]] = {
    "not a model": (lambda _: b"\0not a model" * 1000, "MODEL_NOT_RECOGNIZED", "no ONNX model", ".zip"),
    "truncated": (lambda tiny: tiny.model.read_bytes()[:-5000], "MODEL_TRUNCATED", "ends", "again"),
    "opset too new": (lambda _: one_node("Relu", opset=99), "OPSET_UNSUPPORTED", "99", "opset_version"),
    "unknown operator": (lambda _: one_node("Relux"), "OPERATOR_UNKNOWN", "Relux", "standard ONNX"),
    "custom domain": (lambda _: one_node("Magic", "my.ops"), "DOMAIN_CUSTOM", "my.ops", "standard ONNX"),
    "pickle": (lambda _: pickle.dumps({"w": [1.0]}), "MODEL_PICKLED", "never opened", "torch.onnx.export"),
    "PyTorch archive": (lambda _: zipped({"m/data.pkl": b""}), "MODEL_PICKLED", "pickle", "torch.onnx.export"),
    "zip with ..": (lambda _: zipped({"../evil": b"x"}), "ARCHIVE_PATH_UNSAFE", "../evil", "relative names"),
    "symbolic link": (lambda _: zip_with_link("/etc/passwd", "m.onnx"), "ARCHIVE_LINK", "m.onnx", "plain files"),
    "bomb": (lambda _: bomb("m.onnx"), "ARCHIVE_TOO_LARGE", "m.onnx", "less tightly"),
    "weights outside": (lambda _: outside_weights("../../secret"), "EXTERNAL_DATA_UNSAFE", "../../secret", ""),
    "weights missing": (lambda _: outside_weights("gone.bin"), "EXTERNAL_DATA_MISSING", "gone.bin", ".zip"),
}  # fmt: skip

DATASETS: dict[str, tuple[Make, str, str, str]] = {
    "not a dataset": (lambda _: b"\0no data" * 1000, "DATASET_NOT_RECOGNIZED", "", "npz"),
    "truncated": (lambda tiny: tiny.data.read_bytes()[:-5000], "ARCHIVE_BROKEN", "", "again"),
    "empty zip": (lambda _: zipped({}), "DATASET_EMPTY", "", ""),
    "no samples": (lambda _: npz(x=picture(count=0)), "DATASET_EMPTY", "no samples", "savez"),
    "NaN": (lambda _: npz(x=picture() * np.where(np.arange(8) == 5, np.nan, 1).astype("f4")[:, None, None, None]),
            "DATA_NOT_FINITE", "sample 5", "repair"),
    "Python objects": (lambda _: npz(x=np.array([{}], object)), "DATA_PICKLED", "'x'", "savez"),
    "lengths differ": (lambda _: npz(x=picture(), y=np.zeros(3, int)), "DATA_LENGTHS_DIFFER", "x 8, y 3", "savez"),
    "negative label": (lambda _: npz(x=picture(), y=np.arange(8) - 3), "LABELS_INVALID", "index 0", "savez"),
    "labels are floats": (lambda _: npz(x=picture(), y=np.zeros(8)), "LABELS_INVALID", "float64", "astype"),
    "zip with ..": (lambda _: zipped({"../../x": b"1"}), "ARCHIVE_PATH_UNSAFE", "../../x", "relative names"),
    "symbolic link": (lambda _: zip_with_link("/etc/passwd", "cat/1.jpg"), "ARCHIVE_LINK", "cat/1.jpg", "plain files"),
    "bomb": (lambda _: bomb("x.npy", 10), "ARCHIVE_TOO_LARGE", "x", "split"),
    "broken picture": (lambda _: zipped({"cat/1.jpg": b"\xff\xd8\xff"}), "IMAGE_BROKEN", "cat/1.jpg", "folders"),
    "text beside pictures": (lambda _: zipped({"cat/1.txt": b"1"}), "DATA_MEMBER_UNKNOWN", "cat/1.txt", "folders"),
}  # fmt: skip

# Datasets that are fine in themselves, but not for `tiny`.
MISFITS: dict[str, tuple[Make, str, str, str]] = {
    "wrong shape": (lambda _: npz(x=picture(side=10)), "DATA_SHAPE_MISMATCH", "picture", "preprocess"),
    "wrong dtype": (lambda _: npz(x=picture(dtype="i8")), "DATA_DTYPE_MISMATCH", "int64", "astype"),
    "wrong names": (lambda _: npz(left=picture(), right=picture()), "DATA_ARRAYS_MISMATCH", "left, right", "name"),
    "label out of range": (lambda _: npz(x=picture(), y=np.arange(8)), "LABELS_OUT_OF_RANGE", "5 classes", "from 0"),
}  # fmt: skip

# What is put into the body of a job that is fine without it: the code, a word of the detail, the pointer.
JOBS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown method": ({"recipe": [{"method": "no.such"}]}, "INVALID_REQUEST", "float16", "/recipe/0"),
    "empty recipe": ({"recipe": []}, "INVALID_REQUEST", "at least 1", "/recipe"),
    "bad option": ({"recipe": [{"method": "prune.magnitude", "amount": 7}]},
                   "INVALID_REQUEST", "less than 1", "/recipe/0/amount"),
    "unknown option": ({"recipe": [{"method": "quantize.dynamic", "bit": 8}]},
                       "INVALID_REQUEST", "no such option", "/recipe/0/bit"),
    "unknown model": ({"model": f"mdl_{UNKNOWN_ID}"}, "MODEL_NOT_FOUND", f"mdl_{UNKNOWN_ID}", "/model"),
    "no id": ({"model": "resnet"}, "INVALID_REQUEST", "mdl_", "/model"),
    "unknown dataset": ({"data": {"calibrate": f"dst_{UNKNOWN_ID}"}},
                        "DATASET_NOT_FOUND", f"dst_{UNKNOWN_ID}", "/data/calibrate"),
    "target without labels": ({"targets": {"max_accuracy_drop": 0.1}},
                              "INVALID_REQUEST", "data.evaluate", ""),
}  # fmt: skip


def params(table: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", table.values(), ids=list(table))


def leftovers(service: Any) -> list[Path]:
    """Temporary files of uploads and checks."""
    return [path for place in ("blobs/incoming", "work") for path in (service.data / place).iterdir()]


def newest_rows(service: Any) -> list[str]:
    kinds = ("models", "datasets", "jobs")
    return [row["id"] for kind in kinds for row in service.ask(f"/v1/{kind}?limit=1")["data"]]


def wait_until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def unharmed(service: Any) -> Iterator[None]:
    """After every test: ready, no temporary file, no trace in the log."""
    logged = service.log.stat().st_size
    before = leftovers(service)
    yield
    assert service.is_ready()
    wait_until(lambda: set(leftovers(service)) <= set(before), lambda: leftovers(service))
    assert "Traceback" not in service.log.read_text()[logged:]


def check_discreet(service: Any, answer: Any) -> None:
    """Nothing in an answer gives away how or where the server runs."""
    text = json.dumps(answer, ensure_ascii=False)
    assert not [word for word in (*TELLTALES, str(service.data), str(Path.cwd())) if word in text], text


def check_failure(service: Any, problem: Any, code: str, message: str, hint: str) -> None:
    check_discreet(service, problem)
    assert problem["code"] == code, problem
    assert message in problem["message"], problem
    assert problem["hint"], problem
    assert hint in problem["hint"], problem
    assert problem["kind"] == "user"


def check_document(service: Any, answer: httpx.Response, status: int, code: str) -> Any:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    check_discreet(service, document)
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), document
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def settle(service: Any, kind: str, content: bytes) -> Any:
    """The upload once it is checked."""
    sent = httpx.post(f"{service.url}/v1/{kind}", files={"file": ("upload.onnx", content)})
    assert sent.status_code == 201, sent.text
    seen = sent.json()

    def is_over() -> bool:
        seen.update(service.ask(f"/v1/{kind}/{sent.json()['id']}"))
        return seen["state"] in ("ready", "rejected")

    wait_until(is_over, lambda: seen)
    return seen


@params(MODELS)
def test_bad_model(service: Any, tiny: Any, case: tuple[Make, str, str, str]) -> None:
    make, code, message, hint = case
    model = settle(service, "models", make(tiny))
    assert model["state"] == "rejected"
    check_failure(service, model["problem"], code, message, hint)
    layers = httpx.get(f"{service.url}/v1/models/{model['id']}/layers")
    assert check_document(service, layers, 409, "MODEL_NOT_READY")["detail"]


@params(DATASETS)
def test_bad_dataset(service: Any, tiny: Any, case: tuple[Make, str, str, str]) -> None:
    make, code, message, hint = case
    dataset = settle(service, "datasets", make(tiny))
    assert dataset["state"] == "rejected", dataset
    check_failure(service, dataset["problem"], code, message, hint)


@pytest.fixture(scope="module")
def model_id(service: Any, tiny: Any) -> str:
    return str(settle(service, "models", tiny.model.read_bytes())["id"])


@params(MISFITS)
def test_misfit(service: Any, tiny: Any, model_id: str, case: tuple[Make, str, str, str]) -> None:
    make, code, message, hint = case
    data = settle(service, "datasets", make(tiny))
    assert data["state"] == "ready", data["problem"]
    spec = {"recipe": [{"method": "quantize.static"}], "data": {"calibrate": data["id"], "evaluate": data["id"]}}
    job = service.finish(service.post("/v1/jobs", {"model": model_id, **spec})["id"])
    assert job["state"] == "failed"
    assert not job["artifacts"]
    check_failure(service, job["failure"], code, message, hint)


@params(JOBS)
def test_bad_job(service: Any, model_id: str, case: tuple[dict[str, Any], str, str, str]) -> None:
    wrong, code, message, pointer = case
    before = newest_rows(service)
    body = {"model": model_id, "recipe": [{"method": "quantize.dynamic"}], **wrong}
    document = check_document(service, httpx.post(f"{service.url}/v1/jobs", json=body), 422, code)
    assert message in document["detail"], document
    assert [error["pointer"] for error in document["errors"]] == [pointer], document
    assert newest_rows(service) == before


def test_rejected_model_is_no_model(service: Any) -> None:
    rejected = settle(service, "models", b"\0junk" * 100)
    body = {"model": rejected["id"], "recipe": [{"method": "quantize.dynamic"}]}
    document = check_document(service, httpx.post(f"{service.url}/v1/jobs", json=body), 422, "MODEL_REJECTED")
    assert rejected["problem"]["message"] in document["detail"]


def test_job_of_a_model_that_is_rejected_later(service: Any) -> None:
    model = httpx.post(f"{service.url}/v1/models", content=bomb("m.onnx")).json()["id"]
    job = service.post("/v1/jobs", {"model": model, "recipe": [{"method": "quantize.dynamic"}]})
    assert job["state"] == "queued"
    failed = service.finish(job["id"])
    assert (failed["state"], failed["attempt"]) == ("failed", 0)
    assert "m.onnx" in failed["failure"]["message"]


@pytest.mark.parametrize("prefix", ["model mdl", "dataset dst", "job job", "artifact art"])
def test_unknown_id(service: Any, prefix: str) -> None:
    kind, start = prefix.split()
    answer = httpx.get(f"{service.url}/v1/{kind}s/{start}_{UNKNOWN_ID}")
    document = check_document(service, answer, 404, f"{kind.upper()}_NOT_FOUND")
    assert f"{start}_{UNKNOWN_ID}" in document["detail"]
    assert f"GET /v1/{kind}s" in document["detail"]


REQUESTS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no JSON": ("jobs", {"content": b'{"model": '}, 400, "BODY_NOT_JSON"),
    "body over the limit": ("jobs", {"content": b'"' + bytes(1 << 21)}, 413, "BODY_TOO_LARGE"),
    "empty file": ("models", {"content": b""}, 422, "FILE_EMPTY"),
    "no file": ("models", {"files": {"model": b"x"}}, 422, "FILE_MISSING"),
    "wrong media type": ("datasets", {"content": b"x", "headers": {"content-type": "text/csv"}}, 415,
                         "WRONG_MEDIA_TYPE"),
    "bad field": ("models", {"files": {"file": b"x"}, "data": {"color": "red"}}, 422, "INVALID_REQUEST"),
    "bad tags": ("models", {"files": {"file": b"x"}, "data": {"tags": "{"}}, 422, "FIELD_NOT_JSON"),
    "bad preprocess": ("datasets", {"files": {"file": b"x"}, "data": {"preprocess": '{"std": [0]}'}}, 422,
                       "INVALID_REQUEST"),
}  # fmt: skip


@params(REQUESTS)
def test_bad_request(service: Any, case: tuple[str, dict[str, Any], int, str]) -> None:
    kind, body, status, code = case
    before = newest_rows(service)
    headers = {"headers": {"content-type": "application/json"}} if kind == "jobs" else {}
    document = check_document(service, httpx.post(f"{service.url}/v1/{kind}", **headers, **body), status, code)
    assert document["detail"]
    assert newest_rows(service) == before


def connect(service: Any, head: str) -> socket.socket:
    """A connection on which the head of an upload of a model was sent."""
    address = urlsplit(service.url)
    line = socket.create_connection((address.hostname, address.port), timeout=10)
    line.sendall(f"POST /v1/models HTTP/1.1\r\nHost: here\r\n{head}\r\n\r\n".encode())
    return line


def test_file_over_the_limit_is_refused_before_its_first_byte(service: Any) -> None:
    before = newest_rows(service)
    with connect(service, f"Content-Length: {1 << 40}") as line:
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert (answer.status, json.load(answer)["code"]) == (413, "BODY_TOO_LARGE")
    assert newest_rows(service) == before


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 9000000", b"x" * 3_000_000),
        ("Transfer-Encoding: chunked", b"100000\r\n" + b"x" * 0x100000 + b"\r\n100000\r\nxx"),
        (
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n' + b"x" * 3_000_000,
        ),
    ],
    ids=["bare", "chunked", "multipart"],
)
def test_client_hangs_up_in_mid_upload(service: Any, head: str, body: bytes) -> None:
    before = newest_rows(service)
    with connect(service, head) as line:
        line.sendall(body)
        wait_until(lambda: bool(list((service.data / "blobs/incoming").iterdir())), lambda: "the upload never began")
    wait_until(lambda: not leftovers(service), lambda: leftovers(service))
    assert newest_rows(service) == before
