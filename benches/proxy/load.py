"""The load: what is asked, how it is checked, and what it costs the proxy."""

import http.client
import json
import os
import pathlib
import subprocess
import time

from processes import Failure, cpu_ns, ended_children_ns, machine_busy_ns

HERE = pathlib.Path(__file__).resolve().parent
CASES = {"get": "GET, answer of 100 bytes", "post": "POST of 1 KB, answer of 100 bytes",
         "post64k": "POST of 64 KB, answer of 100 bytes", "chat": "chat completion asked for with 1 KB",
         "sse": "SSE stream of 64 chunks"}
CHUNKS = 64
GAP_MS = 5
ANSWER_BYTES = 100
POST_BYTES = 1024


class Load:
    """Makes requests from cores of its own, where the backend runs too."""

    def __init__(self, backend, wrk, sse_load, cores, connections, streams):
        self.backend, self.wrk, self.sse_load, self.cores = backend, wrk, sse_load, cores
        self.connections, self.streams = connections, streams

    def run(self, case, port, seconds):
        """Loads a port for about `seconds` (at least 1) and returns the figures of the client. Raises Failure."""
        if case == "sse":
            return self.sse(port, max(1, round(seconds * 1000 / ((CHUNKS + 1) * GAP_MS))))
        command = [self.wrk, "--threads", "1", "--connections", self.connections, "--duration", f"{seconds}s",
                   "--latency", "--script", HERE / f"wrk-{case}.lua", f"http://127.0.0.1:{port}/"]
        figures = self.json_of(command, seconds)
        if figures["wrong"] or not figures["requests"]:
            raise Failure(f"{figures['wrong']} of {figures['requests']} answers were wrong or missing")
        return figures

    def sse(self, port, each, streams=None):
        """Opens streams at the same time, `each` times, and returns the figures of the client. Raises Failure."""
        streams = streams or self.streams
        command = [self.sse_load, "--target", f"127.0.0.1:{port}", "--streams", streams, "--each", each,
                   "--chunks", CHUNKS, "--stagger-ms", GAP_MS]
        figures = self.json_of(command, each)
        if figures["failed"]:
            raise Failure(f"{figures['failed']} of {streams} connections failed; the first: {figures['failure']}")
        return figures | {"requests": figures["streams"]}

    def json_of(self, command, seconds):
        """Runs a client and returns the last line that it printed, which is JSON."""
        pinned = ["taskset", "--cpu-list", self.cores, "setpriv", "--pdeathsig", "TERM", *map(str, command)]
        ran = subprocess.run(pinned, capture_output=True, text=True, timeout=seconds + 60)
        try:
            return json.loads(ran.stdout.strip().rpartition("\n")[2])
        except ValueError:
            raise Failure(f"`{command[0]}` failed with code {ran.returncode}: {ran.stderr.strip()[-300:]}") from None


def answers(port, path):
    """Whether a GET of this path is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def verify(port, load, cases):
    """Checks that what a proxy answers is right before it is measured. Raises Failure; returns what was seen."""
    seen = {}
    if "chat" in cases:
        verify_chat(port)
        seen["chat"] = True
    return seen | verify_any(port, load) if "get" in cases else seen


def verify_chat(port):
    """Asks for a chat completion twice over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(2):
        asked = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "Whence?"}]})
        connection.request("POST", "/v1/chat/completions", body=asked, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200 or json.loads(text)["choices"][0]["message"]["content"] != "A fair wind.":
            raise Failure(f"a chat completion was answered with status {answer.status} and {text[:300]!r}")
    connection.close()


def verify_any(port, load):
    """Checks GET, POST and the stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for method, body in (("GET", None), ("POST", b"x" * POST_BYTES), ("GET", None)):
        connection.request(method, "/", body=body)
        answer = connection.getresponse()
        text = answer.read()
        received = json.loads(text).get("received") if answer.status == 200 else None
        wanted = (200, ANSWER_BYTES, len(body or b""), False)
        if (answer.status, len(text), received, answer.will_close) != wanted:
            seen = (answer.status, len(text), received, answer.will_close)
            raise Failure(f"a {method} was answered with {seen}, expected {wanted}: status, bytes of the answer, bytes that "
                          "the backend received, whether the connection closes")
    connection.close()
    stream = load.sse(port, each=2, streams=1)
    if stream["events"] != 2 * CHUNKS or stream["streamed"] != 2:
        raise Failure(f"{stream['streamed']} of 2 streams gave their first event before the last was sent, with "
                      f"{stream['events']} events in all; expected 2 and {2 * CHUNKS}")
    return {"status": 200, "body_bytes": ANSWER_BYTES, "post_bytes": POST_BYTES, "keep_alive": True,
            "events_per_stream": CHUNKS, "http_chunks_per_stream": stream["http_chunks"] / 2,
            "first_event_ms": stream["first_event_us"]["max"] / 1000, "stream_ms": stream["stream_us"]["p50"] / 1000}


def measure(proxy, case, load, seconds):
    """One sample: the load, and the CPU time that the proxy's processes took for it. Raises Failure."""
    pids = proxy.process.pids()

    def clocks():
        load_ns = cpu_ns(load.backend.pids()) + ended_children_ns()
        return cpu_ns(pids), load_ns, machine_busy_ns(), time.monotonic_ns()

    before = clocks()
    try:
        figures = load.run(case, proxy.port, seconds)
    finally:
        proxy.process.require_running()  # an end of the process explains more than the failed requests that follow from it
    cpu, load_cpu, busy, wall = (after - was for after, was in zip(clocks(), before))
    if proxy.process.pids() != pids:
        raise Failure("its processes changed during the measurement, so that their CPU time is not known")
    cpu_us = cpu / 1000 / figures["requests"]
    sample = figures | {"cpu_s": cpu / 1e9, "wall_s": wall / 1e9, "cpu_us_per_request": cpu_us,
                        "requests_per_s": figures["requests"] * 1e9 / wall, "core_share": cpu / wall,
                        "load_cpu_s": load_cpu / 1e9,
                        "others_share": max(0.0, (busy - cpu - load_cpu) / wall / os.cpu_count())}
    if case == "sse":
        sample["cpu_us_per_chunk"] = cpu_us / CHUNKS
        sample["chunks_kept_share"] = figures["http_chunks"] / figures["events"]
    return sample
