"""Runs the scripts of the command line: what is typed, and exactly what must come back.

::

    # a comment
    $ doorward users create ann          a command; what follows is what it prints
    Created ann with the role member.
    ! doorward: ...                      a line on stderr, after those on stdout
    ? 1                                  the exit code, where it is not 0
    $ KEY=$(doorward keys create --user ann)       stdout is kept, and put in where $KEY stands later
    $ cat > policy.hujson <<END          a file in the working folder, until the line END
    % join 1 laptop $KEY                 a word to the test itself: something happens in the tailnet

``[...]`` in an expected line stands for any text. An empty line before the next command is not expected output.
"""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from doorward.cli.app import run
from doorward.telemetry import configure


@dataclass
class Step:
    """One command of a script, and what is expected of it."""

    number: int
    kind: str  # "$" or "%"
    text: str
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    code: int = 0
    stdin: str = ""


def parse(text: str) -> Iterator[Step]:
    """The steps of a script. Raises ValueError for a line that belongs to none."""
    step: Step | None = None
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.startswith(("$ ", "% ")):
            if step is not None:
                yield _trimmed(step)
            step = Step(number, line[0], line[2:])
            if match := re.search(r" <<(\w+)$", line):
                step.text = step.text[: -len(match[0])]
                for _, each in lines:
                    if each == match[1]:
                        break
                    step.stdin += each + "\n"
        elif line.startswith("#"):
            continue
        elif step is None:
            if line.strip():
                raise ValueError(f"line {number} belongs to no command")
        elif line.startswith("! "):
            step.err.append(line[2:])
        elif line.startswith("? "):
            step.code = int(line[2:])
        else:
            step.out.append(line)
    if step is not None:
        yield _trimmed(step)


def _trimmed(step: Step) -> Step:
    while step.out and not step.out[-1].strip():
        step.out.pop()
    return step


def matches(expected: list[str], got: list[str]) -> bool:
    """True when the lines are those, ``[...]`` standing for anything."""
    return len(expected) == len(got) and all(
        re.fullmatch(".*".join(map(re.escape, want.split("[...]"))), line)
        for want, line in zip(expected, got, strict=True)
    )


def run_captured(arguments: list[str], stdin: str = "") -> tuple[int, list[str], list[str]]:
    """Run one command line in this process; exit code and the lines of stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(_stdin(stdin))
        code = run(arguments)
    return code, out.getvalue().splitlines(), err.getvalue().splitlines()


@contextlib.contextmanager
def _stdin(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        yield
    finally:
        sys.stdin = before


def _steps(script: Path) -> list[Step]:
    return list(parse(script.read_text(encoding="utf-8")))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


async def play(
    script: Path,
    tell: Callable[[list[str]], Awaitable[None]] | None = None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Run a script; AssertionError at the first step that answers otherwise. Returns the number of steps.

    Args:
        script: the file.
        tell: called with the words of each ``%`` line.
        variables: what is known before the first line.
    """
    # The server of a script runs in this very process: what it logs is no part of what a command says.
    configure(level="error", stream=io.StringIO())
    known = dict(variables or {})
    count = 0
    for step in _steps(script):
        count += 1
        where = f"{script.name}:{step.number}: {step.text}"
        text = re.sub(r"\$([A-Z]+)\b", lambda match: known.get(match[1], match[0]), step.text)
        if step.kind == "%":
            assert tell is not None, where
            await tell(shlex.split(text))
            continue
        if match := re.fullmatch(r"cat > (\S+)", text):
            _write(Path(match[1]), step.stdin)
            continue
        kept = re.fullmatch(r"([A-Z]+)=\$\((.*)\)", text)
        words = shlex.split(kept[2] if kept else text)
        assert words[0] == "doorward", where
        code, out, err = await to_thread.run_sync(run_captured, words[1:], step.stdin)
        if kept:
            known[kept[1]] = "\n".join(out)
            out = []
        assert (code, matches(step.out, out), matches(step.err, err)) == (step.code, True, True), (
            f"{where}\nexit code {code}\n--- stdout\n" + "\n".join(out) + "\n--- stderr\n" + "\n".join(err)
        )
    assert count, f"{script} has no step"
    return count
