# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Set-up: system packages, virtual environment, Python packages, workspace. Sourced by ./qgf after ros.sh.
#
# Each part ends by writing a stamp that names what it was made from; a part whose stamp holds is left alone, and one
# that was interrupted has none and is taken up again.

ENVIRONMENT_ORIGIN="$VENV/.qgf-origin" # ROS mode, ROS prefix and checkout that the environment was begun for
PACKAGES_STAMP="$VENV/.qgf-packages"
WORKSPACE_STAMP="$INSTALL/.qgf-workspace"
SCOPE_FILE="$VENV/.qgf-scope" # "robot" where this checkout is for a robot's computer, else "full"

ROBOT_PACKAGES="qgf_msgs qgf_core qgf_policy qgf_monitor qgf_bringup"
# What a robot's computer can do; all else needs the simulator, the trainer or the tools of development.
ROBOT_COMMANDS="setup build env doctor run preflight keygen sign verify keystore audit"

# Brings everything up to date; silent and quick where it is already.
ensure_setup() {
    stamps
    [[ $SCOPE == full || " $ROBOT_COMMANDS " == *" $COMMAND "* ]] ||
        die "'$COMMAND' needs the simulator and the trainer, and this checkout is set up for a robot's computer; ./qgf setup --full adds them"
    if is_current; then return; fi
    refuse_lost_distribution
    [[ $ROOT != *:* ]] || die "the path $ROOT holds a colon, which search paths cannot hold; move the checkout"
    [[ -w $ROOT && -w $WORKSPACE ]] || die "$ROOT cannot be written by $(id -un); clone it to a folder of yours"
    mkdir -p "${LOG%/*}"
    exec {lock}>"$WORKSPACE/log/.setup-lock"
    if ! flock -n "$lock"; then
        say "another set-up of this checkout is running; waiting for it"
        flock "$lock"
    fi
    stamps
    if ! packages_are_current; then make_environment; fi
    if ! workspace_is_current; then build_workspace; fi
    exec {lock}>&-
}

# A forgotten `source` is not to cost a set-up from nothing.
refuse_lost_distribution() {
    local mode prefix
    [[ $ROS_MODE == wheels && -z ${QGF_USE_WHEELS:-} && -r $ENVIRONMENT_ORIGIN ]] || return 0
    {
        read -r mode
        read -r prefix
    } <"$ENVIRONMENT_ORIGIN"
    [[ $mode == wheels ]] ||
        die "this checkout is set up with ROS $mode; source $prefix/setup.bash first, or QGF_USE_WHEELS=1 ./qgf setup makes it anew with the ROS wheels"
}

is_current() { packages_are_current && workspace_is_current; }
packages_are_current() { [[ -x $VENV/bin/python && -r $PACKAGES_STAMP && $(<"$PACKAGES_STAMP") == "$PACKAGES_WANTED" ]]; }
workspace_is_current() { [[ -r $WORKSPACE_STAMP && $(<"$WORKSPACE_STAMP") == "$WORKSPACE_WANTED $(python_folder)" ]]; }

# Prints the name of the environment's library folder, e.g. python3.11.
python_folder() {
    local folder
    for folder in "$VENV"/lib/python3.*; do printf '%s' "${folder##*/}"; done
}

# Computes the stamps that the present state asks for. Python sources are not part of them: the build links to them.
stamps() {
    local platform listing
    SCOPE=full
    [[ ! -r $SCOPE_FILE ]] || SCOPE=$(<"$SCOPE_FILE")
    SCOPE=${WANTED_SCOPE:-$SCOPE}
    platform="$ROS_MODE $ROS_PREFIX $ROOT"
    [[ $SCOPE == full ]] || platform+=" $SCOPE"
    PACKAGES_WANTED="$platform $(cd "$ROOT" && sha256sum requirements/*.txt scripts/mend_ros_wheels.py | sha256sum)"
    listing=$(
        cd "$ROOT" || exit
        sha256sum requirements/{ros,build,numpy,numpy-1}.txt scripts/mend_ros_wheels.py
        find launch config -name __pycache__ -prune -o -type f -print | LC_ALL=C sort
        find ros2_ws/src -type f \( -name package.xml -o -name setup.py -o -name setup.cfg -o -name CMakeLists.txt \
            -o -name '*.msg' -o -name '*.srv' -o -name '*.action' -o -path '*/resource/*' \) -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
    )
    WORKSPACE_WANTED="$platform $(sha256sum <<<"$listing")"
}

# ---------------------------------------------------------------------------------------------- system packages

# Sets PYTHON to the interpreter of the new environment: of the versions that really run (a pyenv shim may stand for a
# version that is not there), 3.11 and 3.10 first, because pybullet has wheels for these only. "" where there is none.
choose_python() {
    PYTHON=
    local name candidate names=(python3.11 python3.10 python3 python3.12 python3.13 python3.14)
    # A distribution's Python packages are compiled for its own interpreter.
    [[ $ROS_MODE == wheels ]] || names=(python3)
    [[ -z ${QGF_PYTHON:-} ]] || names=("$QGF_PYTHON")
    for name in "${names[@]}"; do
        while read -r candidate; do
            if [[ $ROS_MODE == wheels ]]; then
                runs_python "$candidate" || continue
            else
                "$candidate" -c 'import rclpy' >/dev/null 2>&1 || continue
            fi
            PYTHON=$candidate
            return
        done < <(type -aP "$name")
    done
    [[ -z ${QGF_PYTHON:-} ]] || die "QGF_PYTHON=$QGF_PYTHON: no CPython 3.10 to 3.14 for x86_64 runs there; unset it or name another"
    [[ $ROS_MODE == wheels ]] || die "no python3 on PATH imports rclpy of $ROS_PREFIX; leave other Python environments (deactivate, conda deactivate) and try again"
}

runs_python() {
    "$1" -c 'import platform, sys
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 14) and platform.python_implementation() == "CPython"))' >/dev/null 2>&1
}

# Prints the Debian packages that are missing for building with PYTHON.
missing_packages() {
    local missing=() version
    command -v g++ >/dev/null || missing+=(g++)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v make >/dev/null || missing+=(make)
    if [[ -z $PYTHON ]]; then
        missing+=(python3 python3-venv python3-dev)
    else
        version=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=("$version-venv")
        "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || missing+=("$version-dev")
    fi
    printf '%s' "${missing[*]}"
}

ensure_system_packages() {
    local missing sudo=()
    [[ $(uname -sm) == "Linux x86_64" ]] || [[ $ROS_MODE != wheels ]] ||
        die "$(uname -sm): the ROS wheels exist for Linux x86_64 only; source ROS 2 Jazzy or Kilted and run ./qgf setup again"
    choose_python
    missing=$(missing_packages)
    [[ -n $missing ]] || return 0
    command -v apt-get >/dev/null || die "missing: $missing (Debian's names); install them with this system's package manager and run ./qgf setup again"
    if ((EUID != 0)); then
        if [[ -z $ASSUME_YES ]] || ! command -v sudo >/dev/null; then
            die "missing system packages; run: sudo apt-get install -y $missing   (or ./qgf setup --yes does it)"
        fi
        sudo=(sudo)
        sudo -v || die "sudo was refused; run as an administrator: apt-get install -y $missing"
    fi
    # shellcheck disable=SC2086  # a list of package names
    if ! logged "system packages: $missing" 60 "${sudo[@]}" sh -c \
        'apt-get update -q && DEBIAN_FRONTEND=noninteractive exec apt-get install -y -q --no-install-recommends "$@"' sh $missing; then
        if log_shows_no_network; then die "no network: cannot install $missing; connect this machine and run ./qgf setup again"; fi
        die_with_log "apt-get could not install $missing; mend what it says above and run ./qgf setup again"
    fi
    choose_python
    missing=$(missing_packages)
    [[ -z $missing ]] || die "still missing after apt-get: $missing; install them by hand and run ./qgf setup again"
}

# ---------------------------------------------------------------------------------------------- Python packages

make_environment() {
    ensure_system_packages
    local origin="$ROS_MODE"$'\n'"$ROS_PREFIX"$'\n'"$ROOT"
    # Another ROS, a moved checkout or an environment that was never finished being made: start over.
    if [[ -e $VENV ]] && [[ ! -x $VENV/bin/python || ! -r $ENVIRONMENT_ORIGIN || $(<"$ENVIRONMENT_ORIGIN") != "$origin" ]]; then
        say "making .venv anew: the one that stands there was made for something else, or never finished"
        rm -rf "$VENV"
    fi
    say "ROS 2 from $([[ $ROS_MODE == wheels ]] && echo "its wheels (Kilted)" || echo "the sourced $ROS_MODE in $ROS_PREFIX"), Python from $PYTHON"
    if [[ ! -e $VENV ]]; then
        local options=()
        [[ $ROS_MODE == wheels ]] || options=(--system-site-packages)
        logged "virtual environment .venv" 5 "$PYTHON" -m venv "${options[@]}" "$VENV" ||
            die_with_log "$PYTHON could not make a virtual environment in $VENV"
        printf '%s\n' "$origin" >"$ENVIRONMENT_ORIGIN"
    fi
    printf '%s\n' "$SCOPE" >"$SCOPE_FILE"
    use_environment base
    [[ $SCOPE == robot ]] || build_pybullet_wheel
    install_python_packages
    if [[ $ROS_MODE == wheels ]]; then
        logged "CMake files of the ROS wheels" 1 "$VENV/bin/python" "$ROOT/scripts/mend_ros_wheels.py" ||
            die_with_log "the ROS wheels could not be mended"
    fi
    printf '%s\n' "$PACKAGES_WANTED" >"$PACKAGES_STAMP.new"
    mv "$PACKAGES_STAMP.new" "$PACKAGES_STAMP"
}

pip_options() {
    printf '%s\0' --disable-pip-version-check --no-input --retries 3
    [[ -z ${TORCH_INDEX:-} ]] || printf '%s\0' --extra-index-url "$TORCH_INDEX"
    [[ ! -d $WHEELS ]] || printf '%s\0' --find-links "$WHEELS"
}

WHEELS="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/qgf/wheels"

# pybullet has no wheels for Python 3.12 and newer: builds one once and keeps it.
build_pybullet_wheel() {
    local requirement tag options
    requirement=$(grep -oE '^pybullet==[0-9.]+' "$ROOT/requirements/train.txt")
    tag=$("$VENV/bin/python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    [[ $tag != cp310 && $tag != cp311 ]] || return 0
    compgen -G "$WHEELS/${requirement/==/-}-$tag-*.whl" >/dev/null && return
    "$VENV/bin/python" -c "import importlib.metadata as m; assert 'pybullet==' + m.version('pybullet') == '$requirement'" 2>/dev/null && return
    mkdir -p "$WHEELS"
    mapfile -d '' options < <(pip_options)
    logged "$requirement from source, once for this Python ($tag has no wheel)" 600 \
        "$VENV/bin/python" -m pip wheel "${options[@]}" --no-deps --wheel-dir "$WHEELS" "$requirement" ||
        pip_failed "$requirement could not be built"
}

install_python_packages() {
    local files=(build robot train gui dev) what="torch, pybullet, ROS wheels: 2.3 GB" arguments=() options name
    [[ $SCOPE == full ]] || files=(build robot) what="torch, ROS wheels: 1.3 GB"
    if [[ $ROS_MODE == wheels ]]; then
        files+=(ros numpy)
    else
        files+=(numpy-1)
        # The distribution's packages are compiled against its numpy.
        "$VENV/bin/python" -c 'import numpy; print(f"numpy=={numpy.__version__}")' >"$VENV/.qgf-constraints" ||
            die "the sourced $ROS_MODE has no numpy; install python3-numpy and run ./qgf setup again"
        arguments+=(--constraint "$VENV/.qgf-constraints")
    fi
    for name in "${files[@]}"; do arguments+=(--requirement "$ROOT/requirements/$name.txt"); done
    mapfile -d '' options < <(pip_options)
    # One command for all: torch would otherwise bring a setuptools that colcon cannot use.
    logged "Python packages ($what)" 60 \
        "$VENV/bin/python" -m pip install "${options[@]}" "${arguments[@]}" || pip_failed "the Python packages could not be installed"
}

pip_failed() {
    if log_shows_no_network; then
        die "no network: the Python package index cannot be reached; connect, or set PIP_INDEX_URL to a mirror, and run ./qgf setup again"
    fi
    if last_log | grep 'CERTIFICATE_VERIFY_FAILED' >/dev/null; then
        die "the package index's certificate is not trusted (a proxy's?); set PIP_CERT to the file of its authority and run ./qgf setup again"
    fi
    ! last_log | grep 'No space left on device' >/dev/null || die "the disk is full; free about 3 GB at $ROOT and run ./qgf setup again"
    die_with_log "$1; the reason stands above and in $LOG; mend it and run ./qgf setup again"
}

# ---------------------------------------------------------------------------------------------- workspace

build_workspace() {
    local platform="$WORKSPACE/build/.qgf-platform" from selection=()
    from="$ROS_MODE $ROS_PREFIX $ROOT $("$VENV/bin/python" -c 'import sys; print(sys.version)') $(cat "$ROOT"/requirements/{ros,build}.txt | sha256sum)"
    # CMake's caches hold absolute paths and versions: another platform starts over.
    if [[ ! -r $platform || $(<"$platform") != "$from" ]]; then
        rm -rf "$WORKSPACE/build" "$INSTALL"
        mkdir -p "$WORKSPACE/build"
        printf '%s\n' "$from" >"$platform"
    fi
    rm -f "$WORKSPACE_STAMP"
    use_environment base
    # shellcheck disable=SC2206  # a list of names
    [[ $SCOPE == full ]] || selection=(--packages-select $ROBOT_PACKAGES)
    (
        cd "$WORKSPACE"
        logged "workspace" 20 "$VENV/bin/python" -m colcon --log-base log build --base-paths src --build-base build \
            --install-base install --symlink-install --merge-install --event-handlers console_cohesion+ "${selection[@]}" \
            --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$VENV/bin/python" --no-warn-unused-cli
    ) || die_with_log "the workspace could not be built; the reason stands above and in $LOG"
    mend_first_lines
    use_environment workspace
    logged "kernels" 30 "$VENV/bin/python" "$ROOT/scripts/compile_kernels.py" ||
        die_with_log "the kernels could not be compiled; the reason stands above and in $LOG"
    printf '%s\n' "$WORKSPACE_WANTED $(python_folder)" >"$WORKSPACE_STAMP.new"
    mv "$WORKSPACE_STAMP.new" "$WORKSPACE_STAMP"
}

# The kernel splits a script's first line at spaces, quoted or not: where the interpreter's path holds one, the scripts
# start through sh instead, which sees a command where Python sees one string.
mend_first_lines() {
    local script first
    for script in "$INSTALL"/lib/qgf_*/*; do
        [[ -f $script ]] || continue
        IFS= read -r first <"$script"
        [[ $first == '#!"'*'"' ]] || continue
        {
            printf '#!/bin/sh\n'
            printf "'''exec' %s \"\$0\" \"\$@\"\n' '''\n" "${first#'#!'}"
            tail -n +2 "$script"
        } >"$script.new"
        chmod +x "$script.new"
        mv "$script.new" "$script"
    done
}
