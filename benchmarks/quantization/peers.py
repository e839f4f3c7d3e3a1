"""Makes the environment that NNCF and AIMET-ONNX run in, apart from ours.

    python -m benchmarks.quantization.peers                        into ~/.cache/slimline-bench/peers
    python -m benchmarks.quantization.peers --peer-env DIR -- ...  elsewhere; options after -- go to pip

Takes a minute and 2 GB. Refuses to install CUDA: give pip an index with a CPU build of torch.
"""

from benchmarks.comparison.environment import CACHE, install_asked

ENVIRONMENT = CACHE / "peers"
PINNED = ("torch==2.13.0", "nncf==3.4.0", "aimet-onnx==2.42.0", "onnx==1.23.2", "onnxruntime==1.31.1")
"""Resolve together and were run. ONNX Runtime is the version that also measures, so all write for the same one."""

if __name__ == "__main__":
    install_asked(str(__doc__), ENVIRONMENT, PINNED)
