"""A WebSocket client as anyone uses it: only its address is Tradewind's. Called by tests/websocket.rs.

    client.py SCENARIO ADDRESS
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def talk(address):
    """Text, bytes, large and many messages, pings, subprotocols, how it ends."""
    headers = {"x-own": "kept"}
    url = f"ws://{address}/chat?a=b"
    async with connect(url, subprotocols=["trade"], additional_headers=headers, max_size=None) as socket:
        assert socket.subprotocol == "trade"
        assert socket.response.headers["x-request-id"]
        await socket.send("path")
        assert await socket.recv() == "/chat?a=b kept"
        for message in ("hello", "\u00e9", b"\x00\xff", "x" * 3_000_000, bytes(3_000_000), ""):
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
        for n in range(1000):
            await socket.send(str(n))
        assert [await socket.recv() for _ in range(1000)] == [str(n) for n in range(1000)]
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("it goes on")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as the client wants it"), closed

    async with connect(url, subprotocols=["trade"], additional_headers=headers) as socket:
        await socket.send("break")
        try:
            await socket.recv()
            raise AssertionError("it goes on")
        except ConnectionClosed as closed:
            assert closed.rcvd is None, closed

    try:
        await connect(f"ws://{address}/refused", subprotocols=["trade"])
        raise AssertionError("it was accepted")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused


async def hold(address):
    """Stays until the other side ends."""
    async with connect(f"ws://{address}/", subprotocols=["trade"]) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        print("begun", flush=True)
        for line in sys.stdin:
            await socket.send(line.strip())
            print(await socket.recv(), flush=True)


def main():
    scenario, address = sys.argv[1:]
    asyncio.run({"talk": talk, "hold": hold}[scenario](address))
    print(f"passed {scenario}", flush=True)


main()
