"""What settings cannot hold together, each refusal with its cure."""

import re
import typing
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from doorward.config.settings import TAILNET_V4, TAILNET_V6, ConfigError, Ports, Settings, split_listen

# What stock clients take for a private address in a login server's URL (control.md 5.2): only towards these do they
# keep using plain HTTP. Narrower than ``is_private``, which also counts documentation and link-local addresses.
_PLAIN_HTTP = tuple(
    ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Letters that nobody writes in two ways, so that a path can be compared as text. No part is hidden, or leads elsewhere.
_PATH = re.compile(r"(?=.{1,100}\Z)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_EMAIL = re.compile(r"[!-~]{1,64}@[A-Za-z0-9.-]{1,253}")


def check(settings: Settings, places: Mapping[tuple[str, ...], str]) -> None:
    """Refuse what cannot work, with the cure. Ports that are not known yet do not matter to any rule."""

    def refuse(name: str, message: str, cure: str) -> typing.NoReturn:
        raise ConfigError(message, cure=cure, place=places.get(tuple(name.split(".")), ""))

    if len(settings.domain) > 200 or "." not in settings.domain or not is_dns_name(settings.domain):
        refuse(
            "domain",
            f"{settings.domain!r} is not a domain for MagicDNS",
            "Use lower-case letters, digits and hyphens, at least one dot, and none at the end: tailnet.internal.",
        )
    try:
        host, _ = split_listen(settings.listen)
    except ConfigError as error:
        refuse("listen", error.message, error.cure)
    if not settings.url and host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        refuse(
            "listen",
            "without --url nobody knows which address of this machine clients shall use",
            "Give --url.",
        )
    whole = settings.settled(Ports(listen=split_listen(settings.listen)[1]))
    _check_url(whole, refuse)
    _check_door(whole, refuse)
    _check_tls(settings, whole, refuse)
    if not settings.addresses.ipv4.subnet_of(TAILNET_V4):
        refuse(
            "addresses.ipv4", f"{settings.addresses.ipv4} is not inside {TAILNET_V4}", "Choose a part of it."
        )
    if not settings.addresses.ipv6.subnet_of(TAILNET_V6):
        refuse(
            "addresses.ipv6", f"{settings.addresses.ipv6} is not inside {TAILNET_V6}", "Choose a part of it."
        )
    try:
        settings.proxies()
    except ValueError as error:
        refuse(
            "trusted_proxies",
            f"trusted_proxies: {error}",
            "Write addresses or networks: 192.0.2.7, 10.0.0.0/8.",
        )
    try:
        settings.private_networks()
    except ValueError as error:
        refuse(
            "apps.networks",
            f"apps.networks: {error}",
            "Write addresses or networks: 192.168.1.0/24, 10.1.2.3.",
        )
    try:
        settings.known_numbers()
    except ValueError as error:
        refuse(
            "apps.tsidp_numbers",
            f"apps.tsidp_numbers: {error}",
            "Write the id that `doorward users list --json` has, and the number that tsidp said: 3=7234567890123456.",
        )
    if settings.workers > 1 and not settings.database.url.startswith(("postgresql://", "postgres://")):
        refuse(
            "workers",
            f"{settings.workers} workers cannot share SQLite",
            "Set database.url to a PostgreSQL, or leave workers at 1.",
        )
    _check_relay(settings, refuse)
    _check_audit(settings, refuse)
    for origin in settings.console.origins:
        _check_origin(origin, refuse)


def _check_relay(settings: Settings, refuse: Any) -> None:
    if settings.relay.proxied and (settings.relay.host or not settings.url.startswith("https:")):
        refuse(
            "relay.proxied",
            "relay.proxied says that clients reach the relay at url, "
            + ("and relay.host that they do elsewhere" if settings.relay.host else "which is not https"),
            "Set url to the https address of the proxy, and leave out relay.host; or leave out relay.proxied.",
        )
    if settings.relay.listen and not _is_address(settings.relay.listen):
        refuse(
            "relay.listen",
            f"{settings.relay.listen!r} is not an address to listen on",
            "Write an IP address, such as 0.0.0.0 for all of this machine's.",
        )
    for one in settings.relay.maps:
        if one.startswith("http://"):
            refuse("relay.maps", f"{one} could be changed on the way", "Use an https address, or a file.")


def _check_tls(settings: Settings, whole: Settings, refuse: Any) -> None:
    """Certificates; ``whole`` are the same settings with their addresses."""
    for name, pair, address in (
        ("tls.url", settings.tls.url, whole.url),
        ("tls.door", settings.tls.door, whole.door),
    ):
        if (pair.cert is None) != (pair.key is None):
            there = f"{name}.{'cert' if pair.cert else 'key'}"
            refuse(
                there,
                f"{name} has a certificate or a key without the other",
                f"Set {name}.cert and {name}.key.",
            )
        if pair.cert is not None and address.startswith("http:"):
            # The listener would speak TLS, and everybody would be told to speak plain HTTP to it.
            refuse(
                f"{name}.cert",
                f"{name} is a certificate for {address}, which is plain http",
                f"Write https in {name.removeprefix('tls.')}, or take {name}.cert and {name}.key away.",
            )
    if settings.tls.acme.directory:
        _check_acme(settings, refuse)


def _check_url(settings: Settings, refuse: Any) -> None:
    host = _web_host(settings.url, "url", refuse)
    if host == settings.domain or host.endswith("." + settings.domain):
        refuse(
            "url",
            f"the control address {settings.url} lies inside the MagicDNS domain {settings.domain}: nodes would look for"
            " their control server inside the tailnet and lock themselves out",
            "Give control another name, or set another domain.",
        )
    if settings.url.startswith("https:") or host == "localhost":
        return
    try:
        address = ip_address(host)
    except ValueError:
        kind = "a DNS name"
    else:
        if any(address in network for network in _PLAIN_HTTP if network.version == address.version):
            return
        kind = "a public address"
    refuse(
        "url",
        f"the control address {settings.url} is http with {kind}: stock clients would connect once and never again",
        "Use https (tls.url.cert and tls.url.key), or an IP address of a private network.",
    )


def _check_door(settings: Settings, refuse: Any) -> None:
    host = _web_host(settings.door, "door", refuse, path=True)
    if settings.door.startswith("http:") and host != "localhost":
        refuse(
            "door",
            f"the door {settings.door} is not https",
            "Use https; only http://localhost:PORT may do without.",
        )
    if host != "localhost" and not is_dns_name(host):
        refuse(
            "door",
            f"the door {settings.door} has no DNS name",
            "Passkeys and sign-in need one: door.example.com.",
        )
    if host != "localhost" and host == urlsplit(settings.url).hostname:
        refuse(
            "door",
            f"the door and control have the same name {host}: inside the tailnet the door resolves to doorward's node,"
            " and control must not",
            "Give the door a name of its own.",
        )


def _check_origin(text: str, refuse: Any) -> None:
    """Browsers send an origin in one spelling, and it is compared with that: any other would never be met."""
    if text in {"*", "null"}:
        refuse(
            "console.origins",
            f"console.origins has {text!r}: any page at all could use the cookies of whoever has it open",
            "Name each origin: https://console.example.com.",
        )
    host = _web_host(text, "console.origins", refuse)
    if text.startswith("http:") and host != "localhost":
        refuse(
            "console.origins",
            f"the origin {text} is not https",
            "Use https; only http://localhost:PORT may do without.",
        )
    parts = urlsplit(text)
    usual = {"http": 80, "https": 443}[parts.scheme]
    if parts.port == usual or text != text.lower() or not is_dns_name(host):
        port = "" if parts.port in {None, usual} else f":{parts.port}"
        refuse(
            "console.origins",
            f"no browser writes an origin as {text!r}",
            f"Write a DNS name in small letters, without the usual port: {parts.scheme}://{host.lower()}{port}.",
        )


def _check_acme(settings: Settings, refuse: Any) -> None:
    acme = settings.tls.acme
    try:
        parts = urlsplit(acme.directory)
        good = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
    except ValueError:
        good = False
    if not good or not acme.directory.isascii() or not acme.directory.isprintable():
        refuse(
            "tls.acme.directory",
            f"{acme.directory!r} is not an https address of an ACME directory",
            "Let's Encrypt's is https://acme-v02.api.letsencrypt.org/directory.",
        )
    if not acme.agree:
        refuse(
            "tls.acme.directory",
            "an authority gives certificates only to those who agree to its terms of service",
            "Read them, and set tls.acme.agree = true. The directory names their address.",
        )
    if acme.email and not _EMAIL.fullmatch(acme.email):
        refuse("tls.acme.email", f"{acme.email!r} is not an e-mail address", "Correct it, or leave it out.")
    if bool(acme.account.id) != (acme.account.key is not None):
        refuse(
            f"tls.acme.account.{'id' if acme.account.id else 'key'}",
            "an account with the authority has both an identifier and a key",
            "Set tls.acme.account.id and tls.acme.account.key, or neither.",
        )
    # One that doorward makes up itself is known to nobody outside.
    if "door" in acme.names and not settings.door:
        refuse(
            "tls.acme.names",
            "the door has no name outside, and no authority can prove it",
            'Set door to its public address, or tls.acme.names = ["url"].',
        )
    ordered = settings.ordered()
    if not ordered:
        refuse(
            "tls.acme.directory",
            "there is no address to order a certificate for: each is plain http, or has files of its own",
            "Set url or door to an https address, or take tls.acme away.",
        )
    for name, host in ordered.items():
        if not is_dns_name(host) or "." not in host:
            refuse(name, f"{host} is not a name that an authority can prove", "Use a public DNS name.")
    _check_challenge(settings, refuse)


def _check_challenge(settings: Settings, refuse: Any) -> None:
    """What the way to prove names needs."""
    acme = settings.tls.acme
    if acme.challenge == "dns-01":
        if (acme.hook is None) == (not acme.dns.server):
            refuse(
                "tls.acme.challenge",
                "dns-01 needs either a program that makes records or a DNS server that takes updates",
                "Set one of tls.acme.hook and tls.acme.dns.server.",
            )
        if acme.dns.server and acme.dns.key is None:
            refuse(
                "tls.acme.dns.server",
                "a DNS server that takes updates from anybody would be everybody's",
                "Set tls.acme.dns.key to a file with its TSIG key.",
            )
        if acme.dns.server and not acme.dns.server.isascii():
            refuse("tls.acme.dns.server", f"{acme.dns.server!r} is not HOST or HOST:PORT", "Correct it.")
    elif (
        acme.challenge == "tls-alpn-01" and "url" not in settings.ordered() and settings.tls.url.cert is None
    ):
        # The public listener speaks plain HTTP, and the door's is on loopback.
        refuse(
            "tls.acme.challenge",
            "tls-alpn-01 is answered on the public listener, which speaks no TLS here",
            "Use dns-01, or http-01 with tls.acme.listen.",
        )
    if acme.listen:
        try:
            split_listen(acme.listen)
        except ConfigError as error:
            refuse("tls.acme.listen", error.message, error.cure)


def _check_audit(settings: Settings, refuse: Any) -> None:
    syslog, webhook = settings.audit.syslog, settings.audit.webhook
    if syslog and not _is_syslog(syslog):
        refuse(
            "audit.syslog",
            f"{syslog!r} is not the address of a syslog server",
            "Write unix:/dev/log, udp://HOST:514, tcp://HOST:601 or tls://HOST:6514.",
        )
    if not webhook:
        return
    try:
        parts = urlsplit(webhook)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    # Never the address itself: a part of it may be a secret.
    if not host or parts.scheme not in {"http", "https"} or parts.fragment or "@" in parts.netloc:
        refuse("audit.webhook", "the webhook is no address that can be posted to", "Write https://HOST/PATH.")
    if parts.scheme == "http" and host not in {"localhost", "127.0.0.1", "::1"}:
        refuse(
            "audit.webhook",
            "events of the audit log would travel to the webhook for everybody to read",
            "Use an https address; http only on this machine.",
        )


def _is_syslog(text: str) -> bool:
    kind, _, path = text.partition(":")
    if kind == "unix":
        return path.startswith("/") and not path.startswith("//")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    rest = parts.path or parts.query or parts.fragment
    return parts.scheme in {"udp", "tcp", "tls"} and bool(host) and not rest and "@" not in text


def _web_host(url: str, name: str, refuse: Any, *, path: bool = False) -> str:
    """The host of ``http(s)://HOST[:PORT]`` in lower case, where ``path`` says so also with a path; refuses everything else."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or (parts.path and not (path and _PATH.fullmatch(parts.path)))
        or parts.query
        or parts.fragment
        or "@" in url
        or not (
            url.isascii() and url.isprintable()
        )  # a line end is left out by who reads it, and stays with us
    ):
        refuse(
            name,
            f"{url!r} is not an address of the form http(s)://HOST[:PORT]{'[/PATH]' if path else ''}",
            "Leave out slashes at the end, and in the path all but letters, digits, hyphens, dots and underscores."
            if path
            else "Leave out paths and slashes at the end.",
        )
    return str(host)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_dns_name(text: str) -> bool:
    """True for a lower-case DNS name without a dot at its end that is not an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))
    return False
