# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_bench() {
    cat <<'END'
./qgf bench NAME [ARGUMENT...]

Runs benchmarks/NAME.py.
END
    list_benchmarks
}

command_bench() {
    prepare "$@"
    ((${#REST[@]} > 0)) || die "bench needs a name: $(list_benchmarks | tr -s ' \n' ' ')"
    local file="$ROOT/benchmarks/${REST[0]}.py"
    [[ ${REST[0]} != */* && -f $file ]] || die "no benchmark '${REST[0]}'; there are: $(list_benchmarks | tr -s ' \n' ' ')"
    claim_domain
    exec "$VENV/bin/python" "$file" "${REST[@]:1}"
}
