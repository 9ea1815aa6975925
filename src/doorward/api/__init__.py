"""The JSON API: one noun, one file. The command line speaks it over the socket in the data directory, others over HTTP.

::

    request ── app.enter: who is asking, may they ── users.create_user(call, body) ── one call into tailnet ── answer

``types`` holds what travels and imports nothing but msgspec, so that the command line starts fast. ``access`` says who
may do what. ``users``, ``keys``, ``nodes``, ``policy``, ``tokens``, ``audit`` and ``status`` are the nouns: each a
tuple OPERATIONS. ``app.create`` makes the routes of all of them, and ``openapi`` the document that describes them.

Nothing here decides about the tailnet: that is the registry's. Nothing here imports a service, the server or the
command line. This file imports nothing at all, for the sake of the command line's start.
"""
