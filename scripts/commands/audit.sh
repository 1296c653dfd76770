# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_audit() {
    cat <<'END'
./qgf audit [--offline] [--database URL] [--json]
./qgf audit --licences > docs/licences.md

Audits what the environment is made of: every requirement pinned, installed so and compatible with the rest; every
package's licence known and permitted; no advisory of the OSV database on a version that is installed. Exits with 1 if a
line says fail, also where the database cannot be reached.
  --offline        leave the advisories out
  --database URL   another OSV database's querybatch
  --licences       print the page of licences instead
END
}

command_audit() {
    prepare "$@"
    exec "$VENV/bin/python" "$ROOT/scripts/audit.py" "${REST[@]}"
}
