# syntax=docker/dockerfile:1
# The service, without torch; and the training, with it.
#   docker build -t tessera .                                       onnxruntime-gpu and the CUDA libraries as wheels
#   docker build -t tessera:cpu --build-arg RUNTIME=cpu .           a quarter of the size
#   docker build -t tessera:ray --build-arg EXTRAS=ray,otel .       with extras: lock files of requirements/
#   docker build -t tessera:training --target training .            torch with CUDA
# Each has a list of the packages that were really installed in it, as CycloneDX: the label io.tessera.sbom says where.
ARG PYTHON=3.11

# What all of them are built with: a compiler for our kernels, and what writes the list of packages.
FROM python:${PYTHON}-slim AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
# Wheels whose sha256 the lock files name; ours, further down, are built by the setuptools that they name.
RUN python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt -r requirements/tools.txt
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY tessera tessera

FROM tools AS training-build
RUN python3 -m requirements.covered training && python3 -m venv /opt/tessera \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/training.txt
COPY training training
RUN /opt/tessera/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
        --output-file /opt/tessera/sbom.cdx.json /opt/tessera/bin/python

#   docker run --gpus all --shm-size 1g -v ./photos:/data:ro -v ./runs:/runs tessera:training --data /data --out /runs/photos
# /runs belongs to the user 10001: so does a folder that is put there.
FROM python:${PYTHON}-slim AS training
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tessera training" \
      org.opencontainers.image.description="From a folder of unlabelled images to a bundle and a report" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      io.tessera.sbom="/opt/tessera/sbom.cdx.json"
ENV PATH=/opt/tessera/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/tessera/numba
RUN useradd --uid 10001 --home-dir /var/lib/tessera --create-home tessera && install -d -o tessera -g tessera /runs
COPY --from=training-build /opt/tessera /opt/tessera
USER 10001:10001
WORKDIR /runs
VOLUME /var/lib/tessera /runs
STOPSIGNAL SIGTERM
# training/train.py; the other commands are `--entrypoint tessera … evaluate`, `… recluster`.
ENTRYPOINT ["tessera", "train"]
CMD ["--help"]

FROM tools AS build
ARG RUNTIME=gpu
ARG EXTRAS=
RUN locks="serve-${RUNTIME} $(echo "${EXTRAS}" | tr , ' ')" && python3 -m requirements.covered $locks \
    && python3 -m venv /opt/tessera \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/tessera/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
        $(printf -- '-r requirements/%s.txt ' $locks)
# Ours without what needs torch; then out with what only installs, tests or debugs, and the list of what is left.
RUN rm -r models/nets && /opt/tessera/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && python3 -m requirements.slim /opt/tessera \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
        --output-file /opt/tessera/sbom.cdx.json /opt/tessera/bin/python
# The CRF compiled for this processor, beside its sources, where no volume hides it; the server copies it to where it can
# write. On another kind of processor it compiles it once more, beside itself. To some versions of numba code is valid for
# a file's exact time, and layers keep whole seconds only: hence the touch.
RUN find /opt/tessera/lib -path '*/site-packages/models/*.py' -exec touch -d @1700000000 {} + \
    && cd / && /opt/tessera/bin/python -c "from models.crf.cpu.warmup import warm; warm()"

FROM python:${PYTHON}-slim AS service
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Unsupervised semantic segmentation as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      io.tessera.sbom="/opt/tessera/sbom.cdx.json"
ENV PATH=/opt/tessera/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/tessera/numba \
    TESSERA_STATE=/var/lib/tessera/state
# Volumes begin as the folders they are laid over: jobs may have one of its own.
RUN useradd --uid 10001 --home-dir /var/lib/tessera --create-home tessera \
    && install --directory --owner=tessera --group=tessera /var/lib/tessera/jobs
# What KubeRay needs of an image with Ray: wget for its probes; `ray` where a login shell, whose PATH is its own, finds it.
ARG EXTRAS=
RUN case ",${EXTRAS}," in *,ray,*) \
        apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
        && ln -s /opt/tessera/bin/ray /usr/local/bin/ ;; \
    esac
COPY --from=build /opt/tessera /opt/tessera
USER 10001:10001
VOLUME /var/lib/tessera
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["tessera"]
# A container is reached through what publishes its port: on 127.0.0.1 that is this machine. Elsewhere set TESSERA_KEYS.
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--open"]
