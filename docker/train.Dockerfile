# SPDX-License-Identifier: Apache-2.0
# A training machine: simulates, trains, exports and evaluates. No ROS.
# Build from the top of the repository (see docker/README.md):
#   docker build -f docker/train.Dockerfile -t qgf-train .
FROM python:3.11-slim-bookworm

ARG UID=1001
RUN useradd --create-home --uid "${UID}" qgf
USER qgf
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
RUN mkdir runs
VOLUME /home/qgf/qgf/runs
ENTRYPOINT ["/home/qgf/qgf/.venv/bin/python", "-m", "qgf_trainer.cli"]
CMD ["train", "--help"]
