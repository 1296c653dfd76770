# SPDX-License-Identifier: Apache-2.0
# Two images, built from the top of the repository (see docker/README.md):
#   docker build -f docker/train.Dockerfile --target train -t qgf-train .    a training machine: no ROS
#   docker build -f docker/train.Dockerfile --target full -t qgf-full .      everything, with ROS from its wheels
FROM python:3.11-slim-bookworm AS base

ARG UID=1001
# The folders are made here, as the user's: a WORKDIR or a volume that is not there yet would be root's.
RUN useradd --create-home --uid "${UID}" qgf && install -d -o qgf -g qgf /home/qgf/qgf /home/qgf/.ros

# ------------------------------------------------------------------------------------------- simulate, train, evaluate
FROM base AS train
ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008  # Debian's stable release moves within its versions only
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ARG UID=1001
USER ${UID}
WORKDIR /home/qgf/qgf

COPY --chown=qgf requirements/numpy.txt requirements/robot.txt requirements/train.txt requirements/
# The index of torch's CPU build; without it the default build comes, which uses a GPU where there is one.
ARG TORCH_INDEX=""
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
        --requirement requirements/numpy.txt --requirement requirements/robot.txt --requirement requirements/train.txt

COPY --chown=qgf config config
COPY --chown=qgf ros2_ws/src/qgf_core ros2_ws/src/qgf_core
COPY --chown=qgf ros2_ws/src/qgf_sim ros2_ws/src/qgf_sim
COPY --chown=qgf ros2_ws/src/qgf_trainer ros2_ws/src/qgf_trainer

# Networks this small run fastest on one thread; several seeds run side by side instead.
ENV OMP_NUM_THREADS=1 \
    PYTHONPATH=/home/qgf/qgf/ros2_ws/src/qgf_core:/home/qgf/qgf/ros2_ws/src/qgf_sim:/home/qgf/qgf/ros2_ws/src/qgf_trainer \
    QGF_CONFIG_DIR=/home/qgf/qgf/config
# For processors like the one that builds the image; another makes its own when training starts, in seconds.
RUN .venv/bin/python -c "from qgf_trainer.native_library import build; build()" && mkdir runs
VOLUME /home/qgf/qgf/runs
ENTRYPOINT ["/home/qgf/qgf/.venv/bin/python", "-m", "qgf_trainer.cli"]
CMD ["train", "--help"]

# --------------------------------------------------------------------------- the double, the nodes, the demo, the window
FROM base AS full
ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008  # Debian's stable release moves within its versions only
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ cmake make libgl1 libglib2.0-0 libxcb-icccm4 libxcb-image0 \
        libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0 \
        libdbus-1-3 libfontconfig1 \
    && rm -rf /var/lib/apt/lists/*
ARG UID=1001
USER ${UID}
WORKDIR /home/qgf/qgf
COPY --chown=qgf . .
ARG TORCH_INDEX=""
RUN QGF_TORCH_INDEX="${TORCH_INDEX}" PIP_NO_CACHE_DIR=1 ./qgf setup
CMD ["./qgf", "help"]
