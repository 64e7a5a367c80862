"""A WebSocket server on a port of its own choice: says its address on the first line, and ends when standard input does."""

import asyncio
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def answer(socket):
    while True:
        try:
            message = await socket.recv()
        except ConnectionClosed:
            return
        if message == "close":
            await socket.close(4001, "as the client wants it")
        elif message == "break":
            socket.transport.abort()
        elif message == "path":
            await socket.send(f"{socket.request.path} {socket.request.headers['x-own']}")
        else:
            await socket.send(message)


def probe(connection, request):
    """Probes are plain requests."""
    if request.path == "/health":
        return connection.respond(200, "")
    if request.path == "/refused":
        return connection.respond(403, "not here")
    return None


async def main():
    async with serve(
        answer, "127.0.0.1", 0, process_request=probe, subprotocols=["trade"], max_size=None
    ) as server:
        host, port = server.sockets[0].getsockname()
        print(f"{host}:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
