"""Policy: from the text of a policy file to who may reach what.

::

    text --parse_policy--> Document --Policy.compile(users, nodes)--> Policy --> packet filters, SSH rules,
                                                                       |         visible peers, routes, tags
                                                                       +--updated(nodes)--> Policy ...

Modules: ``document`` (what a file says, and `PolicyError`), ``parse`` with ``parse_rules``, ``parse_ssh``, ``reader`` and
``selectors`` (text to document), ``roster`` (who is there), ``sources``, ``filters``, ``ssh`` and ``compile`` (document
to answers), ``reach`` and ``survey`` (who can reach what, by which rule; ``services`` for the
words), ``compare`` (what a change would change), ``check`` (the file's own tests), ``ranges`` (address
arithmetic), ``edit`` (changes of one thing in a file's text), ``textdiff`` (what changed between two texts), ``default``
(the first policy).

To add a section of the language: a field in `Document`, a function in ``parse`` that reads it with the `Reader`, and
its meaning beside ``filters`` and ``ssh``.

Pure: no I/O, no clock, no randomness. Must not import anything above ``model``.
"""

from doorward.policy.compile import Policy
from doorward.policy.default import DEFAULT_POLICY
from doorward.policy.document import Diagnostic, Document, PolicyError
from doorward.policy.parse import parse_policy

__all__ = ["DEFAULT_POLICY", "Diagnostic", "Document", "Policy", "PolicyError", "parse_policy"]
