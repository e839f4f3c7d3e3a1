"""What the supervisor's tests have children do. Imported in the child by name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.contracts.events import Finished, Log
from app.contracts.failure import SlimlineError
from worker.pipe import Say


def finish(notes: list[str], say: Say) -> None:
    say(Finished(artifacts=[], layers=[], verdict=None, device="cpu", versions={}, engine_s=0, notes=notes))


def tell(arguments: dict[str, Any], say: Say) -> None:
    for message in arguments["messages"]:
        say(Log(message=message))
    finish([], say)


def look_around(_arguments: dict[str, Any], say: Say) -> None:
    with open(os.devnull) as null:
        lowest_free = null.fileno()
    finish(
        [
            f"environment={sorted(os.environ)}",
            f"folder={Path.cwd()}",
            f"leader={os.getpid() == os.getsid(0) == os.getpgid(0)}",
            f"stdin={sys.stdin.read()!r}",
            f"temporary={os.environ['TMPDIR']}",
            f"fds={len(os.listdir('/proc/self/fd')) - 1}",
            f"lowest_free={lowest_free}",
            f"main={sys.modules['__main__'].__spec__.name}",
        ],
        say,
    )


def connect(arguments: dict[str, Any], say: Say) -> None:
    import socket

    try:
        socket.create_connection(("127.0.0.1", arguments["port"]), timeout=2).close()
    except OSError as error:
        finish([type(error).__name__], say)
    else:
        finish(["connected"], say)


def compute(_arguments: dict[str, Any], say: Say) -> None:
    import numpy as np
    import onnxruntime as ort
    import torch
    from onnx import TensorProto, helper

    square = torch.ones(300, 300)
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [300, 300]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", shape[:1], shape[1:]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString())
    in_ort = session.run(None, {"x": square.numpy()})[0]
    finish([f"{(square @ square).sum():.0f} {in_ort.sum():.0f} {np.dot(square, square).sum():.0f}"], say)


def refuse(_arguments: dict[str, Any], _say: Say) -> None:
    raise SlimlineError("MODEL_TRUNCATED", "the file ends early", hint="send it again")


def divide(_arguments: dict[str, Any], _say: Say) -> None:
    1 / 0  # noqa: B018


def hang(_arguments: dict[str, Any], say: Say) -> None:
    """Does not end, nor does the process it starts."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say(Log(message=f"{os.getpid()} {other.pid}"))
    time.sleep(600)


def leave_one_behind(_arguments: dict[str, Any], say: Say) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    finish([str(other.pid)], say)


def die(arguments: dict[str, Any], _say: Say) -> None:
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), arguments["signal"])


def leave(arguments: dict[str, Any], _say: Say) -> None:
    os._exit(arguments["code"])


def shout(arguments: dict[str, Any], say: Say) -> None:
    for _ in range(arguments["lines"]):
        print("x" * 1000)
    finish([], say)


def fill_memory(arguments: dict[str, Any], say: Say) -> None:
    import numpy as np
    import torch

    match arguments["with"]:
        case "numpy":
            full = np.ones(arguments["bytes"], np.uint8)
        case "torch":
            full = torch.ones(arguments["bytes"], dtype=torch.uint8)
        case _:
            full = b"x" * arguments["bytes"]
    say(Log(message="filled"))
    time.sleep(arguments.get("hold_s", 0))
    finish([str(len(full))], say)


def spin(_arguments: dict[str, Any], _say: Say) -> None:
    while True:
        pass


def write(arguments: dict[str, Any], say: Say) -> None:
    with open("big", "wb") as file:
        file.truncate(arguments["bytes"])
    finish([], say)


def babble(arguments: dict[str, Any], _say: Say) -> None:
    pipe = max(int(fd) for fd in os.listdir("/proc/self/fd") if _is_pipe(fd))
    os.write(pipe, arguments["text"].encode())
    time.sleep(600)


def _is_pipe(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except OSError:
        return False
