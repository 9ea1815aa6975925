"""Certificates from an authority that speaks ACME (RFC 8555): ordered, proven, renewed, and shared among processes.

::

    keeper ── when is one due? ──▶ conversation ── order, prove, fetch ──▶ the authority
      │                                 │
      │                                 ├─ answers: http-01 and tls-alpn-01, by the listeners of every worker
      │                                 └─ records: dns-01, by a program or a DNS server
      └── keeps it in the folder ──▶ certificate: what the listeners present, in every worker

One worker of a ``serve``, whichever has the lock of the folder, does the ordering; the others read the folder. Several
``serve`` on one PostgreSQL order in turn and pass on what they have (``sharing``). Until the first certificate is there, and
whatever fails, a listener presents one of doorward's own authority, or the one before.

Each address has an order of its own: a name that cannot be proven keeps the other's certificate from nothing.
"""
