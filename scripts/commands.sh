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

  ./qgf train  --robot panda --task reach --algo td3 --steps 60000 --seed 0 --out runs/mine
  ./qgf evaluate runs/mine/bundle.pt --episodes 20 --json
  ./qgf preflight runs/mine/bundle.pt     checks a bundle and the live arm; commands nothing
  ./qgf run qgf_policy policy_node --ros-args -p bundle:=runs/mine/bundle.pt -p autostart:=true
  ./qgf geometry runs/mine --plot field.png
  ./qgf compare --tasks reach --methods td3-plain td3 --seeds 3 --out runs/grid
  ./qgf bench NAME              a benchmark of benchmarks/

  ./qgf setup                   makes or updates the environment: .venv and the built workspace
  ./qgf build                   builds the workspace again after a change of messages or package files
  eval "$(./qgf env)"           enters the environment in this shell: python, ROS libraries, workspace
  ./qgf doctor                  looks for what may be wrong on this machine, with remedies
  ./qgf help COMMAND            more on one command (also ./qgf COMMAND --help)

Every command sets up what is missing. A sourced ROS 2 Jazzy or Kilted is used; otherwise ROS comes as Python wheels.
END
}

help_on() {
    case $1 in
        setup) cat <<'END' ;;
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
        build) cat <<'END' ;;
./qgf build

Builds the workspace, also where nothing seems to have changed. Python sources need no build: they are linked to.
END
        env) cat <<'END' ;;
eval "$(./qgf env)"

Prints the exports that enter the project's environment: python, the ROS libraries, the workspace. Your own ROS_DOMAIN_ID,
ROS_AUTOMATIC_DISCOVERY_RANGE, FASTDDS_BUILTIN_TRANSPORTS and OMP_NUM_THREADS are kept where they are set.
END
        run) cat <<'END' ;;
./qgf run PACKAGE EXECUTABLE [ARGUMENT...] [--ros-args ...]

Runs a node, as `ros2 run` does, also where there is no ros2. Without arguments it lists what can be run.
  ./qgf run qgf_sim sim_node --ros-args -p robot:=panda
  ./qgf run qgf_sim sim_node --ros-args -p robot:=ur5e -p command_interface:=joint_trajectory -p perturb:=harsh
Its faults are switched while it runs, here from the start: -p fault.delay_s:=0.05 -p fault.dropout:=0.1
END
        train) cat <<'END'
./qgf train --robot panda --task reach --algo td3|td3-plain|sac|sac-plain --steps N --seed S --out DIR

Trains a policy and exports it as DIR/bundle.pt, with curves and checkpoints beside it. --task also takes the id of a
Gymnasium task with Box spaces (its policy is DIR/policy.safetensors); --rival trains a policy-side method to compare with.

END
            parser_help qgf_trainer.cli train ;;
        evaluate) cat <<'END'
./qgf evaluate BUNDLE --episodes N --json

Runs a bundle in simulation on fixed goals, or a Gymnasium task's policy.safetensors on fixed seeds, and prints success,
return and every smoothness metric.

END
            parser_help qgf_trainer.cli evaluate ;;
        preflight) cat <<'END'
./qgf preflight BUNDLE [--robot NAME] [--seconds S] [--json]

Checks a bundle, and listens to the live arm, before a policy may move it: a checklist with remedies.

END
            parser_help qgf_policy.preflight_node ;;
        geometry) cat <<'END'
./qgf geometry FOLDER_OR_CHECKPOINT... --plot FILE --json

Measures the critics of reach runs, exactly: how fast the action gradient turns with the state and how sharp the optimum
is. With --plot it draws the field of all runs over the plane in which the first one turns most.

END
            parser_help qgf_trainer.geometry_cli ;;
        compare) cat <<'END'
./qgf compare --tasks [ROBOT:]TASK... --methods NAME... --seeds N --out DIR

Trains every method on every task with every seed in processes side by side, and compares them: tables and plots with
interquartile means and bootstrap intervals. The same command goes on where it was interrupted.

END
            parser_help qgf_trainer.comparison_cli ;;
        demo) cat <<'END'
./qgf demo [--steps N] [--robot NAME] [--seed S] [--keep-running] [--gui]

Trains a plain and a stabilised policy, runs both through the ROS nodes on a simulated arm, measures, and draws
runs/demo-*/report.html. At most 8 minutes on two cores with the set-up, 5 without.

END
            parser_help qgf_demo.cli ;;
        bench) cat <<'END'
./qgf bench NAME [ARGUMENT...]

Runs benchmarks/NAME.py.
END
            list_benchmarks ;;
        test) cat <<'END' ;;
./qgf test [--slow] [PYTEST ARGUMENT...]

Sets up, checks style (ruff) and types (mypy), and runs the fast tests, in a ROS domain of their own.
  --slow     the slow tests instead (full trainings over three seeds: hours)
  ./qgf test -k limiter -x      further arguments go to pytest
END
        doctor) cat <<'END' ;;
./qgf doctor

Looks for what may be wrong on this machine: versions, torch, rclpy, DDS discovery between two processes, disk, real-time
rights. One line each with ok, warn or fail, and the remedy. Exits with 1 if a line says fail.
END
        *) die "unknown command '$1'; ./qgf help lists them all" ;;
    esac
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

command_setup() {
    take_setup_options "$@"
    ((${#REST[@]} == 0)) || die "setup does not know '${REST[0]}'; ./qgf setup --help"
    ensure_setup
    say "ready; next: ./qgf demo, or enter the environment: eval \"\$(./qgf env)\""
}

command_build() {
    take_setup_options "$@"
    ((${#REST[@]} == 0)) || die "build does not know '${REST[0]}'; ./qgf build --help"
    rm -f "$WORKSPACE_STAMP"
    ensure_setup
}

command_env() {
    (($# == 0)) || die "env does not know '$1'; ./qgf env --help"
    prepare
    local name
    for name in "${ENVIRONMENT[@]}"; do printf 'export %s=%q\n' "$name" "${!name}"; done
    # A ROS that was scrubbed from this process is to leave the caller's shell too.
    for name in AMENT_CURRENT_PREFIX COLCON_PREFIX_PATH; do
        [[ -v $name ]] || printf 'unset %s\n' "$name"
    done
}

command_run() {
    local executable
    prepare
    if (($# < 2)); then
        printf 'usage: ./qgf run PACKAGE EXECUTABLE [ARGUMENT...]; there are:\n' >&2
        for executable in "$INSTALL"/lib/qgf_*/*; do
            [[ ! -x $executable ]] || printf '  %s %s\n' "$(basename "${executable%/*}")" "${executable##*/}" >&2
        done
        exit 2
    fi
    executable="$INSTALL/lib/$1/$2"
    [[ -f $executable && -x $executable ]] || die "no executable $2 in package $1; ./qgf run lists what there is"
    shift 2
    exec "$executable" "$@"
}

command_train() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.cli train "${REST[@]}"
}

command_evaluate() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.cli evaluate "${REST[@]}"
}

command_preflight() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_policy.preflight_node "${REST[@]}"
}

command_geometry() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.geometry_cli "${REST[@]}"
}

command_compare() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.comparison_cli "${REST[@]}"
}

command_demo() {
    prepare "$@" # the demo claims a ROS domain by itself, with the locks of domain.sh
    exec "$VENV/bin/python" -m qgf_demo.cli "${REST[@]}"
}

command_bench() {
    prepare "$@"
    ((${#REST[@]} > 0)) || die "bench needs a name: $(list_benchmarks | tr -s ' \n' ' ')"
    local file="$ROOT/benchmarks/${REST[0]}.py"
    [[ ${REST[0]} != */* && -f $file ]] || die "no benchmark '${REST[0]}'; there are: $(list_benchmarks | tr -s ' \n' ' ')"
    claim_domain
    exec "$VENV/bin/python" "$file" "${REST[@]:1}"
}

command_test() {
    prepare "$@"
    claim_domain
    local arguments=() argument failed=() status=0
    for argument in "${REST[@]}"; do
        if [[ $argument == --slow ]]; then arguments+=(-m slow); else arguments+=("$argument"); fi
    done
    cd "$ROOT" || exit
    say "style: ruff check"
    "$VENV/bin/python" -m ruff check . >&2 || failed+=(style)
    say "types: mypy"
    "$VENV/bin/python" -m mypy >&2 || failed+=(types)
    say "tests: pytest, ROS_DOMAIN_ID=$ROS_DOMAIN_ID"
    "$VENV/bin/python" -m pytest "${arguments[@]}" || status=$?
    if ((${#failed[@]} > 0)); then
        say "failed before the tests, see above: ${failed[*]}"
        exit 1
    fi
    exit "$status"
}

command_doctor() {
    (($# == 0)) || die "doctor does not know '$1'; ./qgf doctor --help"
    stamps
    if ! is_current; then
        printf 'fail  %-22s not set up for this state of the checkout: run ./qgf setup\n' environment
        exit 1
    fi
    use_environment workspace
    exec "$VENV/bin/python" "$ROOT/scripts/doctor.py"
}
