# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_setup() {
    cat <<'END'
./qgf setup [--yes] [--torch-index URL]

Makes .venv and builds ros2_ws. Quick when nothing has changed, and goes on where it was interrupted.
  --yes              install missing system packages with sudo (as root they are installed anyway)
  --torch-index URL  also look for torch in this package index, e.g. PyTorch's own for the CPU build, which is
                     smaller by gigabytes than the default one (or set QGF_TORCH_INDEX)
Every other command takes these options too. Environment variables:
  QGF_PYTHON=PATH    the interpreter to use (else 3.11, 3.10, then whatever python3 is)
  QGF_USE_WHEELS=1   use the ROS wheels even where Jazzy or Kilted is sourced
The log is ros2_ws/log/setup.log. On Python 3.12 and newer pybullet is built from source once (minutes).
END
}

command_setup() {
    take_setup_options "$@"
    ((${#REST[@]} == 0)) || die "setup does not know '${REST[0]}'; ./qgf setup --help"
    ensure_setup
    say "ready; next: ./qgf demo, or enter the environment: eval \"\$(./qgf env)\""
}
