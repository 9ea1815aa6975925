"""What the listeners of a worker present: the operator's own files, what ACME got, or what doorward's authority signs."""

from typing import TYPE_CHECKING

from doorward.clock import Clock
from doorward.config import Settings
from doorward.errors import DoorwardError
from doorward.protocol.keys import DERPPrivate
from doorward.relay.certificate import meta_certificate
from doorward.server import tls
from doorward.server.relays import address_of, host_of, relay_host
from doorward.telemetry import log

if TYPE_CHECKING:
    from doorward.server.acme.certificate import OrderedCertificate
    from doorward.server.acme.folder import Folder

_log = log("server")


class Certificates:
    """One certificate for each listener that speaks TLS.

    Attributes:
        public: of the control address, where the operator has one for it.
        door: of the people's address.
        relay: of the relay's own listener; clients know it by its pin.
        relay_is_public: clients reach the relay at the control address, behind the certificate that is seen there.
        ordered: those that ACME provides, by host; where ``acme`` keeps them.
    """

    def __init__(
        self, settings: Settings, authority: tls.Authority, clock: Clock, derp_key: DERPPrivate
    ) -> None:
        url_host, door_host = host_of(settings.url), host_of(settings.door)
        by_acme = settings.ordered()
        self.acme: Folder | None = None
        self.ordered: dict[str, OrderedCertificate] = {}

        def order(stem: str) -> "OrderedCertificate":
            from doorward.server.acme.certificate import OrderedCertificate  # noqa: PLC0415 - most have none
            from doorward.server.acme.folder import Folder  # noqa: PLC0415

            self.acme = self.acme or Folder(authority.folder / "acme")
            host = by_acme[stem]
            return self.ordered.setdefault(host, OrderedCertificate(self.acme, authority, stem, host, clock))

        self.public: tls.ServerCertificate | None = None
        own = settings.tls.url
        if own.cert is not None and own.key is not None:
            self.public = tls.OwnCertificate(own.cert, own.key, url_host, clock)
        elif "url" in by_acme:
            self.public = order("url")
        own = settings.tls.door
        self.door: tls.ServerCertificate
        if own.cert is not None and own.key is not None:
            self.door = tls.OwnCertificate(own.cert, own.key, door_host, clock)
        elif "door" in by_acme:
            self.door = order("door")
        else:
            self.door = tls.IssuedCertificate(authority, "door", clock, names=(door_host,))
        self.relay_is_public = settings.relay_is_at_url()
        host = relay_host(settings)
        address = address_of(host)
        self.relay: tls.ServerCertificate = tls.IssuedCertificate(
            authority,
            "relay",
            clock,
            names=() if address else (host,),
            addresses=(address,) if address else (),
            extra=lambda now: meta_certificate(derp_key.public(), now),
        )
        if self.public is not None:
            tls.choose_by_name(self.public, {door_host: self.door})

    def named(self) -> list[tuple[str, tls.ServerCertificate]]:
        """Each with what people call it."""
        named = [("door", self.door), ("relay", self.relay)]
        return named if self.public is None else [("control address", self.public), *named]

    def refresh(self) -> None:
        """Renew what is due. One that cannot be, such as a file of the operator's, keeps none of the others back."""
        for name, certificate in self.named():
            try:
                if certificate.refresh():
                    _log.info("certificate renewed", of=name, until=certificate.expires.isoformat())
            except (DoorwardError, OSError) as error:
                _log.error("certificate not renewed", of=name, reason=str(error))
