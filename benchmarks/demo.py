"""`make demo`: the whole way of a model through the real service, with the result checked. Nothing of it is kept."""

import contextlib
import logging
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.cli.inputs import read_recipe
from app.cli.job_report import print_report
from app.cli.progress import follow_job
from app.client import Client, Resource

RECIPE = "prune.magnitude:amount=0.5 + quantize.static"
EPOCHS = 12
BATCH = 64
SEED = 0
READY_S = 60


@dataclass(frozen=True)
class Split:
    """Pictures N x 1 x 8 x 8 in 0..1 with their digits."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]

    def save(self, path: Path) -> Path:
        """As an .npz with x and y."""
        np.savez(path, x=self.x, y=self.y)
        return path


def main() -> int:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="slimline-demo-") as name:
        folder = Path(name)
        print("1. Starting the service with `slimline up` on a free port and a throw-away data folder.")
        with running_service(folder) as url:
            print("2. Training a small CNN on scikit-learn's handwritten digits; a quarter is held out as test.")
            train, test = load_digits()
            model = train_and_export(train, folder / "digits.onnx")
            with Client(wait_until_ready(folder, url)) as client:
                job = compress(client, model, train.save(folder / "train.npz"), test.save(folder / "test.npz"))
                print_report(job)
                is_right = job["state"] == "succeeded" and download_and_check(client, job, test, folder)
            print("6. Stopping the service.")
    print(f"{'Done' if is_right else 'FAILED'} in {time.perf_counter() - started:.0f} s.")
    return 0 if is_right else 1


@contextlib.contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """Its URL; the service may still be starting. It is stopped at the end, whatever happens."""
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(folder / "data")]
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert up.stdout is not None
            first_line = up.stdout.readline()  # Slimline is starting on http://… …
            yield next(word for word in first_line.split() if word.startswith("http"))
        finally:
            up.send_signal(signal.SIGTERM)
            up.communicate(timeout=60)


def wait_until_ready(folder: Path, url: str) -> str:
    """The same URL, once the service can take work."""
    import httpx

    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").is_success:
                return url
        time.sleep(0.1)
    raise SystemExit(f"the service was not ready within {READY_S} s:\n{(folder / 'up.log').read_text()[-3000:]}")


def load_digits() -> tuple[Split, Split]:
    """Three quarters to train and calibrate on, one quarter to test on; the split never changes."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    y = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = model_selection.train_test_split(
        x, y, test_size=0.25, random_state=SEED, stratify=y
    )
    return Split(train_x, train_y), Split(test_x, test_y)


def train_and_export(train: Split, path: Path) -> Path:
    """A trained network as ONNX with a free batch size."""
    import torch
    from torch import nn
    from torch.utils import data

    torch.manual_seed(SEED)
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    pictures = data.TensorDataset(torch.from_numpy(train.x), torch.from_numpy(train.y))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for x, y in data.DataLoader(pictures, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]  # torch left it so
            optimizer.step()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # from inside the exporter
        torch.onnx.export(
            *(net.eval(), (torch.from_numpy(train.x[:2]),), path),
            input_names=["picture"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            optimize=False,
            external_data=False,
            verbose=False,
        )
    return path


def compress(client: Client, model: Path, train: Path, test: Path) -> Resource:
    """Upload all three as `curl -F file=@…` would, and follow the job to its end."""
    print(f"3. Uploading {model.name}, {train.name} and {test.name}.")
    sent = {path: client.upload("models" if path == model else "datasets", path)["id"] for path in (model, train, test)}
    print(f"4. Compressing with the recipe `{RECIPE}`.")
    job = client.submit(
        {
            "model": sent[model],
            "recipe": [step.model_dump(mode="json", exclude_unset=True) for step in read_recipe(RECIPE)],
            "data": {"calibrate": sent[train], "evaluate": sent[test]},
        }
    )
    return follow_job(client, job["id"])


def download_and_check(client: Client, job: Resource, test: Split, folder: Path) -> bool:
    """Whether ONNX Runtime, on the downloaded file, gets as many test pictures right as the service reported."""
    print("5. Downloading the artifact and running it in ONNX Runtime on the same test pictures.")
    [artifact] = job["artifacts"]
    path = folder / artifact["filename"]
    client.download(f"/v1/artifacts/{artifact['id']}/content", artifact["sha256"], path)
    reported = job["comparison"]["final"]["accuracy"]
    right = count_right(path, test)
    is_same = reported["n"] == len(test.y) and round(reported["value"] * reported["n"]) == right
    print(
        f"   {right} of {len(test.y)} right; the service reported {reported['value']:.4f} of {reported['n']}: "
        f"{'the same' if is_same else 'NOT THE SAME'}."
    )
    return bool(is_same)


def count_right(path: Path, test: Split) -> int:
    """Pictures whose largest score is their digit's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {session.get_inputs()[0].name: test.x})
    return int((np.asarray(scores).argmax(axis=1) == test.y).sum())


if __name__ == "__main__":
    sys.exit(main())
