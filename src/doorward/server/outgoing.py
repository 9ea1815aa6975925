"""How the issuer asks other servers, as the settings have it: whom it trusts, and which private networks it may go to."""

import ssl

from doorward.clock import Clock
from doorward.config.settings import Settings
from doorward.issuer.fetch import Fetch, trusting
from doorward.server.tls import Authority, CertificateError
from doorward.tailnet.registry import Registry


def open_fetch(settings: Settings, registry: Registry, clock: Clock, authority: Authority) -> Fetch:
    """The issuer's fetcher. It trusts the system's authorities, doorward's own, and those in the file ``apps.authority``.

    Raises CertificateError where there are none in it.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority.pem)
    file = settings.apps.authority
    if file is not None:
        try:
            context.load_verify_locations(cafile=str(file))
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"the authorities of apps cannot be read: {error.strerror or error}",
                cure="Name a PEM file of certificates in apps.authority.",
                place=str(file),
            ) from None
    return Fetch(registry, clock, networks=settings.private_networks(), open_fetcher=trusting(context))
