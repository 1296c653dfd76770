#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whether a node answers: docker/healthcheck.sh /policy_node. Exits with 0 or 1. Works in both images.
set -e
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
if [[ -f $here/ros2_ws/install/setup.bash && -n ${ROS_DISTRO:-} && -f /opt/ros/$ROS_DISTRO/setup.bash ]]; then
    # shellcheck source=/dev/null
    source "/opt/ros/$ROS_DISTRO/setup.bash"
    export PATH="$here/.venv/bin:$PATH"
else
    eval "$("$here/qgf" env)"
fi
exec python "$here/docker/healthcheck.py" "$@"
