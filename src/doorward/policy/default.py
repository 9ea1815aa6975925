"""The policy of a new tailnet."""

DEFAULT_POLICY = """\
// Who may reach what. Comments and trailing commas are welcome.
// What no rule allows is denied; rules only ever add access.
{
    // People reach all of their own devices, and nobody else's.
    // To open more, add rules such as
    //   {"src": ["autogroup:member"], "dst": ["tag:server"], "ip": ["tcp:22", "443"]},
    //   {"src": ["group:dev"], "dst": ["10.0.0.0/8"], "ip": ["*"]},            a subnet behind a router
    //   {"src": ["autogroup:member"], "dst": ["autogroup:internet"], "ip": ["*"]},        exit nodes
    "grants": [
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
    ],

    // People may ssh to their own devices, as any account and as root.
    // Remove "root" to keep root out. Write "check" for "accept" to ask who they are again.
    "ssh": [
        {
            "action": "accept",
            "src": ["autogroup:member"],
            "dst": ["autogroup:self"],
            "users": ["autogroup:nonroot", "root"],
        },
    ],

    // Groups of people, as in {"group:dev": ["alice@example.com", "bob"]}.
    "groups": {},

    // Tags, and who may give them to devices, as in {"tag:server": ["group:dev"]}.
    // A tagged device belongs to its tags, no longer to a person.
    "tagOwners": {},
}
"""
