"""One run: a server, the churn, a sample now and then, and the verdict."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.soak.churn import Churn
from tests.soak.measured import Sample, sample, table, verdict
from tests.support.server import Server
from tests.support.simulated import administrator


class Found(NamedTuple):
    """The outcome of a run."""

    samples: list[Sample]
    faults: list[str]
    what: str

    def report(self) -> str:
        """All of it for people."""
        return "\n\n".join([table(self.samples), self.what, *(self.faults or ["nothing grows"])])


async def soak(
    *,
    seconds: float,
    nodes: int,
    every: float,
    seed: int,
    pace: float = 1.0,
    judge: Callable[[Sequence[Sample]], list[str]] = verdict,
    say: Callable[[str], object] | None = None,
) -> Found:
    """Run for so long, counted from when every node is in. ``say`` is told each sample."""
    loop = asyncio.get_running_loop()
    samples: list[Sample] = []
    async with Server(environ={"DOORWARD_TAILSCALED": "off"}, level="warning") as server:
        worker = server.worker_pid()
        churn = Churn(server, nodes, seed, pace)
        ready = asyncio.Event()
        async with administrator(server) as api, asyncio.TaskGroup() as group:
            running = group.create_task(churn.run(ready))
            await ready.wait()
            began = loop.time()
            while True:
                now = loop.time() - began
                metrics = (await api.get("http://localhost/metrics")).text
                samples.append(await asyncio.to_thread(sample, worker, server.folder, now, metrics))
                if say is not None:
                    say(str(samples[-1]._replace(rows={})))
                if now >= seconds:
                    break
                await asyncio.sleep(min(every, max(0.1, seconds - now)))
            running.cancel()
        faults = judge(samples)
        if server.worker_pid() != worker:
            faults.append("the worker died")
        log = server.log.read_text(encoding="utf-8", errors="replace")
        faults += [
            f"in the log: {line[:300]}"
            for line in log.splitlines()
            if "[error" in line or "Traceback" in line
        ][:5]
        what = f"{nodes} nodes: {churn.sentence()}\nrefused: {churn.troubles()}"
        return Found(samples, faults, what)
