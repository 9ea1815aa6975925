"""The console: pages for people, made in a browser from what the API says.

A page is a small piece of HTML (``pages``) that names the scripts and styles of the bundle and carries the first data as JSON, so
that the first thing painted is true. The bundle is built from ``web/`` into ``static/`` (``make web-build``); ``bundle`` finds in it,
by Vite's manifest, what each page needs. ``service`` serves both, to people whom ``login`` knows.

No script or style stands in a page itself, and the content policy lets nothing run or load that is not the bundle's.
"""

from doorward.console.service import Console

__all__ = ["Console"]
