"""Deciding about ssh: each attempt that a node asks control about, at once or after somebody has been asked.

::

    ssh ──▶ the target's node ──▶ control ──▶ Attempts.answer ── judge ──▶ allow   the session begins
                 ▲                                                 ├─────▶ refuse  it ends with a sentence
                 │                                                 └─────▶ ask     a check is made; code and link go
                 └── asks again, with the check's number ◀──────────────────┘       to the terminal
                                     └─▶ waits until it is decided, or the tailnet changed: judged anew

``check`` is the judgement, pure; ``attempts`` waits and keeps the record; ``page`` is what the link shows. Rules are the
policy's, what was decided is written by ``tailnet.checks``. Nothing here knows control, which hands attempts in.
"""

from doorward.ssh.attempts import Attempts

__all__ = ["Attempts"]
