"""The server itself: what runs, what is wrong with it."""

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation


@operation("GET", "/status", needs=Permission.READ)
async def get_status(call: Call) -> types.Status:
    """Show the server at a glance: addresses, counts, and each of its parts."""
    return await call.context.status()


@operation("GET", "/doctor", needs=Permission.READ)
async def run_doctor(call: Call) -> list[types.Finding]:
    """Examine the server. Each finding that is not fine has its cure."""
    return await call.context.doctor()


OPERATIONS = (get_status, run_doctor)
