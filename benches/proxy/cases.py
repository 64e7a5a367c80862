"""What is measured, of every proxy that can do it."""

import dataclasses

CHUNKS = 64
GAP_MS = 5
ANSWER_BYTES = 100
POST_BYTES = 1024
# HTTP/2: as many requests at once as there are connections of wrk, on fewer connections.
H2_STREAMS = 8
# Opened before idle connections are counted, for what a proxy makes once: pools, arenas, connections to the backend.
IDLE_FIRST = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """A load: by which client it is made, what that one asks for, and over what."""

    title: str
    client: str
    ask: str = "get"
    tls: bool = False
    workers: int = 1

    @property
    def full(self):
        """Whether the client asks as fast as it is answered, so that the proxy's core should be full."""
        return self.client in ("wrk", "h2load", "tls-load")

    @property
    def paced(self):
        """Whether requests come at a rate that is given."""
        return self.client == "paced-load"

    @property
    def idle(self):
        """Whether it is about memory, not about CPU time."""
        return self.client == "idle-load"


CASES = {
    "get": Case("GET, answer of 100 bytes", "wrk"),
    "post": Case("POST of 1 KB, answer of 100 bytes", "wrk", "post"),
    "post64k": Case("POST of 64 KB, answer of 100 bytes", "wrk", "post64k"),
    "chat": Case("chat completion asked for with 1 KB", "wrk", "chat"),
    "sse": Case("SSE stream of 64 chunks", "sse-load", "sse"),
    "tls": Case("GET over TLS, connections kept", "wrk", tls=True),
    "tls-new": Case("GET over TLS, a connection and a full handshake each", "tls-load", tls=True),
    "h2": Case("GET over HTTP/2 and TLS", "h2load", tls=True),
    "get-half": Case("GET at half load", "paced-load", "get"),
    "sse-half": Case("first event of a stream at half load", "paced-load", "sse"),
    "get-two": Case("GET, two workers on two cores", "wrk", workers=2),
    "idle": Case("idle connection, HTTP/1.1", "idle-load", "http1"),
    "idle-tls": Case("idle connection, HTTP/1.1 over TLS", "idle-load", "tls", tls=True),
    "idle-h2": Case("idle connection, HTTP/2 over TLS", "idle-load", "h2", tls=True),
}
