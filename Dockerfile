# syntax=docker/dockerfile:1
# The service, without torch. A GPU image and a CPU image differ by one argument:
#   docker build -t tessera .                           onnxruntime-gpu and the CUDA libraries as wheels
#   docker build -t tessera --build-arg RUNTIME=cpu .   a quarter of the size
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG RUNTIME=gpu
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Wheels whose sha256 the lock files name; then ours, built by the setuptools that they name.
COPY requirements requirements
RUN lock=serve-${RUNTIME} && python3 -m requirements.covered $lock && python3 -m venv /opt/tessera \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/$lock.txt
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY tessera tessera
RUN /opt/tessera/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
# The CRF compiled for this processor, beside its sources, where no volume hides it; the server copies it to where it can
# write. On another kind of processor it compiles it once more, beside itself. To some versions of numba code is valid for
# a file's exact time, and layers keep whole seconds only: hence the touch.
RUN find /opt/tessera/lib -path '*/site-packages/models/*.py' -exec touch -d @1700000000 {} + \
    && cd / && /opt/tessera/bin/python -c "from models.crf.cpu.warmup import warm; warm()"

FROM python:${PYTHON}-slim
ENV PATH=/opt/tessera/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/tessera/numba \
    TESSERA_STATE=/var/lib/tessera/state
# Volumes begin as the folders they are laid over: jobs may have one of its own.
RUN useradd --uid 10001 --home-dir /var/lib/tessera --create-home tessera \
    && install --directory --owner=tessera --group=tessera /var/lib/tessera/jobs
COPY --from=build /opt/tessera /opt/tessera
USER tessera
VOLUME /var/lib/tessera
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["tessera"]
# A container is reached through what publishes its port: on 127.0.0.1 that is this machine. Elsewhere set TESSERA_KEYS.
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--open"]
