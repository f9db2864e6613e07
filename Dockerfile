# Every command of fieldwise, as a user without rights:
#   docker build -t fieldwise .
#   docker run --rm -v "$PWD/work:/work" fieldwise demo
# For NVIDIA GPUs torch's own builds: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /src
RUN python -m venv /opt/fieldwise
RUN /opt/fieldwise/bin/pip install --no-cache-dir --constraint /src/constraints.txt --extra-index-url "$TORCH_INDEX" /src
# Kernels for the CPU of this machine, read by everybody; on another they are compiled once, into the user's cache.
RUN NUMBA_CACHE_DIR="$(/opt/fieldwise/bin/python -c 'import fieldwise; print(fieldwise.__path__[0])')/compiled" \
    /opt/fieldwise/bin/fieldwise doctor --quick
RUN chmod -R a+rX,go-w /opt/fieldwise

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/fieldwise /opt/fieldwise
RUN useradd --uid 10001 --create-home fieldwise && install -d -o fieldwise -g fieldwise /work
ENV PATH=/opt/fieldwise/bin:$PATH
USER 10001
WORKDIR /work
ENTRYPOINT ["fieldwise"]
CMD ["--help"]
