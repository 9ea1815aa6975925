"""The issuer and other servers, as the settings have it: whose apps may come, whom it trusts, and where it asks."""

import ssl

from doorward.clock import Clock
from doorward.config.settings import Settings
from doorward.issuer.fetch import Fetch, trusting
from doorward.issuer.trust import Trust
from doorward.server.tls import Authority, CertificateError
from doorward.tailnet.registry import Registry


def trust_of(settings: Settings) -> Trust:
    """Whose apps may come by themselves."""
    apps = settings.apps
    return Trust(
        documents=apps.documents,
        hosts=apps.document_hosts,
        blocked=apps.blocked_hosts,
        callbacks=apps.registration_hosts,
    )


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
