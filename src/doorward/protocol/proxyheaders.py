"""Headers by which a proxy tells the program behind it who is asking (protocol note idp.md, sections 4.3 to 4.7).

Nobody may take an identity out of one that came from outside: these are the names to take away first.
"""

# Beginnings of names, in lower case.
IDENTITY_HEADERS = (
    "tailscale-user-",
    "tailscale-app-capabilities",
    "x-webauth-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-pomerium-",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-remote-",
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
    "cf-access-",
    "x-goog-authenticated-user-",
    "x-ms-client-principal",
    "x-doorward-user",
)


def is_identity_header(name: bytes) -> bool:
    """True for a header that claims an identity. ``_`` counts as ``-``: CGI and WSGI cannot tell them apart."""
    return name.decode("latin-1").lower().replace("_", "-").startswith(IDENTITY_HEADERS)
