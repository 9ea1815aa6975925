"""What is not served is refused in words, and breaks nothing."""

import pytest
from tests.support.served_control import Served


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [
        ("POST", "set-dns", "DNS records"),
        ("POST", "id-token", "ID tokens"),
        ("POST", "feature/query", "certificates"),
        ("PATCH", "set-device-attr", "attributes"),
        ("POST", "audit-log", "audit logs"),
    ],
)
async def test_a_known_wish_is_refused_with_its_reason(
    served: Served, method: str, path: str, word: str
) -> None:
    link = await served.link(1)
    status, text, _ = await link.ask(f"/machine/{path}", b'{"Version":142}', method=method)
    assert status == 501
    assert word in text.decode()
    assert text.endswith(b"\n")
    assert (await link.ask("/machine/whoami", method="GET"))[0] == 200


@pytest.mark.parametrize("path", ["/machine/tka/init/begin", "/machine/", "/machine/webclient/wait/1/to/2/3"])
async def test_what_nobody_knows_is_not_found(served: Served, path: str) -> None:
    status, _, _ = await (await served.link(1)).ask(path, b"{}", method="GET")
    assert status == 404


async def test_a_client_that_says_how_it_feels_is_thanked(served: Served) -> None:
    status, text, _ = await (await served.link(1)).ask("/machine/update-health", b'{"Subsys":"x"}')
    assert (status, text) == (204, b"")


async def test_a_body_that_is_not_read_does_not_hold_the_connection(served: Served) -> None:
    link = await served.link(1)
    for _ in range(3):
        status, _, _ = await link.ask("/machine/id-token", b"x" * 300_000)
        assert status == 501
    assert (await link.ask("/machine/whoami", method="GET"))[0] == 200
