# SPDX-License-Identifier: Apache-2.0
# Completes ./qgf; printed by ./qgf completion. _qgf_table, above, lists commands, options and their choices.

# Prints the choices of option $2 of command $1; of the table's commands with $1 empty; of its options with $2 empty.
_qgf_look_up() {
    _qgf_table | awk -F '\t' -v command="$1" -v option="$2" '
        command == "" && $2 == "" { print $1 }
        command != "" && $1 == command && option == "" && $2 != "" { print $2 }
        option != "" && $1 == command && $2 == option { print $3 }'
}

# Prints names of files below folder $1 that end in $2, without the ending.
_qgf_names() { (cd "$1" 2>/dev/null && for file in *"$2"; do [ -e "$file" ] && printf '%s\n' "${file%"$2"}"; done); }

_qgf() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words='' word root
    root=$(dirname "$(readlink -f "$(command -v "${COMP_WORDS[0]/#\~/$HOME}" || echo qgf)")")
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="$(_qgf_look_up '' '') help"
    elif [ "$previous" = --robot ]; then
        words=$(_qgf_names "$root/config/robots" .yaml)
    elif [ "$previous" = --task ] || [ "$previous" = --tasks ]; then
        words=$(_qgf_names "$root/config/tasks" .yaml)
    elif [ "$previous" = --perturb ]; then
        words=$(_qgf_names "$root/config/perturb" .yaml)
    elif [ "$previous" = --config ]; then
        words=$(_qgf_names "$root/config/train" .yaml)
    elif [ "$command" = bench ] && [ "$COMP_CWORD" -eq 2 ]; then
        words=$(_qgf_names "$root/benchmarks" .py)
    elif [ "$command" = help ] && [ "$COMP_CWORD" -eq 2 ]; then
        words=$(_qgf_look_up '' '')
    elif [ "$command" = completion ] && [ "$COMP_CWORD" -eq 2 ]; then
        words='bash zsh'
    elif [ "$command" = robot ] && [ "$COMP_CWORD" -eq 2 ]; then
        words='import check'
    elif [ "$command" = run ] && [ "$COMP_CWORD" -eq 2 ]; then
        words=$(_qgf_names "$root/ros2_ws/install/lib" '' | grep '^qgf_\|^rqt_qgf')
    elif [ "$command" = run ] && [ "$COMP_CWORD" -eq 3 ]; then
        words=$(_qgf_names "$root/ros2_ws/install/lib/$previous" '')
    else
        words=$(_qgf_look_up "$command" "$previous")
        case $current in
            -*) words="$(_qgf_look_up "$command" '') --help" ;;
        esac
    fi
    # What is left without a word here is a file's name, which the shell completes itself (-o default).
    for word in $words; do
        case $word in "$current"*) COMPREPLY+=("$word") ;; esac
    done
}

complete -o default -F _qgf qgf ./qgf
