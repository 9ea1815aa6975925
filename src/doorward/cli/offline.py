"""``doorward policy compile`` where no server runs: policies and topologies from files."""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from doorward.api import policy_types as types
from doorward.api.types import Diagnostic
from doorward.cli import output
from doorward.errors import BadInput

if TYPE_CHECKING:
    from doorward.tailnet.offline import OfflineAnswer

_T = TypeVar("_T")

_LINE_LIMIT = 64 * 1024 * 1024  # bytes of one case: a policy of 1 MB and ten thousand nodes are a tenth of it


def print_compiled(draft: types.PolicyDraft, topology: Path, node: str | None, *, summary: bool) -> int:
    """Compile a policy for a topology and print what each node is told; 1 if the policy is refused."""
    from doorward.policy import PolicyError  # noqa: PLC0415 - slow to load, and no other command needs it
    from doorward.tailnet.offline import Topology, compile_offline  # noqa: PLC0415 - the same

    there = _decode(b"".join(_lines(topology)), Topology, str(topology))
    try:
        found = compile_offline(draft.text, there, filename=draft.filename)
    except PolicyError as error:
        faults = (
            Diagnostic(line=one.line, column=one.column, message=one.message, cure=one.cure)
            for one in error.diagnostics
        )
        output.diagnostics(draft.filename, faults)
        return 1
    if node is not None:
        if node not in found:
            raise BadInput(f'the topology has no node "{node}"', cure=f"It has {', '.join(sorted(found))}.")
        found = {node: found[node]}
    if summary:
        _print_summary(found)
    else:
        output.as_json(found)
    return 0


def _print_summary(found: "dict[str, OfflineAnswer]") -> None:
    output.table(
        ("NODE", "FILTER", "SSH", "SEES"),
        (
            (
                name,
                _count(len(answer.packet_filter_rules)),
                _count(len(answer.ssh_rules)),
                " ".join(sorted(answer.netmap.peers)) or "nobody",
            )
            for name, answer in found.items()
        ),
        empty="The topology has no node.",
    )


def _count(number: int) -> str:
    return f"{number} rule{'' if number == 1 else 's'}"


def print_cases(path: Path) -> None:
    """Compile many cases and print a line of JSON for each, in their order."""
    from doorward.tailnet.offline import Case, outcome  # noqa: PLC0415 - slow to load, and no other command needs it

    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            found = outcome(_decode(line, Case, f"{path}:{number}"))
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(_LINE_LIMIT):
                if len(line) == _LINE_LIMIT:
                    raise BadInput(
                        f"a line of {path} has more than {_LINE_LIMIT} bytes", cure="Split the case."
                    )
                yield line
    except (OSError, EOFError) as error:
        raise BadInput(
            f"{path} cannot be read: {error}", cure="Check the name and the permissions."
        ) from error


def _decode(data: bytes, kind: type[_T], place: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec and UTF-8 say the first, depth the second
        raise BadInput(
            f"{place}: {error}", cure="`doorward policy compile --help` says what it holds."
        ) from error
