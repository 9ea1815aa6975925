"""The server's own account of itself, passed on as it is."""

import httpx2
from tests.support.world import World

from doorward.api.types import Finding


async def test_status_and_doctor(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    await world.join(1, "laptop", "ann")
    await world.ask(2, "phone")
    status = (await admin.get("/status")).json()
    assert (status["users"], status["nodes"], status["online"], status["waiting"]) == (1, 1, 0, 1)
    assert status["parts"][1]["cure"]
    world.findings.append(Finding(level="error", subject="door", message="no certificate", cure="Make one."))
    findings = (await admin.get("/doctor")).json()
    assert [each["level"] for each in findings] == ["ok", "error"]
