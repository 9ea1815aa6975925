"""Settings from a file, the environment and the command line, checked."""

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import msgspec

from doorward.config.check import check
from doorward.config.folders import default_data_dir, expanded
from doorward.config.settings import VARIABLE_PREFIX, ConfigError, Leaf, Settings, leaves

FILE_NAME = "doorward.toml"


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Read the settings from the file, the environment and the command line, and check them.

    Args:
        file: a settings file that must exist; None for the one in the data directory, if it is there.
        environ: the environment, the process's own by default.
        flags: what the command line said, by path (``"data_dir"``, ``"log.level"``); None values are left out.

    Raises:
        ConfigError: with the place and the cure.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    data_dir = Path(str(given.get("data_dir") or default_data_dir(environ, root=os.geteuid() == 0)))
    data_dir = expanded(data_dir).absolute()
    values: dict[tuple[str, ...], object] = {("data_dir",): data_dir}
    places: dict[tuple[str, ...], str] = {}
    found = file or (data_dir / FILE_NAME if (data_dir / FILE_NAME).exists() else None)
    if found is not None:
        _take_file(found, values, places)
        if file is None and values["data_dir",] != data_dir:
            raise ConfigError(
                f"{FILE_NAME} was found in {data_dir} but says that the data directory is another",
                cure="Remove data_dir from it, or name the file with --config.",
                place=places["data_dir",],
            )
    _take_environment(environ, values, places)
    for leaf in leaves():
        if leaf.name in given:
            places[leaf.path] = "--" + leaf.name.replace("_", "-").replace(".", "-")
            values[leaf.path] = _absolute(leaf, given[leaf.name], Path.cwd())
    settings = _convert(values, places)
    check(settings, places)
    return settings


def encode(settings: Settings) -> bytes:
    """The settings for another process of ours; they may hold the database's password."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode(content: bytes) -> Settings:
    """What ``encode`` made."""
    return msgspec.json.decode(content, type=Settings, dec_hook=_from_text)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings of a table but are none, for a warning: most likely slips of the pen."""
    known = {leaf.variable for leaf in leaves()}
    tables = tuple({f"{VARIABLE_PREFIX}{leaf.path[0].upper()}_" for leaf in leaves() if len(leaf.path) > 1})
    return sorted(name for name in environ if name.startswith(tables) and name not in known)


def _take_file(file: Path, values: dict[tuple[str, ...], object], places: dict[tuple[str, ...], str]) -> None:
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"the settings file cannot be read: {error.strerror}", cure="Check --config.", place=str(file)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            "the settings file is not UTF-8", cure="Save it as UTF-8.", place=str(file)
        ) from None
    except RecursionError:
        raise ConfigError(
            "the settings file is nested too deeply to be one", cure="Write it anew.", place=str(file)
        ) from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        raise ConfigError(
            f"not TOML: {str(error).split(' (at ')[0]}",
            cure="Text stands in quotes, a table starts with [NAME].",
            place=f"{file}:{at[1]}:{at[2]}" if at else str(file),
        ) from None
    known = {leaf.path: leaf for leaf in leaves()}
    tables = {path[:depth] for path in known for depth in range(1, len(path))}

    def walk(table: dict[str, Any], path: tuple[str, ...]) -> None:
        for key, value in table.items():
            here = (*path, key)
            place = f"{file}:{_line_of(text, here)}".removesuffix(":0")
            if here in tables and isinstance(value, dict):
                walk(value, here)
            elif here in known:
                places[here] = place
                values[here] = _absolute(known[here], value, file.absolute().parent)
            else:
                _refuse_unknown(here, tables, known, place)

    walk(document, ())


def _refuse_unknown(
    here: tuple[str, ...], tables: set[tuple[str, ...]], known: Mapping[tuple[str, ...], Leaf], place: str
) -> typing.NoReturn:
    name = ".".join(here)
    if here in tables:
        raise ConfigError(
            f"{name} is a table of settings, not a setting",
            cure=f"Write [{name}] on a line of its own.",
            place=place,
        )
    close = difflib.get_close_matches(name, [leaf.name for leaf in known.values()], n=1)
    cure = (
        f"Did you mean {close[0]}?" if close else "Remove it; docs/reference/settings.md lists every setting."
    )
    raise ConfigError(f"there is no setting called {name}", cure=cure, place=place)


def _line_of(text: str, path: tuple[str, ...]) -> int:
    """The line that sets ``path``, or 0. Good enough to point with: it does not follow strings over several lines."""
    table: tuple[str, ...] = ()
    best = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\]]+)\]", line):
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            here = table
        elif pair := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            here = (*table, *(part.strip("\"'") for part in pair[1].split(".")))
        else:
            continue
        if here == path:
            return number
        if here and path[: len(here)] == here:
            best = number
    return best


def _take_environment(
    environ: Mapping[str, str], values: dict[tuple[str, ...], object], places: dict[tuple[str, ...], str]
) -> None:
    for leaf in leaves():
        text = environ.get(leaf.variable, "")
        if not text:
            continue
        value: object = text
        if typing.get_origin(leaf.type) is tuple:
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif leaf.type is bool and text in {"true", "false"}:
            value = text == "true"
        elif leaf.type is int and text.isascii() and text.isdigit() and len(text) < 19:
            value = int(text)
        places[leaf.path] = f"${leaf.variable}"
        values[leaf.path] = _absolute(leaf, value, Path.cwd())


def _absolute(leaf: Leaf, value: object, base: Path) -> object:
    """``value`` with relative paths made absolute, as seen from ``base``."""

    def path(text: str) -> str:
        return str(base / expanded(Path(text)))

    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value and leaf.type in {Path, Path | None}:
        return path(value)
    if leaf.name == "tailscaled" and isinstance(value, str) and "/" in value:
        return path(value)
    if leaf.name == "relay.maps" and isinstance(value, list):
        return [path(one) if isinstance(one, str) and "://" not in one else one for one in value]
    return value


def _convert(values: Mapping[tuple[str, ...], object], places: Mapping[tuple[str, ...], str]) -> Settings:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        table = tree
        for key in path[:-1]:
            table = table.setdefault(key, {})
        table[path[-1]] = value
    try:
        return msgspec.convert(tree, Settings, dec_hook=_from_text)
    except UnicodeError:
        raise ConfigError(
            "a setting from the environment or the command line is not UTF-8", cure="Write it in UTF-8."
        ) from None
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        name = re.sub(r"(\[\.*\d*\.*\])*`?$", "", where)
        raise ConfigError(
            f"{name}: {reason[:1].lower()}{reason[1:]}",
            cure="Settings and their types are listed in docs/reference/settings.md.",
            place=places.get(tuple(name.split(".")), ""),
        ) from None


def _from_text(kind: Any, value: object) -> object:
    """The types that TOML does not know, from text."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise ValueError(f"Expected text, got `{type(value).__name__}`")  # noqa: TRY004 - msgspec adds the path to a ValueError
    if kind in {IPv4Network, IPv6Network}:
        return kind(value)
    return Path(value)
