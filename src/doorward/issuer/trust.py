"""Whose apps may come by themselves, as the settings have it. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Documents = Literal["off", "people", "anyone"]


class Trust(NamedTuple):
    """Hosts are names, or ``*.`` and a name for all below it.

    An app whose client id is an address describes itself there (``documents``). To ask for what is there is itself something that a
    stranger could have us do, so it is not done for everybody.
    """

    documents: Documents = "people"  # for whom an address is looked at that ``hosts`` does not name
    hosts: Sequence[str] = ()  # whose are looked at for everybody, also inside our own networks
    blocked: Sequence[str] = ()  # whose are not looked at for anybody
    callbacks: Sequence[str] = ()  # whose apps may register from anywhere: those that are answered there

    def blocks(self, url: str) -> bool:
        """True for an address whose host is not wanted."""
        return _named(url, self.blocked)

    def knows(self, url: str) -> bool:
        """True for an address whose host an administrator has named."""
        return _named(url, self.hosts) and not self.blocks(url)

    def looks_at(self, url: str, *, for_person: bool) -> bool:
        """True where what an address says may be asked for.

        ``for_person``: somebody whom we know is there, by their device or because they have signed in.
        """
        if self.blocks(url):
            return False
        return self.knows(url) or self.documents == "anyone" or (self.documents == "people" and for_person)

    def answers(self, url: str) -> bool:
        """True for an address at which an app may be answered that registers from anywhere."""
        return url.startswith("https:") and _named(url, self.callbacks) and not self.blocks(url)

    @property
    def any_documents(self) -> bool:
        """True where at least somebody's are."""
        return self.documents != "off" or bool(self.hosts)


def _named(url: str, patterns: Sequence[str]) -> bool:
    try:
        host = (urlsplit(url).hostname or "").lower().removesuffix(".")
    except ValueError:
        return False
    for pattern in patterns:
        wanted = pattern.lower()
        if host == wanted or (wanted.startswith("*.") and host.endswith(wanted[1:])):
            return True
    return False
