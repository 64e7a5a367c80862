"""The load: the clients that make it, and what it costs the proxy."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

from cases import ANSWER_BYTES, CASES, CHUNKS, GAP_MS, H2_STREAMS
from processes import Failure, cpu_ns, ended_children_ns, machine_busy_ns

HERE = pathlib.Path(__file__).resolve().parent


class Load:
    """Makes requests from cores that it shares with the backend."""

    def __init__(self, backend, programs, cores, directory, options):
        self.backend, self.programs, self.cores, self.directory = backend, programs, cores, directory
        self.connections, self.streams = options.connections, options.streams
        # Requests a second of the cases that are paced.
        self.rates = {}

    def run(self, name, port, seconds):
        """Loads a port for about `seconds` (at least 1) and returns the figures of the client. Raises Failure."""
        client = {"wrk": self.wrk, "h2load": self.h2load, "tls-load": self.tls_new, "paced-load": self.paced,
                  "sse-load": self.streams_of}[CASES[name].client]
        figures = client(name, port, seconds)
        if not figures["requests"]:
            raise Failure("no request was answered")
        return figures

    def wrk(self, name, port, seconds):
        scheme = "https" if CASES[name].tls else "http"
        figures = json_of(self.output("wrk", seconds, "--threads", 1, "--connections", self.connections, "--duration",
                                      f"{seconds}s", "--latency", "--script", HERE / f"wrk-{CASES[name].ask}.lua",
                                      f"{scheme}://127.0.0.1:{port}/"))
        if figures["wrong"]:
            raise Failure(f"{figures['wrong']} of {figures['requests']} answers were wrong or missing")
        return figures

    def h2load(self, _name, port, seconds):
        log = self.directory / "h2load.log"
        log.unlink(missing_ok=True)  # h2load adds to what is there
        connections = max(1, self.connections // H2_STREAMS)
        said = self.output("h2load", seconds, "--clients", connections, "--max-concurrent-streams", H2_STREAMS, "--duration",
                           seconds, f"--log-file={log}", "--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519",
                           f"https://127.0.0.1:{port}/")
        figures = read_h2load(said)
        times_us = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        if len(times_us) < 2:
            raise Failure("h2load got no answer")
        percentiles = statistics.quantiles(times_us, n=100, method="inclusive")
        return figures | {"seconds": seconds, "p50_us": percentiles[49], "p99_us": percentiles[98], "max_us": times_us[-1]}

    def tls_new(self, _name, port, seconds):
        figures = self.checked("tls-load", seconds, "--target", f"127.0.0.1:{port}", "--connections", self.connections,
                               "--seconds", seconds)
        return figures | {f"{key}_us": value for key, value in figures.pop("request_us").items()}

    def paced(self, name, port, seconds):
        ask = CASES[name].ask
        # Of streams twice as many as are open at full load: one that finds none free waits, which is for the slow to feel.
        connections = self.connections if ask == "get" else 2 * self.streams
        return self.checked("paced-load", seconds, "--target", f"127.0.0.1:{port}", "--ask", ask, "--rate",
                            self.rates[name], "--seconds", seconds, "--connections", connections, "--chunks", CHUNKS)

    def streams_of(self, _name, port, seconds):
        return self.sse(port, max(1, round(seconds * 1000 / ((CHUNKS + 1) * GAP_MS))))

    def sse(self, port, each, streams=None):
        """Opens streams at the same time, `each` times, and returns the figures of the client. Raises Failure."""
        figures = self.checked("sse-load", each, "--target", f"127.0.0.1:{port}", "--streams", streams or self.streams,
                               "--each", each, "--chunks", CHUNKS, "--stagger-ms", GAP_MS)
        return figures | {"requests": figures["streams"]}

    def checked(self, program, seconds, *arguments):
        """Runs one of the clients of tools/, which check every answer, and returns its figures. Raises Failure."""
        figures = json_of(self.output(program, seconds, *arguments))
        if figures["failed"]:
            raise Failure(f"{figures['failed']} connections failed; the first: {figures['failure']}")
        return figures

    def output(self, program, seconds, *arguments):
        """What a client prints. Raises Failure with its last words if it prints nothing, or does not end."""
        try:
            ran = subprocess.run(self.command(program, *arguments), capture_output=True, text=True, timeout=seconds + 60,
                                 env=os.environ | {"OPENSSL_CONF": str(HERE / "config" / "openssl.cnf")})
        except subprocess.TimeoutExpired:
            raise Failure(f"`{program}` did not end within {seconds + 60} s") from None
        if not ran.stdout.strip():
            raise Failure(f"`{program}` failed with code {ran.returncode}: {ran.stderr.strip()[-300:]}")
        return ran.stdout

    def command(self, program, *arguments):
        """A client's command line on the cores of the load."""
        pinned = ["taskset", "--cpu-list", self.cores, "setpriv", "--pdeathsig", "TERM", self.programs[program], *arguments]
        return list(map(str, pinned))


def json_of(text):
    """The last line, which is JSON."""
    try:
        return json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        raise Failure(f"a client printed no figures: {text.strip()[-300:]}") from None


def read_h2load(text):
    """Requests that h2load saw answered. Raises Failure if one was not answered right over HTTP/2: status, length of the body."""
    def number(pattern):
        found = re.search(pattern, text)
        if not found:
            raise Failure(f"h2load did not say `{pattern}`: {text.strip()[-300:]}")
        return int(found[1])

    requests, right = number(r"(\d+) done"), number(r"status codes: (\d+) 2xx")
    wrong = number(r"(\d+) failed") + number(r"(\d+) errored") + number(r"(\d+) timeout")
    body_bytes = number(r"space savings [^)]*\), [^ ]+ \((\d+)\) data")
    if "Application protocol: h2\n" not in text:
        raise Failure("h2load and the proxy did not agree on HTTP/2")
    # A body may have arrived of an answer that the end of the run cut off.
    if wrong or right != requests or body_bytes < requests * ANSWER_BYTES:
        raise Failure(f"of {requests} answers over HTTP/2 {right} had status 2xx and {wrong} failed, with {body_bytes} bytes of "
                      f"bodies; expected {ANSWER_BYTES} each")
    return {"requests": requests, "body_bytes": body_bytes}


def answers(port, path):
    """Whether a GET of this path is answered with 200."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def measure(proxy, name, load, seconds):
    """One sample: the load, and the CPU time that the proxy's processes took for it. Raises Failure."""
    pids = proxy.process.pids()

    def clocks():
        load_ns = cpu_ns(load.backend.pids()) + ended_children_ns()
        return cpu_ns(pids), load_ns, machine_busy_ns(), time.monotonic_ns()

    before = clocks()
    try:
        figures = load.run(name, proxy.port_of(name), seconds)
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
    if CASES[name].client == "sse-load":
        sample["cpu_us_per_chunk"] = cpu_us / CHUNKS
        sample["chunks_kept_share"] = figures["http_chunks"] / figures["events"]
    return sample
