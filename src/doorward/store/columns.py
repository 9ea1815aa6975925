"""Column types: how each kind of value is kept, the same on SQLite and PostgreSQL.

Every type here compiles to one that a SQLite STRICT table accepts (INTEGER, TEXT, BLOB) and to its counterpart in
PostgreSQL (bigint or boolean, text, bytea). Times are integers, so no engine's idea of time zones can touch them;
addresses and keys are bytes in network order, so that they sort as numbers and are unique whatever their spelling.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from doorward.errors import BadInput
from doorward.protocol.keys import PublicKey

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def whole() -> TypeEngine[int]:
    """A 64-bit integer; on SQLite the type must be spelled INTEGER for a STRICT table and for AUTOINCREMENT."""
    return BigInteger().with_variant(Integer(), "sqlite")


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly. Raises BadInput for a time without a zone."""
    if moment.tzinfo is None:
        raise BadInput("a time without a time zone cannot be stored")
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The reverse of ``to_microseconds``, in UTC."""
    return EPOCH + timedelta(microseconds=count)


class Moment(TypeDecorator[datetime]):
    """A point in time, as integer microseconds since 1970 in UTC."""

    impl = BigInteger().with_variant(Integer(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the base's signature
        """To the integer."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base's signature
        """From the integer."""
        return None if value is None else from_microseconds(value)


class Words(TypeDecorator[str]):
    """Text. A NUL is refused on both engines, because PostgreSQL cannot keep one and SQLite would cut there."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base's signature
        """The text as it is; raises BadInput where it cannot be kept."""
        if value is not None and ("\0" in value or not _encodes(value)):
            raise BadInput("a text with a NUL or half a surrogate pair cannot be stored")
        return value


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Flag(TypeDecorator[bool]):
    """True or false: boolean in PostgreSQL, 0 or 1 in SQLite, whose STRICT tables know no boolean."""

    impl = Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """INTEGER on SQLite."""
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else Boolean())

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:
        """To 0 or 1 where the engine wants it."""
        return int(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:  # noqa: ARG002 - the base's signature
        """From 0 or 1."""
        return None if value is None else bool(value)


class Choice(TypeDecorator[StrEnum]):
    """One member of a StrEnum, as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base's signature
        """To the text; raises ValueError for one that is no member."""
        return None if value is None else str(self.kind(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:  # noqa: ARG002 - the base's signature
        """From the text."""
        return None if value is None else self.kind(value)


class Key(TypeDecorator[PublicKey]):
    """A public key of one class, as its 32 bytes. Another class is refused: keys are not interchangeable."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, kind: type[PublicKey] = PublicKey) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: PublicKey | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - the base's signature
        """To the 32 bytes."""
        if value is None:
            return None
        if type(value) is not self.kind:
            raise TypeError(f"a {self.kind.__name__} column was given a {type(value).__name__}")
        return value.raw

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> PublicKey | None:  # noqa: ARG002 - the base's signature
        """From the 32 bytes."""
        return None if value is None else self.kind(value)


class Address(TypeDecorator[IPv4Address | IPv6Address]):
    """An IP address of one family, as its 4 or 16 bytes in network order."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, kind: type[IPv4Address] | type[IPv6Address] = IPv4Address) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: IPv4Address | IPv6Address | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - the base's signature
        """To the bytes."""
        if value is None:
            return None
        if type(value) is not self.kind:
            raise TypeError(f"an {self.kind.__name__} column was given a {type(value).__name__}")
        return value.packed

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> IPv4Address | IPv6Address | None:  # noqa: ARG002 - the base's signature
        """From the bytes."""
        return None if value is None else self.kind(value)


class AnyAddress(TypeDecorator[IPv4Address | IPv6Address]):
    """An IP address of either family, as its 4 or 16 bytes in network order, which tell the two apart."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: IPv4Address | IPv6Address | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - the base's signature
        """To the bytes."""
        return None if value is None else value.packed

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> IPv4Address | IPv6Address | None:  # noqa: ARG002 - the base's signature
        """From the bytes."""
        return None if value is None else ip_address(bytes(value))


class Json(TypeDecorator[Any]):
    """A value of one msgspec type, as JSON text with sorted keys: equal values have equal texts."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any = Any) -> None:
        super().__init__()
        self.kind = kind
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder(order="deterministic").encode
        self._decode: Callable[[str], Any] = msgspec.json.Decoder(kind).decode

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002 - the base's signature
        """To the text. msgspec escapes NUL, so every text can be kept."""
        return self._encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - the base's signature
        """From the text."""
        return None if value is None else self._decode(value)


class Prefixes(TypeDecorator[tuple[IPv4Network | IPv6Network, ...]]):
    """IP prefixes in order, as a JSON list of their texts."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002 - the base's signature
        """To the text."""
        return msgspec.json.encode([str(prefix) for prefix in value or ()]).decode()

    def process_result_value(
        self,
        value: str | None,
        dialect: Dialect,  # noqa: ARG002 - the base's signature
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        """From the text."""
        if value is None or value == "[]":
            return ()
        return tuple(ip_network(text) for text in msgspec.json.decode(value, type=list[str]))
