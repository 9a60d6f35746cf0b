# syntax=docker/dockerfile:1
# The data plane and nothing else: no Postgres driver, no Argon2, no package manager.
#   docker build -f deploy/images/dataplane.Dockerfile -t neuronetz-gateway/dataplane .
FROM python:3.12-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/gateway
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-default-groups --extra dataplane --no-install-project
COPY shared shared
COPY proto/neuronetz/__init__.py proto/neuronetz/
COPY proto/neuronetz/state proto/neuronetz/state
COPY dataplane dataplane
RUN uv sync --frozen --no-default-groups --extra dataplane --no-editable \
    && rm /opt/gateway/bin/neuronetz-gateway

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && pip uninstall --yes --quiet pip
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["python", "-P", "-m", "dataplane"]
