# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements/run.lock requirements/build.lock requirements/source.lock requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.lock \
    && /opt/build/bin/pip wheel --no-cache-dir --require-hashes --no-deps --no-build-isolation --use-pep517 \
        --requirement requirements/source.lock --wheel-dir /opt/source \
    && python -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /opt/source/*.whl \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --requirement requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY ollama_proxy ollama_proxy
COPY backends backends
COPY cloud-init cloud-init
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /opt/wheel \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /opt/wheel/*.whl

FROM python:3.13-slim-bookworm
# Whoever runs it: platforms that choose a user of their own give it the group 0.
RUN groupadd --system --gid 10434 ollama-proxy \
    && useradd --system --uid 10434 --gid 10434 --home-dir /state --shell /usr/sbin/nologin ollama-proxy \
    && install --directory --owner=10434 --group=0 --mode=0770 /state
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OLLAMA_HOST=0.0.0.0:11434 \
    OLLAMA_PROXY_STATE_DIR=/state \
    CONTAINER_IMAGE=ollama-proxy
USER 10434
# Not /state, which another user may not be allowed to enter.
WORKDIR /
VOLUME /state
EXPOSE 11434
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["ollama-proxy", "healthcheck"]
ENTRYPOINT ["ollama-proxy"]
CMD ["serve"]
