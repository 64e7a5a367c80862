"""Memory that a proxy holds for connections on which nothing happens."""

import contextlib
import json
import subprocess
import threading
import time

from cases import CASES, IDLE_FIRST
from processes import Failure

# Memory has come to rest when it has not changed for so long.
REST_S = 2
REST_WITHIN_S = 30
# Ten thousand handshakes take seconds, on a busy machine a minute.
OPEN_WITHIN_S = 180


def measure(proxy, name, load, connections):
    """One sample: bytes of resident memory for each of so many connections, at a proxy that has just started. Raises Failure."""
    command = load.command("idle-load", "--target", f"127.0.0.1:{proxy.port_of(name)}", "--ask", CASES[name].ask,
                           "--first", IDLE_FIRST, "--more", connections)
    with holding(command) as client:
        expect_open(client, IDLE_FIRST)
        before = at_rest(proxy)
        go_on(client)
        expect_open(client, IDLE_FIRST + connections)
        after = at_rest(proxy)
        go_on(client)
        # Only what was open all the time was measured.
        expect_open(client, IDLE_FIRST + connections)
    return {"bytes_per_connection": (after - before) * 1024 / connections, "connections": connections,
            "memory_before_kib": before, "memory_after_kib": after}


@contextlib.contextmanager
def holding(command):
    """A client that holds connections until it is told to go on; ended in any case, after some minutes too."""
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = threading.Timer(2 * OPEN_WITHIN_S, client.kill)
    limit.start()
    try:
        yield client
    finally:
        limit.cancel()
        client.kill()
        client.communicate()


def go_on(client):
    client.stdin.write("\n")
    client.stdin.flush()


def expect_open(client, wanted):
    """Waits until the client says how many connections are open. Raises Failure if it isn't so many."""
    line = client.stdout.readline()
    if not line:
        raise Failure(f"idle-load could not open {wanted} connections: {client.stderr.read().strip()[-300:]}")
    if (found := json.loads(line)["open"]) != wanted:
        raise Failure(f"{found} of {wanted} connections stayed open")


def at_rest(proxy):
    """Resident memory in KiB, once it stays the same."""
    last, since, began = None, time.monotonic(), time.monotonic()
    while time.monotonic() - since < REST_S:
        proxy.process.require_running()
        now = proxy.process.memory_kib()
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - began > REST_WITHIN_S:
            raise Failure(f"its memory did not come to rest within {REST_WITHIN_S} s")
        time.sleep(0.1)
    return last
