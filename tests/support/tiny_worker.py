"""A real worker that answers each connection on its public socket with its process id. How it fails is its payload."""

import asyncio
import os
import subprocess

from doorward.engine.processes import tied_to_us
from doorward.errors import Conflict
from doorward.server.child import Child


async def main(child: Child) -> None:
    said = child.payload.decode()
    if said == "refuse":
        raise Conflict("the store is newer than this doorward", cure="Update it.", place="/data/doorward.db")
    if said == "exit":
        os._exit(3)
    if said == "hang":
        await child.stop.wait()
        return
    helper = subprocess.Popen(tied_to_us(["/bin/sleep", "60"]))  # noqa: ASYNC220 - it returns at once
    reloads = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reloads
        if (await reader.readline()) == b"die\n":
            os._exit(9)
        reloads += child.reload.is_set()
        child.reload.clear()
        writer.write(f"{os.getpid()} {helper.pid} {reloads}\n".encode())
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(answer, sock=one) for one in child.sockets["public"]]
    child.ready()
    if said == "deaf":
        await asyncio.sleep(60)
    await child.stop.wait()
    helper.kill()
    for server in servers:
        server.close()
