"""Shells over asyncio that move bytes for ``protocol``; they know nothing of nodes or users.

``listener`` is the front door: bound sockets to an ASGI app, with the raw connection handed over to ts2021 and DERP.
``noise`` carries one ts2021 connection, ``h2`` the HTTP/2 inside it, both as server and as client. ``fetch`` is the one
way in which doorward asks another server something over HTTP.

Inside ts2021 the same kind of ASGI app runs as outside, with the caller's machine key in its scope. May import
``protocol`` and what is below it; never a service, the store or the tailnet.
"""
