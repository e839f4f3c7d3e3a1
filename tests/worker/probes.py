"""What the supervisor's tests have children do. Imported in the child by name."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.contracts.events import (
    ArtifactFile,
    Checkpoint,
    Finished,
    Log,
    Measured,
    PartialCheckpoint,
    Progress,
    Trained,
)
from app.contracts.facts import ModelFacts
from app.contracts.failure import SlimlineError
from app.contracts.measurement import Measurement
from worker.entries import ARTIFACT_FILE, GRAPH_FILE, Compression
from worker.pipe import Checked, Say


def finish(notes: list[str], say: Say) -> None:
    say(Finished(artifacts=[], layers=[], verdict=None, device="cpu", versions={}, engine_s=0, notes=notes))


def tell(arguments: dict[str, Any], say: Say) -> None:
    for message in arguments["messages"]:
        say(Log(message=message))
    finish([], say)


def look_around(_arguments: dict[str, Any], say: Say) -> None:
    finish(
        [
            f"environment={sorted(os.environ)}",
            f"folder={Path.cwd()}",
            f"leader={os.getpid() == os.getsid(0) == os.getpgid(0)}",
            f"stdin={sys.stdin.read()!r}",
            f"temporary={os.environ['TMPDIR']}",
            f"fds={len(list(Path('/proc/self/fd').iterdir())) - 1}",
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
    _ = 1 / 0


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
    os.write(2, b"last words\n")
    os.kill(os.getpid(), arguments["signal"])


def leave(arguments: dict[str, Any], _say: Say) -> None:
    os._exit(arguments["code"])


def shout(arguments: dict[str, Any], say: Say) -> None:
    for _ in range(arguments["lines"]):
        sys.stdout.write("x" * 1000 + "\n")
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
    with Path("big").open("wb") as file:
        file.truncate(arguments["bytes"])
    finish([], say)


def babble(arguments: dict[str, Any], _say: Say) -> None:
    pipe = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if _is_pipe(fd))
    os.write(pipe, arguments["text"].encode())
    time.sleep(600)


def _is_pipe(fd: Path) -> bool:
    try:
        return str(fd.readlink()).startswith("pipe:")
    except OSError:
        return False


def make_artifact(arguments: dict[str, Any], say: Say) -> None:
    """A compression as the worker sees one: copies the model, tells everything an engine tells."""
    work = Compression.model_validate(arguments)
    content = Path(work.model.name).read_bytes()
    row = Measurement(size_bytes=len(content), parameters=4, nonzero=4)
    say(Log(message=f"resumed after {work.resume[0]}" if work.resume else "from the start"))
    if work.resume:
        say(Log(message=Path(work.resume[1]).read_text()))
    say(Measured(role="original", row=row))
    for fraction in range(50):
        say(Progress(fraction=fraction / 50, step=1, steps=1, phase="compress"))
    Path("checkpoint-0.onnx").write_text("after step 0")
    say(Checkpoint(step=0, path="checkpoint-0.onnx"))
    Path(ARTIFACT_FILE).write_bytes(content)
    say(Measured(role="step", step=0, method=work.spec.recipe[0].method, row=row))
    say(Measured(role="final", row=row))
    file = ArtifactFile(
        format="onnx",
        path=ARTIFACT_FILE,
        filename="net-slim.onnx",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    say(
        Finished(
            artifacts=[file],
            layers=[],
            verdict=None,
            device="cpu",
            versions={"torch": "2"},
            engine_s=0.5,
            notes=[f"{role}: {file.filename}" for role, file in work.data.items()],
        )
    )


def checkpoint_and_hang(arguments: dict[str, Any], say: Say) -> None:
    """Gets as far as its first checkpoint, unless it was resumed: then it finishes."""
    if arguments["resume"]:
        make_artifact(arguments, say)
        return
    Path("checkpoint-0.onnx").write_text("after step 0")
    say(Checkpoint(step=0, path="checkpoint-0.onnx"))
    say(Progress(fraction=0.5, step=1, steps=1, phase="compress"))
    time.sleep(600)


def crash(_arguments: dict[str, Any], _say: Say) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def train_and_crash(arguments: dict[str, Any], say: Say) -> None:
    """Each attempt gets one epoch further than what it finds, and crashes; at the fifth epoch it finishes."""
    work = Compression.model_validate(arguments)
    epochs = int(Path(work.within[1]).read_text()) if work.within else 0
    say(Log(message=f"found {epochs} epochs" if work.within else "found nothing"))
    if epochs == 4:
        make_artifact(arguments, say)
        return
    say(Trained(step=0, epoch=epochs + 1, updates=10, loss=1 / (epochs + 1), metric="top1", value=0.5))
    _leave_partly(epochs + 1, say)
    crash(arguments, say)


def leave_the_same_and_crash(arguments: dict[str, Any], say: Say) -> None:
    _leave_partly(1, say)
    crash(arguments, say)


def leave_partly_and_hang(_arguments: dict[str, Any], say: Say) -> None:
    """The first file is gone before it is told, the last is of a step that is not next."""
    say(PartialCheckpoint(step=0, path="partial-0-0.npz"))
    _leave_partly(2, say)
    Path("partial-1-0.npz").write_text("of step 1")
    say(PartialCheckpoint(step=1, path="partial-1-0.npz"))
    say(Progress(fraction=0.5, step=1, steps=1, phase="compress"))
    time.sleep(600)


def leave_partly_and_finish(arguments: dict[str, Any], say: Say) -> None:
    _leave_partly(3, say)
    make_artifact(arguments, say)


def _leave_partly(epochs: int, say: Say) -> None:
    path = Path(f"partial-0-{epochs}.npz")
    path.write_text(str(epochs))
    say(PartialCheckpoint(step=0, path=path.name))


def checkpoint_three_steps_and_crash(arguments: dict[str, Any], say: Say) -> None:
    """Then tells what it was given, and finishes."""
    work = Compression.model_validate(arguments)
    if work.resume is None:
        for step in range(3):
            Path(f"checkpoint-{step}.onnx").write_text(f"after step {step}")
            say(Checkpoint(step=step, path=f"checkpoint-{step}.onnx"))
        crash(arguments, say)
    told = {step: Path(name).read_text() for step, name in work.step_graphs.items()}
    say(Log(message=f"{work.resume[0]} {told}"))
    say(Log(message=str({id_: Path(file.name).read_text() for id_, file in work.models.items()})))
    make_artifact(arguments, say)


def swap_artifact(arguments: dict[str, Any], say: Say) -> None:
    """Tells another digest than the artifact has."""
    make_artifact(arguments, say)
    Path(ARTIFACT_FILE).write_bytes(b"something else")


def find_facts(_arguments: dict[str, Any], say: Say) -> None:
    Path(GRAPH_FILE).write_text("graph")
    say(Checked(facts=ModelFacts(opset=18, inputs=[], outputs=[], parameters=4, layers=[])))
