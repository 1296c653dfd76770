# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034  # variables for the other parts
# Which ROS 2 is used, and the environment that goes with it. Sourced by ./qgf after common.sh.

# Names of the distributions whose packages the workspace is built against when they are sourced.
SUPPORTED_DISTRIBUTIONS="jazzy kilted"

# Prints the sourced distribution's prefix: the entry of AMENT_PREFIX_PATH that holds rclpy and is no virtual
# environment (after `eval "$(./qgf env)"` the wheels' own environment stands there).
sourced_prefix() {
    local entry
    local - IFS=:
    set -f
    for entry in ${AMENT_PREFIX_PATH:-}; do
        if [[ -e $entry/share/ament_index/resource_index/packages/rclpy && ! -e $entry/pyvenv.cfg ]]; then
            printf '%s' "$entry"
            return
        fi
    done
}

# Sets ROS_MODE to "wheels" or to the distribution's name, and ROS_PREFIX to the distribution's prefix ("" for wheels).
# Any other sourced distribution is scrubbed from this process's environment, with one line said once.
find_ros() {
    ROS_MODE=wheels ROS_PREFIX=
    local prefix
    prefix=$(sourced_prefix)
    [[ -n $prefix || -n ${ROS_DISTRO:-} ]] || return 0
    if [[ -n $prefix && " $SUPPORTED_DISTRIBUTIONS " == *" ${ROS_DISTRO:-} "* && -z ${QGF_USE_WHEELS:-} ]]; then
        ROS_MODE=$ROS_DISTRO ROS_PREFIX=$prefix
        return 0
    fi
    # An environment entered by `./qgf env` is not somebody else's ROS.
    [[ -n $prefix || -z ${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-} ]] || return 0
    say "ignoring the sourced ROS ${ROS_DISTRO:-at $prefix}: only ${SUPPORTED_DISTRIBUTIONS/ / and } are used, otherwise the ROS wheels"
    scrub_ros "${AMENT_PREFIX_PATH:-}"
}

# Prints the ':'-separated list $1 without the entries that lie in one of the ':'-separated folders $2, without empty
# entries and without repetitions.
without() {
    local entry folder kept=
    local - IFS=:
    set -f
    for entry in $1; do
        [[ -n $entry && ":$kept:" != *":$entry:"* ]] || continue
        for folder in $2; do
            [[ $entry/ == "$folder"/* ]] && continue 2
        done
        kept+="${kept:+:}$entry"
    done
    printf '%s' "$kept"
}

# Takes a sourced ROS (the ':'-separated prefixes $1) out of this process's environment.
scrub_ros() {
    local name
    for name in PYTHONPATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PATH PKG_CONFIG_PATH; do
        [[ -z ${!name:-} ]] || printf -v "$name" '%s' "$(without "${!name}" "$1")"
    done
    unset AMENT_PREFIX_PATH AMENT_CURRENT_PREFIX COLCON_PREFIX_PATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION \
        ROS_ETC_DIR RMW_IMPLEMENTATION
}

# Sets this process's environment to the project's, and ENVIRONMENT to the names that it set.
#   use_environment base|workspace     base: what the build itself needs; workspace: with the built workspace
use_environment() {
    local scope=$1 own="$ROOT" site package python_path='' libraries='' prefixes=''
    ENVIRONMENT=()
    site=("$VENV"/lib/python3.*/site-packages)
    if [[ $scope == workspace ]]; then
        # As colcon's own set-up files do for --symlink-install: each package is found through its build folder,
        # which holds a link to the sources and the metadata of its entry points.
        for package in "$WORKSPACE"/build/*/setup.py; do
            [[ -e $package ]] && python_path+="${package%/setup.py}:"
        done
        python_path+="$INSTALL/lib/${site[0]#"$VENV/lib/"}:"
        libraries+="$INSTALL/lib:"
        prefixes+="$INSTALL:"
    fi
    set_variable PATH "$VENV/bin:$(without "$PATH" "$own")"
    set_variable VIRTUAL_ENV "$VENV"
    if [[ $ROS_MODE == wheels ]]; then
        local folder
        libraries+="$VENV/lib"
        for folder in "${site[0]}"/ros_*.libs; do
            [[ -d $folder ]] && libraries+=":$folder"
        done
        set_variable AMENT_PREFIX_PATH "$prefixes$VENV"
        set_variable CMAKE_PREFIX_PATH "$prefixes$VENV"
        set_variable LD_LIBRARY_PATH "$(joined "$libraries" "$(without "${LD_LIBRARY_PATH:-}" "$own")")"
        set_variable ROS_DISTRO kilted
        set_variable ROS_VERSION 2
        set_variable ROS_PYTHON_VERSION 3
        set_variable RMW_IMPLEMENTATION rmw_fastrtps_cpp
        set_variable _ROS_WHEELS_BOOTSTRAP_COMPLETE 1 # else every start of python starts itself twice
    else
        set_variable AMENT_PREFIX_PATH "$prefixes$(without "$AMENT_PREFIX_PATH" "$own")"
        set_variable CMAKE_PREFIX_PATH "$(joined "${prefixes%:}" "$(without "${CMAKE_PREFIX_PATH:-}" "$own")")"
        set_variable LD_LIBRARY_PATH "$(joined "${libraries%:}" "$(without "${LD_LIBRARY_PATH:-}" "$own")")"
        # The distribution's launch_pytest breaks pytest 9; the plugins that are wanted are named in pyproject.toml.
        set_variable PYTEST_DISABLE_PLUGIN_AUTOLOAD 1
    fi
    set_variable PYTHONPATH "$(joined "${python_path%:}" "$(without "${PYTHONPATH:-}" "$own")")"
    # The user's own choice of these is kept.
    set_variable FASTDDS_BUILTIN_TRANSPORTS "${FASTDDS_BUILTIN_TRANSPORTS:-UDPv4}" # counts where discovery goes beyond this machine
    set_variable ROS_AUTOMATIC_DISCOVERY_RANGE "${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
    set_variable OMP_NUM_THREADS "${OMP_NUM_THREADS:-1}" # more threads only disturb networks and loops this small
}

# Prints its arguments joined by ':', without the empty ones.
joined() {
    local part text=
    for part in "$@"; do
        [[ -z $part ]] || text+="${text:+:}$part"
    done
    printf '%s' "$text"
}

set_variable() {
    export "$1=$2"
    ENVIRONMENT+=("$1")
}
