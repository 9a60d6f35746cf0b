# syntax=docker/dockerfile:1
# The control plane with its command line, and nothing else: no web framework, no web server, no package manager.
#   docker build -f deploy/images/controlplane.Dockerfile -t neuronetz-gateway/controlplane .
FROM python:3.12-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/gateway
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-default-groups --extra controlplane --no-install-project
COPY shared shared
COPY proto/neuronetz proto/neuronetz
COPY controlplane controlplane
RUN uv sync --frozen --no-default-groups --extra controlplane --no-editable

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && pip uninstall --yes --quiet pip
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
USER 10001:10001
EXPOSE 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9090), 2).close()"]
# `neuronetz-gateway migrate` runs the migrations alone; the control plane also does so when it starts.
ENTRYPOINT ["python", "-P", "-m", "controlplane"]
