# syntax=docker/dockerfile:1
# The mock Ollama of the demo stack.
FROM python:3.12-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/gateway
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-default-groups --extra dataplane --no-install-project
COPY shared shared
COPY deploy/__init__.py deploy/
COPY deploy/mock_ollama deploy/mock_ollama
RUN uv sync --frozen --no-default-groups --extra dataplane --no-editable \
    && rm /opt/gateway/bin/neuronetz-gateway

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && pip uninstall --yes --quiet pip
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
USER 10001:10001
EXPOSE 11434
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:11434/api/version', timeout=2)"]
ENTRYPOINT ["python", "-P", "-m", "deploy.mock_ollama", "--host", "0.0.0.0", "--port", "11434", "--record-delay-ms", "25"]
