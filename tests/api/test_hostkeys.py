"""Host keys that an administrator pins."""

import httpx2
from tests.support.consoles import HOST_KEY, furnish
from tests.support.world import World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


async def test_keys_are_pinned_and_taken_back(world: World, admin: httpx2.AsyncClient) -> None:
    await furnish(world)
    assert (await admin.get("/nodes/laptop/host-keys")).json() == {
        "node": "laptop",
        "published": [],
        "pinned": [],
    }
    made = (await admin.post("/nodes/laptop/host-keys", json={"pin": [f"{KEY} root@laptop"]})).json()
    (pinned,) = made["pinned"]
    assert (pinned["key"], pinned["actor"]) == (KEY, "cli")
    assert pinned["fingerprint"].startswith("SHA256:")
    assert (await admin.get("/nodes/laptop/host-keys")).json() == made
    gone = await admin.post("/nodes/laptop/host-keys", json={"unpin": [KEY]})
    assert gone.json()["pinned"] == []
    assert (await admin.post("/nodes/laptop/host-keys", json={"pin": ["x"]})).status_code == 400
    published = (await admin.get("/nodes/server/host-keys")).json()["published"]
    assert published
    assert HOST_KEY.startswith(published[0][:40])
