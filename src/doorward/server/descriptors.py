"""How many descriptors a process may have, and how many of them connections may take."""

import resource

# What is never given to a connection from outside: the database's files or connections, the administrator's socket and those
# who come by it, pipes to programs, files that are read again, and what libraries open for a moment.
RESERVE = 96
# More connections than this no process of ours is measured with.
MOST = 20_000
# A limit beyond that only makes programs slow that close whatever might be open.
HIGHEST = 65_536


def raise_limit() -> int:
    """Raise this process's soft limit as far as it may be; the limit then. Many systems start programs with only 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HIGHEST if hard == resource.RLIM_INFINITY else min(hard, HIGHEST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return HIGHEST if soft == resource.RLIM_INFINITY else soft


def room_for_connections() -> int:
    """How many connections there may be: what is left of the limit when the reserve is taken off, at least half of it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = HIGHEST if soft == resource.RLIM_INFINITY else soft
    return min(MOST, max(limit - RESERVE, limit // 2))
