"""Checks that a proxy answers right, over everything that it is measured over, before anything is measured."""

import contextlib
import http.client
import json
import ssl

from cases import ANSWER_BYTES, CASES, CHUNKS, POST_BYTES
from processes import Failure


def verify(proxy, load, certificate):
    """Raises Failure at the first wrong answer; returns what was seen. Without a certificate, nothing is asked over TLS."""
    seen = {}
    if "chat" in proxy.cases:
        verify_chat(proxy.port)
        seen["chat"] = True
    if "get" in proxy.cases:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
            verify_kept(connection)
        seen |= verify_streams(proxy.port, load)
    if certificate and any(CASES[name].tls for name in proxy.cases):
        seen |= verify_tls(proxy.tls_port, certificate)
        verify_http2(proxy.tls_port, load)
    return seen


def verify_chat(port):
    """Asks for a chat completion twice over one connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        for _ in range(2):
            asked = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "Whence?"}]})
            connection.request("POST", "/v1/chat/completions", body=asked, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200 or json.loads(text)["choices"][0]["message"]["content"] != "A fair wind.":
                raise Failure(f"a chat completion was answered with status {answer.status} and {text[:300]!r}")


def verify_kept(connection):
    """Checks GET, POST and another GET over one connection."""
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


def verify_streams(port, load):
    """Checks two streams, one after the other over one connection."""
    stream = load.sse(port, each=2, streams=1)
    if stream["events"] != 2 * CHUNKS or stream["streamed"] != 2:
        raise Failure(f"{stream['streamed']} of 2 streams gave their first event before the last was sent, with "
                      f"{stream['events']} events in all; expected 2 and {2 * CHUNKS}")
    return {"status": 200, "body_bytes": ANSWER_BYTES, "post_bytes": POST_BYTES, "keep_alive": True,
            "events_per_stream": CHUNKS, "http_chunks_per_stream": stream["http_chunks"] / 2,
            "first_event_ms": stream["first_event_us"]["max"] / 1000, "stream_ms": stream["stream_us"]["p50"] / 1000}


def verify_tls(port, certificate):
    """The same over TLS 1.3, from the holder of our certificate."""
    context = ssl.create_default_context(cafile=certificate)
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)) as connection:
        verify_kept(connection)
        version = connection.sock.version()
    if version != "TLSv1.3":
        raise Failure(f"a connection over TLS came to {version}, expected TLSv1.3")
    return {"tls": version}


def verify_http2(port, load):
    """Checks that nghttp, which speaks nothing but HTTP/2, gets what it asks for; then many requests at once."""
    body = load.directory / "body"
    body.write_bytes(b"x" * POST_BYTES)
    for arguments, sent in (((), 0), ((f"--data={body}",), POST_BYTES)):
        got = load.output("nghttp", 1, *arguments, f"https://127.0.0.1:{port}/")
        wanted = f'{{"received":{sent}}}'.ljust(ANSWER_BYTES)
        if got != wanted:
            raise Failure(f"nghttp got `{got[:300]}` over HTTP/2 for {sent} bytes, expected `{wanted.strip()}` and blanks up to "
                          f"{ANSWER_BYTES} bytes")
    load.run("h2", port, 1)
