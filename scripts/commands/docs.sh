# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_docs() {
    cat <<'END_OF_HELP'
./qgf docs [--update [PAGE...]]

Builds the documentation into site/, where any dead link or missing page is an error.
  --update     first writes docs/reference/*.md anew: commands, settings, messages from the code, nodes from running ones
END_OF_HELP
}

command_docs() {
    prepare "$@"
    if [[ ${REST[0]:-} == --update ]]; then
        claim_domain
        "$VENV/bin/python" "$ROOT/scripts/reference.py" "${REST[@]:1}"
    elif ((${#REST[@]} > 0)); then
        die "docs does not know '${REST[0]}'; ./qgf docs --help"
    fi
    cd "$ROOT" || exit
    "$VENV/bin/python" -m mkdocs build --strict --clean # with --quiet it counts no warnings
    say "built: site/index.html"
}
