"""The wiring: the only package that may import every service.

``app.serve`` is what ``doorward serve`` calls. It binds the ``sockets``, and the ``supervisor`` keeps a worker on them:
``child`` is the worker process's own start, ``worker`` what runs in it. ``own_node`` keeps doorward itself on its tailnet,
``tls`` makes and renews certificates, ``relays`` reads other people's DERP maps.
"""
