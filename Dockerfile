# Three images from one wheel:
#   docker build --target tenon   -t tenon:0.1.0 .           control plane, router, migrations (the default)
#   docker build --target engine  -t tenon-engine:0.1.0 .    vLLM with the agent beside it
#   docker build --target trainer -t tenon-trainer:0.1.0 .   with the training libraries, for GPUs and CPUs
# An engine for CPUs is the same target over vLLM's own CPU image of the same version:
#   docker build --target engine --build-arg VLLM_IMAGE=... -t tenon-engine-cpu:0.1.0 .
# Pin by digest what you publish: --build-arg PYTHON_IMAGE=python@sha256:... and VLLM_IMAGE likewise.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
RUN pip install --no-cache-dir hatchling==1.27.0
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY router router
COPY trainer trainer
COPY server server
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${VLLM_IMAGE} AS engine
USER root
# What vLLM was built and tested with is a constraint: a dependency of ours that disagrees fails the build
# instead of changing the engine. python3 is whichever Python the image runs vLLM with.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python=$(command -v python3) \
    && uv pip list --python "$python" --format freeze > /tmp/vllm.txt \
    && uv pip install --python "$python" --break-system-packages --no-cache --constraint /tmp/vllm.txt /wheel/*.whl \
    && rm /tmp/vllm.txt \
    # A user with a name: torch asks for it when it picks its compile cache, and fails for a bare number.
    && groupadd --gid 10001 tenon \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tenon
# The root file system is read-only in the cluster: caches go where a scratch volume is mounted.
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8410 8411
ENTRYPOINT ["tenon"]

FROM ${PYTHON_IMAGE} AS trainer
# The lock pins all but torch, which the package pins itself; PyPI's build of it carries its own CUDA.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=requirements/demo.txt,target=/locked.txt \
    python -m venv /opt/tenon \
    && wheel=$(echo /wheel/*.whl) \
    && /opt/tenon/bin/pip install --no-cache-dir --constraint /locked.txt "$wheel[train,qlora]" \
    && groupadd --gid 10001 tenon \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tenon
ENV PATH=/opt/tenon/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["tenon"]

FROM ${PYTHON_IMAGE} AS tenon
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=requirements/demo.txt,target=/locked.txt \
    python -m venv /opt/tenon \
    && /opt/tenon/bin/pip install --no-cache-dir --constraint /locked.txt /wheel/*.whl \
    && groupadd --gid 10001 tenon \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tenon
ENV PATH=/opt/tenon/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8400 8401
ENTRYPOINT ["tenon"]
