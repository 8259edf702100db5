"""`queuectl completion`: the scripts that have a shell ask queuectl what can follow.

They set a variable in which `queuectl` finds that it is asked; see `call` in `app`. What is said on
standard error would stand in the middle of the line that is typed, so they drop it.
"""

from __future__ import annotations

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session

_BASH = r"""# What TAB offers behind queuectl: eval "$(queuectl completion bash)"
_queuectl() {
    local IFS=$'\n' word words=() prefix= kind value
    for word in "${COMP_WORDS[@]:0:COMP_CWORD + 1}"; do
        # Of --state=x bash makes three words.
        [[ $word == = ]] || words+=("$word")
    done
    if [[ $word == = ]]; then
        words+=("")
    elif [[ -z $2 ]]; then
        # In front of another word, bash takes that for the one that is typed.
        words[${#words[@]} - 1]=
    fi
    # It does not if it was told to let = alone.
    [[ $word != --*=* ]] || prefix=${word%%=*}=
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$prefix$value") ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        _QUEUECTL_COMPLETE=bash_complete "$1" 2>/dev/null)
}
# The order is that of queuectl, where bash is new enough to keep it.
complete -o nosort -F _queuectl queuectl 2>/dev/null || complete -F _queuectl queuectl
"""

_ZSH = r"""#compdef queuectl
# What TAB offers behind queuectl: a file _queuectl in a folder of $fpath, or, behind compinit,
# eval "$(queuectl completion zsh)"
_queuectl() {
    local kind value help
    local -a plain described
    # Only the value of --state=x is completed.
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    while read -r kind && read -r value && read -r help; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files ;;
            plain) [[ $help == _ ]] && plain+=("$value") || described+=("$value:$help") ;;
        esac
    done < <(COMP_WORDS="${(j: :)words[1,CURRENT]}" COMP_CWORD=$((CURRENT - 1)) \
        _QUEUECTL_COMPLETE=zsh_complete ${(Q)words[1]} 2>/dev/null)
    (( $#plain )) && compadd -V queuectl -a plain
    (( $#described )) && _describe -V queuectl described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _queuectl "$@"
else
    compdef _queuectl queuectl
fi
"""

_FISH = r"""# What TAB offers behind queuectl: a file queuectl.fish in ~/.config/fish/completions
function __queuectl_complete
    set -l token (commandline -ct)
    set -l program (commandline -opc)[1]
    # Only the value of --state=x is completed.
    set -l prefix (string match -r -- '^--[^=]*=' $token)
    set -l words (commandline -cp | string collect)
    set -l offered
    for line in (env _QUEUECTL_COMPLETE=fish_complete COMP_WORDS="$words" COMP_CWORD="$token" \
            $program 2>/dev/null)
        set -l found (string split -m 1 , -- $line)
        switch $found[1]
            case dir
                set -a offered (__fish_complete_directories $found[2])
            case file
                set -a offered (__fish_complete_path $found[2])
            case plain
                set -a offered $found[2]
        end
    end
    for one in $offered
        echo -- "$prefix$one"
    end
end
complete --command queuectl --no-files --keep-order --arguments '(__queuectl_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command(cls=Command, short_help="Print what makes TAB complete commands, options and ids.")
@click.argument("shell", type=click.Choice(list(_SCRIPTS)), metavar="bash|zsh|fish")
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print a script for your shell, so that TAB completes what follows queuectl.

    It completes commands, options, ids of jobs, states, settings and queues. For
    bash, put the first line below into ~/.bashrc. For zsh, have the second one
    write into a folder of your fpath; for fish, the third one into
    ~/.config/fish/completions. Then open a new terminal.

    Example:
      eval "$(queuectl completion bash)"
      queuectl completion zsh > _queuectl
      queuectl completion fish > queuectl.fish
    """
    if session.json:
        raise click.UsageError("completion has no JSON form")
    output.write(_SCRIPTS[shell])
