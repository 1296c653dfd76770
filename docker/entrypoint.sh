#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Enters the distribution, the virtual environment and the workspace, and becomes the given command.
set -e
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "/opt/ros/${ROS_DISTRO:?}/setup.bash"
source "$here/ros2_ws/install/setup.bash"
export PATH="$here/.venv/bin:$PATH"
exec "$@"
