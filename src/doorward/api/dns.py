"""What nodes are told about DNS: show it, replace it."""

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.tailnet.settings import DNS


def _answer(dns: DNS) -> types.DNS:
    return types.DNS(
        magic_dns=dns.magic_dns,
        search=dns.search,
        nameservers=dns.nameservers,
        split=dns.split,
        records=tuple(types.DNSRecord(name=each.Name, address=each.Value) for each in dns.records),
    )


@operation("GET", "/dns", needs=Permission.READ)
async def get_dns(call: Call) -> types.DNS:
    """Show what nodes are told about DNS."""
    return _answer(call.snapshot.settings.dns)


@operation("PUT", "/dns", needs=Permission.DNS, raises=[BadInput])
async def set_dns(call: Call, body: types.DNS) -> types.DNS:
    """Replace what nodes are told about DNS, all of it. What is left out has its default."""
    wanted = DNS(
        magic_dns=body.magic_dns,
        search=body.search,
        nameservers=body.nameservers,
        split=body.split,
        records=tuple(DNSRecord(Name=each.name, Value=each.address) for each in body.records),
    )
    return _answer(await call.registry.set_dns(call.actor, wanted))


OPERATIONS = (get_dns, set_dns)
