"""What becomes of the audit log once it is written: it is signed, checked, and taken elsewhere.

::

    units of work ──▶ store.audit: sealed, one behind the other
                          │
                          ├─▶ Notary: looks whether what is new follows from what was signed ──▶ a checkpoint, kept in the
                          │           store and in a file that may be shipped elsewhere
                          └─▶ Delivery, one for each destination: a batch ──▶ file, syslog, webhook
                                  ▲                                   └─ done ──▶ its cursor in the store moves on
                                  └── not done: again later, from the same event

Nothing here is in the way of whoever writes: events are read from the store behind their backs, and a destination that is gone
only falls behind. An event is delivered once at least, in its order; its number and digest tell one that came twice.
"""

from doorward.audit.auditing import Auditing

__all__ = ["Auditing"]
