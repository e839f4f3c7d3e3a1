"""Which device a job runs on: what was asked for against what is here."""

import importlib
from pathlib import Path

import onnxruntime as ort

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Device as AskedDevice
from worker.engine.session import Device
from worker.surroundings import processor


def resolve_device(asked: AskedDevice) -> Device:
    """`auto` takes CUDA where ONNX Runtime has it. Raises SlimlineError DEVICE_UNAVAILABLE."""
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers() and Path("/dev/nvidiactl").exists()
    if asked == "cuda" and not has_cuda:
        raise SlimlineError(
            "DEVICE_UNAVAILABLE",
            "cuda was asked for, but ONNX Runtime sees no CUDA device here",
            hint="Use device auto or cpu, or install onnxruntime-gpu on a machine with a GPU.",
        )
    return "cuda" if has_cuda and asked != "cpu" else "cpu"


def count_devices(device: Device) -> int:
    """How many of it a job has. The processor is one, however many cores it has."""
    return max(1, int(importlib.import_module("torch").cuda.device_count())) if device == "cuda" else 1


def describe_device(device: Device) -> str:
    """The device with the name of its maker, as a result states it."""
    if device == "cuda":
        torch = importlib.import_module("torch")
        return f"cuda:0 {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cuda:0"
    return f"cpu {processor()}"
