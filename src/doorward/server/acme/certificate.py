"""The certificate of one address that ACME provides, as a listener presents it."""

from doorward.clock import Clock
from doorward.server import tls
from doorward.server.acme.folder import Folder


class OrderedCertificate(tls.IssuedCertificate):
    """What the folder has for the host; until there is something, a certificate of doorward's own authority for it.

    Args:
        folder: where certificates are kept by whichever worker orders.
        authority: signs in the meantime.
        stem: the name of that certificate's file.
        host: the name it is for.
        clock: tells whether what is kept is still good.

    Attributes:
        ordered: it is one of the authority that ACME speaks to.
    """

    def __init__(self, folder: Folder, authority: tls.Authority, stem: str, host: str, clock: Clock) -> None:
        self._folder = folder
        self.host = host
        self.ordered = False
        self._seen: tuple[int, int] | None = None
        super().__init__(authority, stem, clock, names=(host,))

    def refresh(self) -> bool:
        """Take what the folder has, if it is news. One that was presented stays until there is a better one."""
        seen = self._stamp()
        if seen is None or seen == self._seen:
            return False if self.ordered else super().refresh()
        held = self._folder.certificate(self.host, self._clock.now())
        if held is None:
            return False if self.ordered else super().refresh()
        self._seen = seen
        changed = not hasattr(self, "leaf") or held.leaf != self.leaf
        if changed:
            tls.load_from_memory(self.context, held.pem)
        self.leaf, self.ordered = held.leaf, True
        return changed

    def _stamp(self) -> tuple[int, int] | None:
        """What changes with the file, since each is a new one."""
        try:
            found = self._folder.certificate_file(self.host).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
