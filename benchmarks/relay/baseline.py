"""The least that a proxy in Python can be: aiohttp on both sides, uvloop, no key, no parsing, no money.

`python -m benchmarks.relay.baseline PORT UPSTREAM_PORT`. What it does per second on a core is the ceiling
for everything written on aiohttp.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Send the body on, and the answer back."""
    session, upstream = request.app[SESSION], f"http://127.0.0.1:{sys.argv[2]}{request.path}"
    headers = {"content-type": "application/json", "authorization": request.headers["authorization"]}
    async with session.post(upstream, data=await request.read(), headers=headers) as answer:
        if answer.content_type != "text/event-stream":
            return web.Response(
                body=await answer.read(), status=answer.status, content_type="application/json"
            )
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def serve() -> None:
    """Until killed."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app = web.Application()
        app[SESSION] = session
        app.router.add_post("/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
