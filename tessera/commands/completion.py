"""`tessera completion bash|zsh|fish`: what a shell needs to complete commands, their options and files.

Commands stand in the script. A command's options are asked of its own --help when they are wanted first, and kept for
the shell's life: so what shells read at their start takes no time. Knows nothing of the commands.
"""

import argparse
from collections.abc import Mapping

_BASH = """\
# tessera completion bash: eval "$(tessera completion bash)"
declare -gA _tessera_options
_tessera() {
    local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "NAMES --help --version" -- "$word"))
    elif [ "$command" = completion ]; then
        COMPREPLY=($(compgen -W "bash zsh fish" -- "$word"))
    elif [[ "$word" == -* ]]; then
        if [ -z "${_tessera_options[$command]+known}" ]; then
            _tessera_options[$command]="$(ASK)"
        fi
        COMPREPLY=($(compgen -W "${_tessera_options[$command]}" -- "$word"))
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -F _tessera tessera
"""

_ZSH = """\
#compdef tessera
# tessera completion zsh: eval "$(tessera completion zsh)", after compinit
typeset -gA _tessera_options
_tessera() {
    local command="${words[2]}"
    local -a commands options
    commands=(
DESCRIBED
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        compadd -- --help --version
    elif [[ "$command" == completion ]]; then
        compadd -- bash zsh fish
    elif [[ "${words[CURRENT]}" == -* ]]; then
        if (( ! ${+_tessera_options[$command]} )); then
            _tessera_options[$command]="$(ASK)"
        fi
        options=(${=_tessera_options[$command]})
        compadd -- $options
    else
        _files
    fi
}
if (( $+functions[compdef] )); then compdef _tessera tessera; fi
"""

_FISH = """\
# tessera completion fish: tessera completion fish | source
function __tessera_options
    set -l words (commandline -opc)
    set -q words[2]; or return
    set -l kept __tessera_options_(string replace -a -- - _ $words[2])
    if not set -q $kept
        set -l command $words[2]
        set -g $kept (ASK)
    end
    string split ' ' -- $$kept
end
complete -c tessera -e
complete -c tessera -n 'test (count (commandline -opc)) -eq 1' -f
DESCRIBED
complete -c tessera -n 'test (count (commandline -opc)) -eq 1' -l help -l version
complete -c tessera -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'
complete -c tessera -n 'test (count (commandline -opc)) -ge 2; and string match -q -- "-*" (commandline -ct)' \\
    -f -a '(__tessera_options)'
"""

# What a command's --help says, wide enough that nothing is cut off.
_ASK = (
    "env COLUMNS=250 NO_COLOR=1 TERM=dumb tessera $command --help 2>/dev/null"
    " | grep -oE -- '--[a-z][a-z0-9_-]+' | sort -u | tr '\\n' ' '"
)
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def main() -> None:
    """The command."""
    from tessera.cli import COMMANDS

    parser = argparse.ArgumentParser(
        prog="tessera completion",
        description="What a shell needs to complete commands, their options and files.",
        epilog="$ echo 'eval \"$(tessera completion bash)\"' >> ~/.bashrc",
    )
    parser.add_argument("shell", choices=SHELLS)
    print(script(parser.parse_args().shell, {name: command.line for name, command in COMMANDS.items()}), end="")


def script(shell: str, commands: Mapping[str, str]) -> str:
    """The script of a shell for these commands and the lines that describe them."""
    if shell == "zsh":
        told = [f"        {_single(f'{name}:{line}')}" for name, line in commands.items()]
    else:
        first = "complete -c tessera -n 'test (count (commandline -opc)) -eq 1' -a"
        told = [f"{first} {name} -d {_single(line)}" for name, line in commands.items()]
    filled = {"NAMES": " ".join(commands), "DESCRIBED": "\n".join(told), "ASK": _ASK}
    text = SHELLS[shell]
    for word, value in filled.items():
        text = text.replace(word, value)
    return text


def _single(text: str) -> str:
    return "'" + text.replace("'", "’") + "'"
