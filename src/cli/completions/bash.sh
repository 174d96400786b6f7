_grpo_tui() {
    local rest=$COMP_LINE words=() last=-1 place word begun
    # `=` and `:` end a word of bash, but not an argument.
    for ((place = 0; place <= COMP_CWORD; place++)); do
        if ((place == 0)) || [[ $rest == [[:space:]]* || -z $rest ]]; then
            words[++last]=
        fi
        begun=${words[last]}
        word=${COMP_WORDS[place]}
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
        ((place < COMP_CWORD)) || word=$2
        # A `=` that has just been typed is a word of its own, which goes on with the next letter.
        if ((place == COMP_CWORD)) && [[ ${COMP_WORDS[place]} == [=:] ]]; then
            begun+=${COMP_WORDS[place]} word=${COMP_WORDS[place]}
        fi
        words[last]+=$word
    done
    mapfile -t COMPREPLY < <(GRPO_TUI_COMPLETE=bash _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$last grpo-tui -- "${words[@]}" 2>/dev/null)
    # No space after a key or a folder.
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
    for place in "${!COMPREPLY[@]}"; do
        printf -v "COMPREPLY[$place]" %q "${COMPREPLY[place]#"$begun"}"
    done
}
complete -o bashdefault -o nosort -F _grpo_tui grpo-tui
