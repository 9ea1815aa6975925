"""The messages of the coordination protocol, split by subject (protocol note control.md, sections 1 and 9 to 22).

Field names are the wire's own, hence Go's capitals. On the wire *absent* means "unchanged since the last message" in a
MapResponse; these types use ``UNSET`` for absent and ``None`` only where null has a meaning of its own. Every struct
ignores unknown fields, as Go does.
"""
