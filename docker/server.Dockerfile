# The API, the sweeper and the migrations: everything but torch and ONNX. Build it from the root of the checkout:
#   docker build -f docker/server.Dockerfile -t slimline-server .
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
RUN python -m venv /opt/slimline
# The dependencies first: this layer changes only with pyproject.toml and constraints.txt.
COPY pyproject.toml constraints.txt ./
COPY app/__init__.py app/__init__.py
RUN touch README.md LICENSE \
 && /opt/slimline/bin/pip install --no-cache-dir --constraint constraints.txt . \
 && /opt/slimline/bin/pip uninstall --yes slimline
COPY README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY worker worker
RUN /opt/slimline/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --home-dir /data slimline \
 && install --directory --owner slimline --group slimline /data
COPY --from=build /opt/slimline /opt/slimline
ENV PATH=/opt/slimline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SLIMLINE_DATA=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["slimline", "server", "--host", "0.0.0.0", "--port", "8000"]
