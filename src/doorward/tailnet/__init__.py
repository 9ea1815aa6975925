"""The living truth: who, which nodes, which addresses, which policy.

``snapshot`` is the whole of it, immutable, in memory. ``registry`` is the only writer: it validates a change, writes rows
and audit event in one transaction, builds the next snapshot by structural sharing and publishes what changed.
``changes`` wakes the map sessions that can see a change, and ``mapsession`` and ``netmap`` say, purely, what each has
to be told. ``addresses``, ``names`` and ``deadlines`` are the small pure rules behind the registry.

Two kinds of fact live here. *State* (owners, keys, names, routes, policy) is audited and written before anybody hears of
it. *Observations* (endpoints, network reports, online) are announced at once and written lazily, since every client
repeats them when it connects.

Knows nothing of HTTP, of services or of SQL.
"""
