# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_completion() {
    cat <<'END_OF_HELP'
source <(./qgf completion bash)      # in ~/.bashrc, with the path of your checkout
source <(./qgf completion zsh)       # in ~/.zshrc

Prints a script that completes ./qgf: commands, options, choices, robots, tasks, benchmarks, nodes. It is made from the
commands' own help (docs/reference/commands.md), starts nothing while you type, and needs no set-up.
END_OF_HELP
}

command_completion() {
    case ${1:-} in
        bash | zsh) ;;
        *) die "completion needs bash or zsh; ./qgf completion --help" ;;
    esac
    if [[ $1 == zsh ]]; then printf 'autoload -U +X bashcompinit && bashcompinit\n'; fi
    printf '_qgf_table() {\n    cat <<'\''END'\''\n'
    completion_table
    printf 'END\n}\n'
    cat "$ROOT/scripts/completion.bash"
}

# Lines of: command, option, choices (space-separated, may be empty), by tabs. A positional argument's choices have "-" for
# the option.
completion_table() {
    awk '
        /^## / { command = $2; text = "" ; print command "\t\t" }
        /^```/ { next }
        command != "" {
            line = $0
            # An option with its choices: --algo {td3,sac}
            while (match(line, /--?[a-z][a-z-]*( \{[^}]*\})?/)) {
                found = substr(line, RSTART, RLENGTH)
                before = RSTART > 1 ? substr(line, RSTART - 1, 1) : " "
                line = substr(line, RSTART + RLENGTH)
                if (before !~ /[ \[(|,]/ || found !~ /^--/) continue
                choices = ""
                if (index(found, "{")) {
                    choices = substr(found, index(found, "{") + 1); sub(/}.*/, "", choices); gsub(",", " ", choices)
                    found = substr(found, 1, index(found, " ") - 1)
                }
                key = command "\t" found
                if (!(key in seen) || (choices != "" && seen[key] == "")) seen[key] = choices
            }
        }
        END { for (key in seen) print key "\t" seen[key] }
    ' "$ROOT/docs/reference/commands.md" | LC_ALL=C sort -u
}
