# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_dashboard() {
    cat <<'END'
./qgf dashboard [--theme light|dark] [--arm NAMESPACE] [--ros-args ...]

Opens a window on a running policy: how smooth it is, joint by joint, against its baseline; command and response,
spectrum, timing; activation and emergency stop. The same widget is rqt's plugin "QGF Dashboard". It needs libGL.so.1
and a desktop's X libraries (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb-icccm4 libxcb-image0
libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0 libdbus-1-3
libfontconfig1).

END
    parser_help rqt_qgf.dashboard_node
}

command_dashboard() {
    prepare "$@"
    exec "$VENV/bin/python" -m rqt_qgf.dashboard_node "${REST[@]}"
}
