# batchwatch in a container: docker build --tag batchwatch .
#
# The base is named by Python and Debian release, so that rebuilding takes up their security
# fixes. Whoever needs the same bytes each time gives the digest that their registry shows:
#   --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

# ---------------------------------------------------------------- build: a venv, and no more

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Dependencies first: they change less often than the code, and keep their layer.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m venv --without-pip /opt/batchwatch \
    && pip install --require-hashes --requirement requirements/build.txt \
    && pip --python /opt/batchwatch/bin/python install --require-hashes --requirement requirements/run.txt

# The byte code never asks for its source's time again: it holds on a read-only root, and
# through whatever copying does to the clock on a file.
COPY LICENSE README.md pyproject.toml ./
COPY batchwatch/ batchwatch/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/batchwatch/bin/python install --no-deps --no-index dist/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/batchwatch/lib

# ------------------------------------------------------------------------------ what is run

FROM ${PYTHON_IMAGE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="batchwatch" \
      org.opencontainers.image.description="Watches LlamaCloud batches and tells people and programs what became of them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Nothing that installs stays. The base ships its standard library as source alone, which a
# read-only root would compile anew at every start.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && rm -rf /usr/local/lib/python3.*/ensurepip \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3.* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin batchwatch \
    && install -d -o 10001 -g 10001 -m 0700 /data

COPY --from=build /opt/batchwatch /opt/batchwatch

# asyncio reads up to 256 KiB into a fresh buffer. glibc would map and unmap each from 128 KiB
# up, and return what is freed at the top of the heap only to ask for it again.
ENV PATH=/opt/batchwatch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_MMAP_THRESHOLD_=1048576 \
    MALLOC_TRIM_THRESHOLD_=16777216 \
    BATCHWATCH_DATA_DIR=/data \
    BATCHWATCH_LISTEN=127.0.0.1:8080

# A number, so that an orchestrator can tell that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data

STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-IS", "-c", "import http.client, os; c = http.client.HTTPConnection(os.environ['BATCHWATCH_LISTEN'], timeout=3); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["batchwatch"]
CMD ["run"]
