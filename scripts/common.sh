# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034  # variables for the other parts
# What every part of ./qgf uses: where things are, how it speaks, how it fails. Sourced by ./qgf, which sets ROOT.

VENV="$ROOT/.venv"
WORKSPACE="$ROOT/ros2_ws"
INSTALL="$WORKSPACE/install"
LOG="$WORKSPACE/log/setup.log"

# Progress goes to stderr: stdout belongs to the command (exports, JSON, help).
say() { printf 'qgf: %s\n' "$*" >&2; }

# A user's error: one line that names what is wrong and the remedy.
die() {
    printf 'qgf: error: %s\n' "$*" >&2
    exit 2
}

# Runs a command with its output in $LOG and one line of progress; on a terminal the line counts the seconds.
#   logged "what it does" EXPECTED_SECONDS command...
logged() {
    local what=$1 expected=$2 begun=$SECONDS child ticker='' status=0
    shift 2
    mkdir -p "${LOG%/*}"
    printf '\n==== %(%F %T)T %s\n' -1 "$*" >>"$LOG"
    set -m # a process group of its own, so that an interruption ends the command with all it has started
    "$@" >>"$LOG" 2>&1 </dev/null &
    child=$!
    set +m
    # shellcheck disable=SC2064  # the ids of now
    trap "end_group $child; exit 130" INT TERM HUP
    if [[ -t 2 ]]; then
        while kill -0 "$child" 2>/dev/null; do
            printf '\rqgf: %s: %d s of about %d s ' "$what" $((SECONDS - begun)) "$expected" >&2
            sleep 1
        done &
        ticker=$!
    else
        say "$what (about $expected s)"
    fi
    wait "$child" || status=$?
    trap - INT TERM HUP
    if [[ -n $ticker ]]; then
        kill "$ticker" 2>/dev/null || :
        wait "$ticker" 2>/dev/null || :
        printf '\r\033[K' >&2
    fi
    if ((status == 0)); then
        say "$what: done in $((SECONDS - begun)) s"
    fi
    return "$status"
}

# Ends the process group $1: asks, and after three seconds insists.
end_group() {
    trap '' INT TERM HUP
    printf '\n' >&2
    say "interrupted; ending what is running (./qgf setup goes on from here)"
    kill -INT -- "-$1" 2>/dev/null || :
    for _ in {1..30}; do
        kill -0 -- "-$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$1" 2>/dev/null || :
}

# A failure that nobody foresaw: the end of the log stands above the line.
die_with_log() {
    printf 'qgf: the last lines of %s:\n' "$LOG" >&2
    last_log | tail -n 20 | cut -c 1-300 | sed 's/^/    /' >&2
    die "$*"
}

# Prints what the last command that `logged` ran has written.
last_log() { awk '/^==== / { text = "" } { text = text $0 "\n" } END { printf "%s", text }' "$LOG"; }

# True where that command failed for want of a network.
log_shows_no_network() {
    last_log | grep -E >/dev/null \
        'NewConnectionError|Failed to establish a new connection|NameResolutionError|Temporary failure in name resolution|Temporary failure resolving|Network is unreachable|ConnectTimeoutError|Could not connect to|Could not resolve'
}
