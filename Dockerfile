# somareg on the CPU, as an unprivileged user, without network at run time.
#
#   docker build -t somareg .
#   docker run --rm --network none -v "$PWD":/data --user "$(id -u):$(id -g)" somareg register sar.tif optical.tif -o aligned
#
# PyTorch's default wheels for x86-64 Linux bring several GB of GPU libraries, which this image does not use. For a
# small image name PyTorch's index of CPU wheels:
#
#   docker build -t somareg --build-arg TORCH_INDEX=ADDRESS .

# The tag moves with Debian's and Python's fixes. For a build that can be repeated to the byte, put the digest that
# `docker buildx imagetools inspect python:3.11-slim-bookworm` tells behind it, in both stages: ...-bookworm@sha256:...
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/somareg
# The dependencies change less often than the code: first a layer of the large one.
COPY constraints.txt ./
RUN /opt/somareg/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/somareg/bin/pip wheel --no-deps --wheel-dir dist . \
    && /opt/somareg/bin/pip install --constraint constraints.txt dist/*.whl \
    && /opt/somareg/bin/pip check
# What PyTorch brings for building and testing, 0.2 GB. It looks for torch_shm_manager when it is imported.
RUN cd /opt/somareg/lib/python3.*/site-packages/torch \
    && rm -rf test include \
    && find bin -type f ! -name torch_shm_manager -delete

FROM python:3.11-slim-bookworm
# GDAL inside rasterio's wheel is linked against the system's expat, which the slim image lacks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin somareg
COPY --from=build /opt/somareg /opt/somareg
# Any user may run it (docker run --user), so nothing is kept in a home: caches go to /tmp.
ENV PATH=/opt/somareg/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Would it start? And are weights and demo pair inside?
RUN ["somareg", "doctor"]
WORKDIR /data
ENTRYPOINT ["somareg"]
CMD ["--help"]
