"""``doorward relay``."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from doorward.cli import output
from doorward.cli.connection import Flag
from doorward.cli.times import parse_duration
from doorward.config.folders import default_data_dir


def relay(
    *,
    hostname: str,
    listen: str = "0.0.0.0:443",
    stun: str = "0.0.0.0:3478",
    verify_url: str | None = None,
    verify_fail_open: Flag = False,
    verify_every: str = "5m",
    admit_anyone: Flag = False,
    print_map: Annotated[tuple[int, str] | None, Parameter(negative=())] = None,
    cert: Path | None = None,
    cert_key: Path | None = None,
    key_file: Path | None = None,
    mesh_key_file: Path | None = None,
    mesh_with: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    shards: int = 1,
    data_dir: Path | None = None,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
) -> int:
    """Run a relay of its own, beside the one in `doorward serve`: on another machine, or for another region.

    It keeps no data but its key and its certificate, in the folder `relay` of the data directory. It asks control about every
    node that comes, and refuses those that control does not know. Control learns of it from a DERP map: put what --print-map
    prints into a file there, and name the file in the setting `relay.maps`. Relays of one region must mesh, and their map
    lists them all; relays of different regions need not know of each other.

    Prints `ready URL` on stdout, as one line, when it accepts connections; the log goes to stderr. SIGTERM and Ctrl-C stop it,
    SIGHUP reads its certificate again. Numbers for Prometheus are at /metrics on the Unix sockets `relay/shard-N.sock`.

    Example: `doorward relay --hostname relay.example.com --verify-url https://control.example.com/verify`

    Example: `doorward relay --hostname relay.example.com --print-map 901 "New York" > new-york.json`

    Exit codes: 0 stopped as asked, 1 it cannot start or fails, 2 the command line is wrong.

    Args:
        hostname: The name or IP address by which clients reach it.
        listen: HOST:PORT for clients, with TLS.
        stun: HOST:PORT for STUN, over UDP; `off` for none.
        verify_url: Control's /verify, such as https://control.example.com/verify.
        verify_fail_open: While control does not answer, keep admitting nodes that it admitted within a day. Strangers stay
            refused. Without it, nobody new comes in while control is away.
        verify_every: How often control is asked again about a node that is connected, such as 5m. One that it refuses by then,
            because it was deleted, its key ended or its person was suspended, is thrown out; without an answer it stays.
        admit_anyone: Admit every node of every tailnet, instead of asking control.
        print_map: ID NAME: print the DERP map of this relay as region ID, called NAME, and run nothing.
        cert: Certificate for the hostname, in PEM, its chain after it. Without it the relay makes one that clients pin.
        cert_key: Key of the certificate, in PEM.
        key_file: File with the relay's key, made if it is not there. Without it `relay/derp.key` in the data directory.
        mesh_key_file: File with the key that all relays of the region share: 64 hex digits.
        mesh_with: The other relays of the region: https://HOST:PORT, with the pin of a certificate that its relay made behind
            it: https://HOST:PORT#sha256-raw:HEX.
        shards: Processes to run, joined to one relay.
        data_dir: Where it keeps its key and certificate. [environment: DOORWARD_DATA_DIR]
        log_level: The least that is logged.
    """
    from doorward.server.relay_process import RelayOptions, run  # noqa: PLC0415 - as for serve

    folder = data_dir or default_data_dir(os.environ, root=os.geteuid() == 0)
    options = RelayOptions(
        folder=folder.absolute() / "relay",
        hostname=hostname,
        listen=listen,
        stun="" if stun == "off" else stun,
        certificate=cert,
        certificate_key=cert_key,
        key_file=key_file,
        verify_url=verify_url or "",
        fail_open=verify_fail_open,
        verify_every=parse_duration(verify_every),
        admit_anyone=admit_anyone,
        mesh_key_file=mesh_key_file,
        mesh_with=mesh_with,
        shards=shards,
        log_level=log_level,
    )
    if print_map is not None:
        from doorward.server.relay_shard import derp_map  # noqa: PLC0415 - slow to load, and the parent needs none of it

        output.raw(derp_map(options, *print_map).decode())
        return 0
    return run(options, os.environ)
