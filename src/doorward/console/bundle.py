"""The bundle of scripts, styles and fonts: what each page needs of it, and each file as small as the browser takes it.

Vite writes ``.vite/manifest.json`` (https://vite.dev/guide/backend-integration): for each module of ours the file it became, the
chunks it imports and their styles. The names of files hold a hash of what is in them, so an address can never mean anything else.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from doorward.errors import Unavailable

STATIC = Path(__file__).parent / "static"
CURE = (
    "Run `make web-build` in doorward's folder. An installed doorward has the bundle in it: install it again."
)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
# As the browser may name them (RFC 9110 section 12.5.3), the best first, each with the ending of its file.
_CODINGS = (("br", ".br"), ("gzip", ".gz"))


class BundleMissing(Unavailable):
    """The pages have not been built."""

    problem = "console-not-built"


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the manifest."""

    file: str  # "assets/NAME-HASH.js"
    imports: tuple[str, ...] = ()  # keys of the manifest
    css: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()


class Needs(NamedTuple):
    """What a page loads at once; addresses below the bundle's folder."""

    script: str
    styles: tuple[str, ...]
    modules: tuple[str, ...]  # that the script imports: asked for together with it
    fonts: tuple[str, ...]


class Asset(NamedTuple):
    """A file as it is sent."""

    content: bytes
    kind: str  # Content-Type
    coding: str  # Content-Encoding; empty for none


class Bundle:
    """A built bundle. Its files do not change; a new build makes another folder listing, see ``Bundles``.

    Args:
        folder: with ``assets`` and ``.vite/manifest.json`` in it.

    Raises:
        BundleMissing: where there is none, or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._assets = folder / "assets"
        try:
            text = (folder / ".vite" / "manifest.json").read_bytes()
            self._chunks = msgspec.json.decode(text, type=dict[str, Chunk])
            self._names = frozenset(path.name for path in self._assets.iterdir())
        except (OSError, msgspec.MsgspecError) as error:
            raise BundleMissing("the console's pages are not built", cure=CURE, detail=str(error)) from None

    def needs(self, entry: str) -> Needs:
        """What a page loads whose entry is ``entry``, such as ``web/src/console/page.tsx``.

        Raises BundleMissing where the bundle has no such page: it is another version's.
        """
        first = self._chunks.get(entry)
        if first is None:
            raise BundleMissing(f"the console was built without {entry}", cure=CURE)
        chunks = [first]
        for chunk in chunks:  # grows while it is gone through
            chunks += [
                found
                for name in chunk.imports
                if (found := self._chunks.get(name)) is not None and found not in chunks
            ]
        deepest_first = chunks[::-1]  # the page's own styles come last, and win
        return Needs(
            script=first.file,
            styles=tuple(dict.fromkeys(name for chunk in deepest_first for name in chunk.css)),
            modules=tuple(chunk.file for chunk in chunks[1:]),
            fonts=tuple(
                dict.fromkeys(
                    name for chunk in chunks for name in chunk.assets if "/inter-latin-wght-normal" in name
                )
            ),
        )

    def asset(self, name: str, accepted: frozenset[str]) -> Asset | None:
        """A file of ``assets`` in the best of the codings that are accepted; None where there is none of that name.

        Only names that were there at the start are looked up, so that no name leads out of the folder.
        """
        kind = _TYPES.get(Path(name).suffix)
        if kind is None or name not in self._names:
            return None
        for coding, ending in _CODINGS:
            if coding in accepted and name + ending in self._names:
                return Asset((self._assets / (name + ending)).read_bytes(), kind, coding)
        return Asset((self._assets / name).read_bytes(), kind, "")


class Bundles:
    """The bundle as it is now: built again under a running server, the next page is the new one.

    Args:
        folder: as for ``Bundle``.
    """

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._read: tuple[int, Bundle] | None = None

    def current(self) -> Bundle:
        """The bundle; raises BundleMissing."""
        try:
            when = (self._folder / ".vite" / "manifest.json").stat().st_mtime_ns
        except OSError:
            raise BundleMissing("the console's pages are not built", cure=CURE) from None
        if self._read is None or self._read[0] != when:
            self._read = (when, Bundle(self._folder))
        return self._read[1]
