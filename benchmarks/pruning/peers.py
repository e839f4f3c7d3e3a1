"""Makes the environment that Torch-Pruning runs in, apart from ours.

    python -m benchmarks.pruning.peers                        into ~/.cache/slimline-bench/torch-pruning
    python -m benchmarks.pruning.peers --peer-env DIR -- ...  elsewhere; options after -- go to pip

Takes a minute and 1 GB. Refuses to install CUDA: give pip an index with a CPU build of torch.
"""

from benchmarks.comparison.environment import CACHE, install_asked

ENVIRONMENT = CACHE / "torch-pruning"
PACKAGE = "torch-pruning"
PINNED = (
    "torch==2.13.0",
    "torch-pruning==1.6.1",
    "transformers==5.23.0",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "numpy==2.4.6",
)
"""torch, transformers and the exporter are those we run, so that native modules and their exports are the same."""

if __name__ == "__main__":
    install_asked(str(__doc__), ENVIRONMENT, PINNED)
