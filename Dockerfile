# Both stages use one base, so that the environment made in the first runs in the second. It is named by
# tag: rebuilding picks up Debian's and Python's fixes. Whoever needs the same bytes each time appends
# the digest that `docker buildx imagetools inspect python:3.13-slim` prints.
FROM python:3.13-slim AS build

WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/
# Wheels only: the image has no compiler, and a source build would run code before its hash meant much.
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/keyproxy \
    && /opt/build/bin/pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
        -r requirements/build.txt \
    && /opt/build/bin/pip --python /opt/keyproxy/bin/python install --no-cache-dir --no-compile \
        --no-deps --only-binary=:all: --require-hashes -r requirements/run.txt

COPY LICENSE NOTICE README.md pyproject.toml ./
COPY keyproxy keyproxy
COPY examples/web examples/web
# Bytecode is made here and never checked against its source again: the final root is read-only.
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist \
    && /opt/build/bin/pip --python /opt/keyproxy/bin/python install --no-cache-dir --no-compile \
        --no-deps --no-index /dist/*.whl \
    && /opt/keyproxy/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/keyproxy/lib


FROM python:3.13-slim

LABEL org.opencontainers.image.title="keyproxy" \
      org.opencontainers.image.description="A sidecar that holds an LLM provider key and serves the API key-free" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /opt/keyproxy /opt/keyproxy

# The ledger's folder, for keyproxy's user only. A volume that is new takes its owner and mode.
RUN install -d --owner=10001 --group=10001 --mode=0700 /data

ENV PATH=/opt/keyproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KEYPROXY_LISTEN=:8484 \
    KEYPROXY_LEDGER=/data/ledger.sqlite3 \
    KEYPROXY_SHUTDOWN_DELAY=5s \
    SQLITE_TMPDIR=/data

# It can be written where the root is read-only. SQLite sorts a large ledger in files there, too: a
# read-only /tmp would fail it.
VOLUME /data

# A keyproxy.toml may be mounted here; it is only read.
WORKDIR /etc/keyproxy

# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001

EXPOSE 8484
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["keyproxy", "ping"]
ENTRYPOINT ["keyproxy"]
CMD ["serve"]
