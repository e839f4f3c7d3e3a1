"""The examples of the OpenAPI document: one job from upload to artifact, told through every resource."""

from typing import Any

MODEL_ID = "mdl_01JD3Q4W8Z6T5R2N9B7K1M0XCV"
DATASET_ID = "dst_01JD3Q5A2H8S4P6W0Y9E3G7FKT"
JOB_ID = "job_01JD3Q5MZ7V1C8X2B4N6M9Q0RT"
ARTIFACT_ID = "art_01JD3Q6K5D0W3F8G1H2J4K6MNP"
UPLOAD_ID = "upl_01JD3Q3N7B2C9X4V6Z8Q5W1E0R"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

JOB_SPEC: dict[str, Any] = {
    "model": MODEL_ID,
    "recipe": [{"method": "prune.magnitude", "amount": 0.5}, {"method": "quantize.static"}],
    "data": {"calibrate": DATASET_ID, "evaluate": DATASET_ID},
    "targets": {"max_accuracy_drop": 0.01, "max_size_ratio": 0.3},
    "tags": {"team": "vision"},
}

ARTIFACT: dict[str, Any] = {
    "id": ARTIFACT_ID,
    "format": "onnx",
    "filename": "resnet20-slim.onnx",
    "size_bytes": 311_204,
    "sha256": _SHA256,
}

_ORIGINAL: dict[str, Any] = {
    "size_bytes": 1_092_222,
    "size_zstd_bytes": 1_010_480,
    "parameters": 269_722,
    "nonzero": 269_722,
    "macs": 40_813_184,
    "weight_bits": 32.0,
    "latency_ms": {"p50": 0.91, "p90": 0.97, "batch": 1, "threads": 1, "device": "cpu", "runs": 400},
    "peak_memory_bytes": 9_437_184,
    "accuracy": {"metric": "top1", "value": 0.8616, "n": 10_000, "ci_low": 0.8547, "ci_high": 0.8682},
    "fidelity": None,
    "notes": [],
}
_FINAL: dict[str, Any] = {
    **_ORIGINAL,
    "size_bytes": 311_204,
    "size_zstd_bytes": 190_112,
    "nonzero": 135_020,
    "weight_bits": 8.1,
    "latency_ms": {"p50": 0.48, "p90": 0.52, "batch": 1, "threads": 1, "device": "cpu", "runs": 400},
    "accuracy": {"metric": "top1", "value": 0.8589, "n": 10_000, "ci_low": 0.8519, "ci_high": 0.8656},
    "fidelity": {"sqnr_db": 24.1, "cosine": 0.998, "agreement": 0.971},
}

COMPARISON: dict[str, Any] = {
    "original": _ORIGINAL,
    "steps": [{**_FINAL, "method": "quantize.static"}],
    "final": _FINAL,
    "ratios": {"size": 0.285, "latency": 0.527, "accuracy_drop": 0.0027},
}

JOB: dict[str, Any] = {
    "id": JOB_ID,
    "state": "succeeded",
    "name": None,
    "model": MODEL_ID,
    "tags": {"team": "vision"},
    "priority": 5,
    "created_at": "2026-11-22T09:00:00Z",
    "queued_at": "2026-11-22T09:00:00Z",
    "started_at": "2026-11-22T09:00:00.020Z",
    "cancelling_at": None,
    "finished_at": "2026-11-22T09:00:07.300Z",
    "progress": {"fraction": 1.0, "step": 2, "steps": 2, "phase": "measure", "message": "done", "eta_s": 0.0},
    "attempt": 1,
    "device": "cpu",
    "failure": None,
    "verdict": {
        "met": True,
        "clauses": [{"target": "max_size_ratio", "limit": 0.3, "measured": 0.285, "met": True}],
    },
    "links": {"self": f"/v1/jobs/{JOB_ID}", "events": f"/v1/jobs/{JOB_ID}/events"},
    "spec": JOB_SPEC,
    "comparison": COMPARISON,
    "artifacts": [ARTIFACT],
    "reproduce": {
        "recipe": JOB_SPEC["recipe"],
        "seed": 0,
        "versions": {"slimline": "0.1.0", "onnxruntime": "1.31.1"},
        "model_sha256": _SHA256,
        "data_sha256": {"calibrate": _SHA256},
        "other_models_sha256": {},
    },
    "reused_job": None,
    "retried_job": None,
    "engine_s": 7.1,
    "notes": [],
}

JOB_SUMMARY: dict[str, Any] = {
    name: value
    for name, value in JOB.items()
    if name not in {"spec", "comparison", "artifacts", "reproduce", "reused_job", "retried_job", "engine_s", "notes"}
}

_LOSING = "/layer1/conv1/Conv"
JOB_LAYERS: dict[str, Any] = {
    "data": [
        {
            "step": 1,
            "method": "quantize.static",
            "layer": _LOSING,
            "op": "Conv",
            "done": True,
            "bits": 8.0,
            "sqnr_db": 38.2,
            "activation_bits": 8,
            "range": [0.0, 6.41],
            "output_sqnr_db": 19.7,
            "error_share": 0.62,
            "integer_kernel": True,
            "repairs": [{"name": "bias_correction", "gain_db": 0.8, "kept": True}],
            "advice": [{"method": "quantize.static", "exclude": [_LOSING]}],
        },
        {
            "step": 1,
            "method": "quantize.static",
            "layer": "/lstm/LSTM",
            "op": "LSTM",
            "done": False,
            "reason": "static quantization does nothing for LSTM; quantize.dynamic does it for LSTM",
            "advice": [{"method": "quantize.dynamic", "include": ["/lstm/LSTM"]}],
        },
    ],
    "advice": [
        {
            "why": f"{_LOSING} makes 62% of the error of quantize.static; left out, it stays as before",
            "layers": [_LOSING],
            "recipe": [JOB_SPEC["recipe"][0], {"method": "quantize.static", "exclude": [_LOSING]}],
        }
    ],
}

PREFLIGHT: dict[str, Any] = {
    "valid": True,
    "model": MODEL_ID,
    "steps": [
        {
            "step": 0,
            "method": "prune.structured",
            "layers": [
                {
                    "layer": "/blocks.0/attn/proj/MatMul",
                    "op": "MatMul",
                    "applies": True,
                    "why": None,
                    "channels": {"total": 192, "units": 6, "per_unit": 32, "kind": "head", "tied_to": [], "why": None},
                    "planned": {"units_left": 4, "channels_left": 128},
                },
                {
                    "layer": "/head/Gemm",
                    "op": "Gemm",
                    "applies": False,
                    "why": "its channels are an output of the model",
                    "channels": {"total": 10, "units": 0, "why": "its channels are an output of the model"},
                    "planned": None,
                },
            ],
            "notes": ["layers that read what goes shrink with it; what is left of them is counted when the step runs"],
        }
    ],
    "notes": ["size, latency, memory and accuracy are not foreseen: they are measured when the job runs"],
}

EVENT: dict[str, Any] = {
    "id": "evt_01JD3Q5P0A9S8D7F6G5H4J3K2M",
    "type": "state",
    "created_at": "2026-11-22T09:00:00.020Z",
    "data": {"state": "running"},
}

MODEL: dict[str, Any] = {
    "id": MODEL_ID,
    "name": "resnet20",
    "filename": "resnet20.onnx",
    "state": "ready",
    "format": "onnx",
    "sha256": _SHA256,
    "size_bytes": 1_092_222,
    "tags": {},
    "inputs": [{"name": "input", "dtype": "float", "shape": ["batch", 3, 32, 32]}],
    "outputs": [{"name": "logits", "dtype": "float", "shape": ["batch", 10]}],
    "parameters": 269_722,
    "macs": 40_813_184,
    "opset": 18,
    "problem": None,
    "created_at": "2026-11-22T08:59:00Z",
}

DATASET: dict[str, Any] = {
    "id": DATASET_ID,
    "name": "cifar10",
    "filename": "cifar10.npz",
    "state": "ready",
    "sha256": _SHA256,
    "size_bytes": 30_720_512,
    "tags": {},
    "samples": 10_000,
    "has_labels": True,
    "problem": None,
    "created_at": "2026-11-22T08:59:10Z",
}
