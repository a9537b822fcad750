# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements/run.lock requirements/build.lock requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.lock \
    && python -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --requirement requirements/run.lock
COPY pyproject.toml README.md ./
COPY ollama_proxy ollama_proxy
COPY backends backends
COPY cloud-init cloud-init
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /opt/wheel \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /opt/wheel/*.whl

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10434 --home-dir /state --shell /usr/sbin/nologin proxy \
    && install --directory --owner=proxy --group=proxy --mode=0700 /state
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OLLAMA_HOST=0.0.0.0:11434 \
    OLLAMA_PROXY_STATE_DIR=/state
USER 10434
WORKDIR /state
VOLUME /state
EXPOSE 11434
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["ollama-proxy", "healthcheck"]
ENTRYPOINT ["ollama-proxy"]
CMD ["serve"]
