# SPDX-License-Identifier: Apache-2.0
# The computer beside the arm: loads a bundle, runs it, monitors it. No PyBullet, no Gymnasium, no trainer.
# Build from the top of the repository (see docker/README.md):
#   docker build -f docker/robot.Dockerfile -t qgf-robot .
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008  # the base image's release moves within its versions only
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ cmake make python3-dev python3-numpy python3-venv \
    && rm -rf /var/lib/apt/lists/*

# An unprivileged user; give the uid of the other ROS processes on the host, or they will not exchange messages.
ARG UID=1001
# Ubuntu's image has a user of uid 1000 already. The folders are made here, as the user's: a WORKDIR or a volume that is
# not there yet would be root's.
RUN if id ubuntu >/dev/null 2>&1; then userdel --remove ubuntu; fi \
    && useradd --create-home --uid "${UID}" qgf && install -d -o qgf -g qgf /home/qgf/qgf /home/qgf/.ros
USER ${UID}
WORKDIR /home/qgf/qgf

# The Python packages come first: they change less often than the sources. The distribution's numpy is kept, because
# its packages are compiled against it.
COPY --chown=qgf requirements/build.txt requirements/numpy-1.txt requirements/robot.txt requirements/
# The index of torch's CPU build; without it the default build comes, which is larger by gigabytes.
ARG TORCH_INDEX=""
RUN python3 -m venv --system-site-packages .venv \
    && python3 -c 'import numpy; print(f"numpy=={numpy.__version__}")' > constraints.txt \
    && .venv/bin/python -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
        --constraint constraints.txt --requirement requirements/build.txt --requirement requirements/numpy-1.txt \
        --requirement requirements/robot.txt

COPY --chown=qgf launch launch
COPY --chown=qgf config config
COPY --chown=qgf ros2_ws/src/qgf_bringup ros2_ws/src/qgf_bringup
COPY --chown=qgf ros2_ws/src/qgf_core ros2_ws/src/qgf_core
COPY --chown=qgf ros2_ws/src/qgf_monitor ros2_ws/src/qgf_monitor
COPY --chown=qgf ros2_ws/src/qgf_msgs ros2_ws/src/qgf_msgs
COPY --chown=qgf ros2_ws/src/qgf_policy ros2_ws/src/qgf_policy
RUN bash -c 'source "/opt/ros/${ROS_DISTRO}/setup.bash" && cd ros2_ws \
    && ../.venv/bin/python -m colcon build --merge-install \
        --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE=/home/qgf/qgf/.venv/bin/python'

COPY --chown=qgf docker/entrypoint.sh docker/healthcheck.sh docker/healthcheck.py docker/
# One thread for inference; no shared memory, which a killed container would leave behind.
ENV OMP_NUM_THREADS=1 \
    FASTDDS_BUILTIN_TRANSPORTS=UDPv4 \
    QGF_CONFIG_DIR=/home/qgf/qgf/config
VOLUME /bundles
ENTRYPOINT ["/home/qgf/qgf/docker/entrypoint.sh"]
CMD ["ros2", "launch", "qgf_bringup", "deploy.launch.py", "--show-args"]
