# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_setup() {
    cat <<'END'
./qgf setup [--robot-only | --full] [--yes] [--torch-index URL]

Makes .venv and builds ros2_ws. Quick when nothing has changed, and goes on where it was interrupted.
  --yes              install missing system packages with sudo (as root they are installed anyway)
  --torch-index URL  also look for torch in this package index, e.g. PyTorch's own for the CPU build, which is
                     smaller by gigabytes than the default one (or set QGF_TORCH_INDEX)
  --robot-only       for a robot's computer: only what loads, runs and monitors a policy; no simulator, trainer, window or
                     tests. The checkout stays so; --full adds the rest
Every other command takes --yes and --torch-index too. Environment variables:
  QGF_PYTHON=PATH    the interpreter to use (else 3.11, 3.10, then whatever python3 is)
  QGF_USE_WHEELS=1   use the ROS wheels even where Jazzy or Kilted is sourced
The log is ros2_ws/log/setup.log. On Python 3.12 and newer pybullet is built from source once (minutes).
END
}

command_setup() {
    take_setup_options "$@"
    if [[ ${REST[*]} == --robot-only ]]; then
        stamps
        # Packages are never taken out again: what would be left is not what was asked for.
        [[ $SCOPE == robot || ! -e $VENV ]] ||
            die "this checkout holds the whole environment, or a part of it; rm -r .venv ros2_ws/build ros2_ws/install first, or use another clone"
        WANTED_SCOPE=robot
    elif [[ ${REST[*]} == --full ]]; then
        WANTED_SCOPE=full
    elif ((${#REST[@]} > 0)); then
        die "setup does not know '${REST[*]}'; ./qgf setup --help"
    fi
    ensure_setup
    if [[ $SCOPE == robot ]]; then
        say "ready for a robot; next: ./qgf preflight BUNDLE, or enter the environment: eval \"\$(./qgf env)\""
    else
        say "ready; next: ./qgf demo, or enter the environment: eval \"\$(./qgf env)\""
    fi
}
