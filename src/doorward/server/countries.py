"""Which address is in which country, by the file that an operator supplies (setting ``geoip``).

A MaxMind DB whose records have ``country.iso_code`` (GeoLite2 and those made like it) or a flat ``country_code``. It is read
as a whole: a file that is mapped into memory and then overwritten in its place would end the process.
"""

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.api.types import Finding
from doorward.errors import BadInput
from doorward.policy.posture import CountryOf
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import log

if TYPE_CHECKING:
    import maxminddb

REMEMBERED = 65536  # addresses whose country is kept: looking one up takes some 50 microseconds
_LOOKED_AT = 1000  # records, one of which must name a country: a file about something else is told at once

_log = log("server")


def read_countries(path: Path) -> CountryOf:
    """What the file says, as a function. It has all it needs: the file may change or go afterwards.

    Raises BadInput for a file that cannot be read or knows no countries.
    """
    import maxminddb  # noqa: PLC0415 - few have such a file, and it takes 4 MB and some milliseconds

    try:
        reader = maxminddb.open_database(path, maxminddb.MODE_MEMORY)
        known = any(country_in(record) for _, record in islice(_records(reader), _LOOKED_AT))
    except OSError as error:
        raise BadInput(
            f"the database of countries cannot be read: {error.strerror or error}",
            cure="Correct geoip in the settings, or the file's permissions.",
            place=str(path),
        ) from None
    except Exception as error:  # noqa: BLE001 - the library lets through whatever a broken file makes of its decoder
        raise BadInput(
            f"this is not a MaxMind DB file, or not a whole one: {str(error)[:200] or type(error).__name__}",
            cure="Download it again; geoip names the .mmdb file itself, not an archive of it.",
            place=str(path),
        ) from None
    if not known:
        raise BadInput(
            f"this database knows no countries: it is a {str(reader.metadata().database_type)[:80]!r}",
            cure="Take one of countries or cities, such as GeoLite2-Country.",
            place=str(path),
        )

    @lru_cache(maxsize=REMEMBERED)
    def country_of(address: IPv4Address | IPv6Address) -> str | None:
        try:
            return country_in(reader.get(address))
        except ValueError:  # an IPv6 address where the file knows none
            return None
        except Exception as error:  # noqa: BLE001 - see above: one bad record must not stop a policy
            _log.warning("a record of the database of countries is broken", error=type(error).__name__)
            return None

    return country_of


async def countries_of(file: Path | None) -> CountryOf | None:
    """``read_countries`` beside the event loop; None where no file is named. Raises as it does."""
    return None if file is None else await asyncio.to_thread(read_countries, file)


def unknown_countries(snapshot: Snapshot) -> list[Finding]:
    """What is wrong where the policy in force asks for countries and no file says which there are."""
    if snapshot.document.asks_country is None or snapshot.settings.country_of is not None:
        return []
    return [
        Finding(
            level="warning",
            subject="countries",
            message="the policy asks for ip:country, and no node is in any: what it lets in by that is closed",
            cure="Name a MaxMind DB file in the setting geoip, and restart doorward.",
        )
    ]


def _records(reader: "maxminddb.Reader") -> Iterable[tuple[Any, Any]]:
    return reader


def country_in(record: object) -> str | None:
    """The country that a record names, in capitals; None where it names none."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    if isinstance(code, str) and len(code) == 2 and code.isascii() and code.isalpha():
        return code.upper()
    return None
