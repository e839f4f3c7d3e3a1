# A worker, with torch and ONNX Runtime. Build it from the root of the checkout:
#   docker build -f docker/worker.Dockerfile -t slimline-worker .
# For a GPU, take a base image with CUDA and cuDNN, and ONNX Runtime's GPU build:
#   docker build -f docker/worker.Dockerfile -t slimline-worker-gpu \
#     --build-arg BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 --build-arg ONNXRUNTIME=onnxruntime-gpu .
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS python
RUN command -v python3 || { apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*; }

FROM python AS build
ARG ONNXRUNTIME=onnxruntime
# Where pip looks besides its usual index, for a build of torch for another device.
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python3 -m venv /opt/slimline
# The dependencies first: this layer changes only with pyproject.toml and constraints.txt.
COPY pyproject.toml constraints.txt ./
COPY app/__init__.py app/__init__.py
RUN touch README.md LICENSE \
 && /opt/slimline/bin/pip install --no-cache-dir --constraint constraints.txt '.[worker]' \
 && /opt/slimline/bin/pip uninstall --yes slimline
# Both builds of ONNX Runtime are one module, so only one may be there; the version stays the pinned one.
RUN test "$ONNXRUNTIME" = onnxruntime || { \
    version=$(sed -n 's/^onnxruntime==//p' constraints.txt) \
 && /opt/slimline/bin/pip uninstall --yes onnxruntime \
 && /opt/slimline/bin/pip install --no-cache-dir --constraint constraints.txt "$ONNXRUNTIME==$version"; }
COPY README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY worker worker
RUN /opt/slimline/bin/pip install --no-cache-dir --no-deps .

FROM python
RUN useradd --uid 10001 --no-create-home --home-dir /data slimline \
 && install --directory --owner slimline --group slimline /data
COPY --from=build /opt/slimline /opt/slimline
ENV PATH=/opt/slimline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SLIMLINE_DATA=/data
USER 10001
WORKDIR /data
VOLUME /data
# No health check: a worker that hangs loses its lease, and another takes the job.
CMD ["slimline", "worker"]
