# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034  # variables for the other parts
# The subcommands of ./qgf and their help. Sourced by ./qgf last.

command_help() {
    if (($# > 0)); then
        declare -F "command_$1" >/dev/null || die "unknown command '$1'; ./qgf help lists them all"
        help_on "$1"
        return
    fi
    cat <<'END'
QGF: from a robot arm's URDF to a smooth learned policy on the arm, over ROS 2.

  ./qgf demo                    everything: set-up, training, deployment, measurement, report (start here)
  ./qgf test                    set-up, then style, types and the fast test suite

  ./qgf robot import my_arm.urdf --tool tool0    describes an arm: config/robots/*.yaml from its URDF
  ./qgf identify --robot my_arm  moves the arm a little and measures its delay, lag, friction and noise
  ./qgf train  --robot panda --task reach --algo td3 --steps 60000 --seed 0 --out runs/mine
  ./qgf evaluate runs/mine/bundle.pt --episodes 20 --json
  ./qgf preflight runs/mine/bundle.pt     checks a bundle and the live arm; commands nothing
  ./qgf sign runs/mine/bundle.pt --key keys/lab.key    so that a robot knows who made it (keys: ./qgf keygen)
  ./qgf verify runs/mine/bundle.pt --trusted-keys keys
  ./qgf dashboard               a window on a running policy: smoothness, spectra, timing, emergency stop
  ./qgf run qgf_policy policy_node --ros-args -p bundle:=runs/mine/bundle.pt -p autostart:=true -p allow_controller_without_timeout:=true
  ./qgf geometry runs/mine --plot field.png
  ./qgf compare --tasks reach --methods td3-plain td3 --seeds 3 --out runs/grid
  ./qgf analyse BAG --html report.html    how smooth a recorded run was (rosbag2, sqlite3 or mcap)
  ./qgf explain BAG --bundle runs/mine/bundle.pt    whose roughness it is
  ./qgf bench NAME              a benchmark of benchmarks/

  ./qgf setup                   makes or updates the environment: .venv and the built workspace
  ./qgf build                   builds the workspace again after a change of messages or package files
  eval "$(./qgf env)"           enters the environment in this shell: python, ROS libraries, workspace
  ./qgf install-check           proves a robot's set-up (./qgf setup --robot-only) by work, in a clean folder
  ./qgf audit                   pins, licences and known vulnerabilities of the dependencies
  ./qgf keystore DIR            keys and permissions of a secured graph (SROS2), least rights for every node
  ./qgf doctor                  looks for what may be wrong on this machine, with remedies
  ./qgf docs                    builds the documentation: site/index.html
  source <(./qgf completion bash)    completes ./qgf in your shell (or zsh)
  ./qgf help COMMAND            more on one command (also ./qgf COMMAND --help)

Every command sets up what is missing. A sourced ROS 2 Jazzy or Kilted is used; otherwise ROS comes as Python wheels.
END
}

help_on() {
    declare -F "help_$1" >/dev/null || die "unknown command '$1'; ./qgf help lists them all"
    "help_$1"
}

# Prints the options as the command's own parser tells them, where it can be started already.
parser_help() {
    local text
    find_ros 2>/dev/null
    stamps
    is_current || return 0
    use_environment workspace
    if text=$("$VENV/bin/python" -m "$@" --help 2>/dev/null); then printf '%s\n' "$text"; fi
}

list_benchmarks() {
    local file
    for file in "$ROOT"/benchmarks/*.py; do
        [[ ! -e $file ]] || printf '  %s\n' "$(basename "$file" .py)"
    done
}

# Takes the options of the set-up out of the arguments, wherever they stand before "--"; the rest is left in REST.
take_setup_options() {
    REST=()
    while (($# > 0)); do
        case $1 in
            --yes | -y) ASSUME_YES=1 ;;
            --torch-index)
                (($# > 1)) || die "--torch-index needs a URL"
                TORCH_INDEX=$2
                shift
                ;;
            --torch-index=*) TORCH_INDEX=${1#*=} ;;
            --)
                REST+=("$@")
                return
                ;;
            *) REST+=("$1") ;;
        esac
        shift
    done
}

prepare() {
    take_setup_options "$@"
    ensure_setup
    use_environment workspace
}
