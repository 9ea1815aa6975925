"""What doorward remembers: one database, SQLite or PostgreSQL, and the only package that speaks SQL.

Start with ``database``: ``Database.open``, then ``run`` to change and ``read`` to look, each with a plain function that
takes a connection first. Those functions are in one module per noun (``users``, ``nodes``, ``keys``, ``registrations``,
``policies``, ``settings``, ``checks``, ``cuts``, ``processes``, ``audit``); they take and return the values of ``doorward.model`` and decide nothing: who may
change what is ``tailnet``'s business. A value that is not stored yet has ``id`` 0; ``insert`` returns it with its number.

::

    database   units of work, one writer thread, group commit
    engines    connections and transactions of the two engines        faults   their errors, in our words
    schema     fresh, migrated or refused                             tables   every table; columns: how values are kept
    feed       what several processes on one PostgreSQL tell each other
    secrets    the keys that are files, not rows

Nothing above this package imports a database library. Whoever writes a unit of work takes ``Connection`` from here.
"""

from sqlalchemy import Connection

from doorward.store.database import Database

__all__ = ["Connection", "Database"]
