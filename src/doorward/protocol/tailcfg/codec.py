"""JSON in and out, by the conventions of Go's encoder (protocol note control.md, sections 1 and 29).

Out: raw UTF-8, absent fields left out, keys and addresses as text, times in RFC 3339. Null is never written for a list,
map or string, because our types do not hold None there; some clients' decoders would fail on it.

In: Go matches field names without regard to case, reads null as "no value" for everything, and ignores what it does
not know. Almost every message has the exact names, so it is decoded straight into its type. Only where a name differs
in case, or the straight way fails (a null, say), is the message read as plain JSON first and rewritten after the type.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from doorward.errors import BadInput, LocalProtocolError
from doorward.protocol.keys import PublicKey

T = TypeVar("T")

# More than any honest request: a Hostinfo with every field, a hundred endpoints and routes has some 20 kB. The same
# bound as other servers of this protocol.
REQUEST_LIMIT = 1 << 20

_AS_TEXT = (PublicKey, IPv4Address, IPv6Address, IPv4Network, IPv6Network)

# Every object key in a message, and some strings that only look like one: those cost a second look, nothing else.
_NAMES = re.compile(rb'"([A-Za-z0-9_]+)"\s*:')

# U+0000 written as an escape, the only way JSON has: a backslash that is not itself escaped, then u0000.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_Rewrite = Callable[[Any], Any]


def _to_json(value: Any) -> str:
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise NotImplementedError


def _from_json(wanted: type, value: Any) -> Any:
    if not issubclass(wanted, PublicKey):
        raise NotImplementedError
    if type(value) is not str:
        raise ValueError(f"Expected `str` that starts with {wanted.prefix}")
    try:
        return wanted.parse(value)
    except BadInput as error:
        # msgspec adds the path to a ValueError and to nothing else. The message does not repeat the text.
        raise ValueError(str(error)) from None


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)


def encode(value: Any) -> bytes:
    """Any wire struct, or a list or dict of them, as JSON.

    Raises LocalProtocolError for what JSON cannot hold: that is our mistake and never the peer's.
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise LocalProtocolError(
            f"a {type(value).__name__} cannot be written as JSON", detail=str(error)
        ) from None


def decode_request(data: bytes, wanted: type[T], *, limit: int = REQUEST_LIMIT) -> T:
    """Read one JSON message of at most ``limit`` bytes as the struct ``wanted``, names matched without regard to case.

    Raises BadInput, with the field's path as ``place`` where known, for anything else than one well-formed message with
    the fields that ``wanted`` requires, and for text with a NUL character, which no field may hold and not every
    database stores. Unknown fields are ignored.
    """
    _check_size(data, wanted, limit)
    reader = _reader(wanted)
    if b"\\" in data:
        if _NUL.search(data):
            raise BadInput(f"a {wanted.__name__} holds a NUL character")
        return reader.read_leniently(data)  # a name may be written with escapes
    return reader.read(data) if reader.names_are_exact(data) else reader.read_leniently(data)


def decode_response(data: bytes, wanted: type[T], *, limit: int) -> T:
    """Read what a server wrote: the same rules, but names must be exact, as every server writes them.

    Raises BadInput as ``decode_request`` does.
    """
    _check_size(data, wanted, limit)
    return _reader(wanted).read(data)


def _check_size(data: bytes, wanted: type, limit: int) -> None:
    if len(data) > limit:
        raise BadInput(f"a {wanted.__name__} has at most {limit} bytes, this one has {len(data)}")


class _Reader(Generic[T]):
    """What is needed to read one type; made once, by ``_reader``."""

    def __init__(self, wanted: type[T]) -> None:
        self.wanted = wanted
        self._decoder = msgspec.json.Decoder(wanted, dec_hook=_from_json)
        plan = _Plan()
        self._rewrite = plan.rewrite(inspect.type_info(wanted))
        self._exact, self._folded = plan.names()

    def names_are_exact(self, data: bytes) -> bool:
        """False if some object key of ``data`` could be meant for a field whose name differs from it in case."""
        return all(
            name in self._exact or name.lower() not in self._folded for name in set(_NAMES.findall(data))
        )

    def read(self, data: bytes) -> T:
        """The straight way, and the lenient one where it fails."""
        try:
            return self._decoder.decode(data)
        except (ValueError, RecursionError):
            return self.read_leniently(data)  # a null, perhaps; if it is an error, that way words it

    def read_leniently(self, data: bytes) -> T:
        """The way for names in another case and for null."""
        try:
            tree = msgspec.json.decode(data)
            if self._rewrite is not None:
                tree = self._rewrite(tree)
            return msgspec.convert(tree, self.wanted, str_keys=True, dec_hook=_from_json)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            raise BadInput(f"{self.wanted.__name__}: {message}", place=path.rstrip("`")) from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"this is not the JSON of a {self.wanted.__name__}: {error}") from None


_READERS: dict[type, _Reader[Any]] = {}


def _reader(wanted: type[T]) -> _Reader[T]:
    reader = _READERS.get(wanted)
    if reader is None:
        reader = _READERS[wanted] = _Reader(wanted)
    return reader


class _Plan:
    """Derives from a type how its plain JSON has to be rewritten before a strict conversion."""

    def __init__(self) -> None:
        self._structs: dict[type, _Rewrite] = {}
        self._names: set[str] = set()

    def names(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """The names that can only be meant exactly as they are, and every name in lower case."""
        folded = [name.lower() for name in self._names]
        exact = frozenset(name.encode() for name in self._names if folded.count(name.lower()) == 1)
        return exact, frozenset(name.encode() for name in folded)

    def rewrite(self, kind: inspect.Type) -> _Rewrite | None:
        """A function from plain JSON to plain JSON, or None where there is nothing to rewrite."""
        match kind:
            case inspect.StructType():
                return self._struct(kind)
            case inspect.UnionType():
                parts = [part for part in map(self.rewrite, kind.types) if part is not None]
                # At most one: our unions are "X or absent or null". Each leaves alone what is not of its shape.
                return parts[0] if parts else None
            case inspect.ListType():
                return _each_item(self.rewrite(kind.item_type))
            case inspect.DictType():
                return _each_value(self.rewrite(kind.value_type))
            case inspect.Metadata():
                return self.rewrite(kind.type)
            case _:
                return None

    def _struct(self, kind: inspect.StructType) -> _Rewrite:
        if kind.cls in self._structs:
            return self._structs[kind.cls]
        fields: dict[str, tuple[_Rewrite | None, bool]] = {}
        folded: dict[str, str] = {}

        def rewrite(value: Any) -> Any:
            if type(value) is not dict:
                return value
            result = {}
            for given, item in value.items():
                name = given if given in fields else folded.get(given.lower())
                if name is None:
                    continue
                inner, takes_null = fields[name]
                if item is None and not takes_null:
                    continue  # as in Go, null leaves the field as it was
                result[name] = item if inner is None else inner(item)
            return result

        self._structs[kind.cls] = rewrite  # before the fields: a type may hold itself
        for field in kind.fields:
            self._names.add(field.encode_name)
            folded[field.encode_name.lower()] = field.encode_name
            fields[field.encode_name] = (self.rewrite(field.type), _takes_null(field.type))
        return rewrite


def _each_item(inner: _Rewrite | None) -> _Rewrite | None:
    if inner is None:
        return None
    return lambda value: [inner(item) for item in value] if type(value) is list else value


def _each_value(inner: _Rewrite | None) -> _Rewrite | None:
    """Keys of a map are data: they keep their case, and null values stay."""
    if inner is None:
        return None
    return lambda value: {k: inner(v) for k, v in value.items()} if type(value) is dict else value


def _takes_null(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(isinstance(part, inspect.NoneType) for part in kind.types)
    return isinstance(kind, inspect.NoneType | inspect.AnyType)
