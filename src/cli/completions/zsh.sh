#compdef grpo-tui
_grpo_tui() {
    local -a found begun whole
    local line
    found=("${(@f)$(GRPO_TUI_COMPLETE=zsh _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((CURRENT - 1)) grpo-tui -- "${words[@]}" 2>/dev/null)}")
    [[ -n $found ]] || return 1
    for line in $found; do
        # No space after a key or a folder.
        if [[ ${line%%:*} == *[=/@] ]]; then begun+=("$line"); else whole+=("$line"); fi
    done
    [[ -z $begun ]] || _describe -V 'begun values' begun -S ''
    [[ -z $whole ]] || _describe -V 'values' whole
}
# The first time, zsh calls the file in which it found the function.
if [[ ${funcstack[1]} == _grpo-tui ]]; then _grpo_tui "$@"; else compdef _grpo_tui grpo-tui; fi
