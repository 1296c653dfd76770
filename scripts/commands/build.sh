# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_build() {
    cat <<'END'
./qgf build

Builds the workspace, also where nothing seems to have changed. Python sources need no build: they are linked to.
END
}

command_build() {
    take_setup_options "$@"
    ((${#REST[@]} == 0)) || die "build does not know '${REST[0]}'; ./qgf build --help"
    rm -f "$WORKSPACE_STAMP"
    ensure_setup
}
