"""Who is the person: answers "which node, and so which user, is this request".

``whois`` reads it off a tailnet connection. Nothing that a client sends in a header ever counts.
"""
