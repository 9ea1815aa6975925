"""The records that prove a name by DNS (dns-01, RFC 8555 section 8.4): made by a program of the operator's, or by updates.

Updates (RFC 2136) go to the server that the settings name, signed with a TSIG key (RFC 8945). Only the very record that was
added is taken away again: there may be others by the same name.
"""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from doorward.config import Settings
from doorward.engine.processes import tied_to_us
from doorward.server.acme.faults import AcmeError
from doorward.server.acme.keyfiles import tsig_key
from doorward.telemetry import log

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.tsig

HOOK_PATIENCE = 300.0  # seconds for the program: it waits until the record is seen
DNS_PATIENCE = 15.0  # seconds for one answer of the DNS server
TTL = 60  # seconds that others may remember the record
SAID = 2000  # bytes of the end of what the program said that are kept

_log = log("acme")


class Records(Protocol):
    """Where records are made."""

    async def add(self, name: str, value: str) -> None:
        """Make a TXT record, and return when everybody can see it. Raises AcmeError."""
        ...

    async def remove(self, name: str, value: str) -> None:
        """Take it away again. Raises AcmeError."""
        ...


def records_of(settings: Settings) -> Records:
    """What the settings say for dns-01."""
    acme = settings.tls.acme
    if acme.hook is not None:
        return Hook(acme.hook)
    assert acme.dns.key is not None  # ``config.check`` has seen to it
    return Updates(acme.dns.server, acme.dns.key, acme.dns.wait)


class Hook:
    """A program of the operator's: ``PROGRAM add NAME VALUE``, ``PROGRAM remove NAME VALUE``."""

    def __init__(self, program: Path) -> None:
        self._program = program

    async def add(self, name: str, value: str) -> None:
        """Run it; it ends when the record can be seen."""
        await self._run("add", name, value)

    async def remove(self, name: str, value: str) -> None:
        """Run it once more."""
        await self._run("remove", name, value)

    async def _run(self, act: str, name: str, value: str) -> None:
        # Settings may hold the database's password, and a hook has no use for them.
        environ = {key: text for key, text in os.environ.items() if not key.startswith("DOORWARD_")}
        # A file: a pipe would be waited for until the last one who has inherited it ends.
        with tempfile.TemporaryFile() as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *tied_to_us([self._program, act, name, value]),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environ,
                    start_new_session=True,
                )
            except OSError as error:
                raise self._failure(act, f"does not start: {error.strerror}") from None
            try:
                async with asyncio.timeout(HOOK_PATIENCE):
                    await process.wait()
            except TimeoutError:
                raise self._failure(act, f"did not end within {HOOK_PATIENCE:.0f} s") from None
            finally:
                await _end(process)
            output.seek(max(0, output.seek(0, os.SEEK_END) - SAID))
            text = output.read(SAID).decode(errors="replace").strip()
        if process.returncode:
            last = text.splitlines()[-1] if text else "nothing"
            _log.error("the DNS program failed", act=act, name=name, code=process.returncode, said=text)
            raise self._failure(act, f"ended with {process.returncode}; it said: {last[:200]}")

    def _failure(self, act: str, what: str) -> AcmeError:
        return AcmeError(
            f"the program {self._program} ({act}) {what}",
            cure="Try it by hand: PROGRAM add _acme-challenge.NAME test, and remove. It must be executable.",
            counts=False,  # the authority has not been told to look
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and whatever it has started, unless it has ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Updates:
    """A DNS server that takes updates.

    Args:
        server: ``HOST`` or ``HOST:PORT``.
        key_file: see ``keyfiles.tsig_key``; read each time, so that a new key needs no restart.
        wait: seconds until the zone's other servers have what was changed.
    """

    def __init__(self, server: str, key_file: Path, wait: float) -> None:
        host, colon, port = server.rpartition(":")
        if not colon or (
            "]" not in host and ":" in host
        ):  # no port: a name, or an IPv6 address without brackets
            host, port = server, "53"
        self._host = host.strip("[]")
        self._port = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        self._key_file = key_file
        self._wait = wait

    async def add(self, name: str, value: str) -> None:
        """Add the record, and wait."""
        await self._update(name, value, present=True)
        await asyncio.sleep(self._wait)

    async def remove(self, name: str, value: str) -> None:
        """Delete this record and no other."""
        await self._update(name, value, present=False)

    async def _update(self, name: str, value: str, *, present: bool) -> None:
        import dns.exception  # noqa: PLC0415 - few prove their names so
        import dns.name  # noqa: PLC0415
        import dns.rcode  # noqa: PLC0415
        import dns.tsig  # noqa: PLC0415
        import dns.update  # noqa: PLC0415

        key = tsig_key(self._key_file)
        try:
            signing = dns.tsig.Key(key.name, key.secret, key.algorithm)
            full = dns.name.from_text(name)
            zone = await self._zone_of(full, signing)
            update = dns.update.UpdateMessage(zone, keyring=signing)
            relative = full.relativize(zone)
            if present:
                update.add(relative, TTL, "TXT", value)
            else:
                update.delete(relative, "TXT", value)
            answer = await self._ask(update)
        except dns.exception.FormError:
            # A server that refuses before it looks at the key says so without it.
            raise self._failure(
                f"does not answer for {name} with the key {key.name}",
                "It must be the primary server of the zone, and know the key.",
            ) from None
        except dns.tsig.PeerError as error:
            raise self._failure(
                f"does not accept the key {key.name}: {type(error).__name__.removeprefix('Peer')}",
                "Name and secret must be the server's own, and both clocks right.",
            ) from None
        except (dns.exception.DNSException, ValueError, LookupError, NotImplementedError) as error:
            # A secret that is no base64 ends here, too: the library's message might quote it.
            raise self._failure(
                f"cannot be used with the key {key.name}: {type(error).__name__}",
                "Check tls.acme.dns.server and tls.acme.dns.key.",
            ) from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise self._failure(
                f"refused the update of {zone}: {dns.rcode.to_text(answer.rcode())}",
                f"Allow the key {key.name} to update {name} in {zone}.",
            )

    async def _zone_of(self, name: "dns.name.Name", signing: "dns.tsig.Key") -> "dns.name.Name":
        """The zone that ``name`` is in, by the start of authority that the server has for it or what is above."""
        import dns.message  # noqa: PLC0415
        import dns.rdatatype  # noqa: PLC0415

        above = name
        while len(above) > 2:  # below a top-level domain
            query = dns.message.make_query(above, dns.rdatatype.SOA)
            query.use_tsig(signing)
            answer = await self._ask(query)
            for found in (*answer.answer, *answer.authority):
                if found.rdtype == dns.rdatatype.SOA and name.is_subdomain(found.name):
                    return found.name
            above = above.parent()
        raise self._failure(f"has no zone that {name} is in", "Name the primary server of the zone.")

    async def _ask(self, query: "dns.message.Message") -> "dns.message.Message":
        import dns.asyncquery  # noqa: PLC0415

        try:
            async with asyncio.timeout(DNS_PATIENCE):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self._host, self._port, type=socket.SOCK_STREAM
                )
                return await dns.asyncquery.tcp(query, str(found[0][4][0]), DNS_PATIENCE, self._port)
        except TimeoutError:
            raise self._failure("does not answer", "Is it reached over TCP?") from None
        except OSError as error:
            raise self._failure(
                f"cannot be reached: {error.strerror or error}", "Is it reached over TCP?"
            ) from None
        except EOFError:
            raise self._failure("closed the connection", "Its log says why.") from None

    def _failure(self, what: str, cure: str) -> AcmeError:
        return AcmeError(f"the DNS server {self._host} port {self._port} {what}", cure=cure, counts=False)
