"""``doorward completion``."""

from typing import Annotated, Literal

from cyclopts import Parameter

from doorward.cli import output


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL")], /) -> None:
    """Print the completion script of a shell.

    Example for bash: `doorward completion bash > ~/.local/share/bash-completion/completions/doorward`

    Example for zsh: `doorward completion zsh > ~/.zsh/completions/_doorward`, with that folder in `fpath`

    Example for fish: `doorward completion fish > ~/.config/fish/completions/doorward.fish`

    Args:
        shell: Which one.
    """
    from doorward.cli.app import program  # noqa: PLC0415 - it loads this module

    output.raw(program().generate_completion(shell=shell))
