"""The C-core gRPC client, as anyone uses it: only its address is Tradewind's. Called by tests/grpc.rs.

    client.py SCENARIO ADDRESS
"""

import queue
import sys

import grpc
import numpy
import tritonclient.grpc

PATH = "/test.Service/"


def fails(call, code):
    """The error that a call ends with, which must have this code."""
    try:
        result = call()
        result = result if isinstance(result, bytes) else list(result)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"it gave {result!r}")


def calls(channel, address):
    """All four kinds of call, metadata, errors and deadlines."""
    unary = channel.unary_unary(PATH + "Unary")
    assert unary(b"hello") == b"echo hello"
    big = bytes(3_000_000)
    assert unary(big) == b"echo " + big

    answer, call = unary.with_call(b"metadata", metadata=(("x-own", "kept"),))
    assert answer == b"kept"
    assert ("x-first", "1") in call.initial_metadata(), call.initial_metadata()
    assert ("x-last-bin", b"\x00\xff") in call.trailing_metadata(), call.trailing_metadata()

    error = fails(lambda: unary(b"fail"), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "as the test wants it: \u00e9", error

    # The deadline reaches the server, and ends the call on both sides.
    left = float(unary(b"deadline", timeout=100))
    assert 50 < left <= 101, left
    fails(lambda: unary(b"slow", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)

    server_stream = channel.unary_stream(PATH + "ServerStream")
    assert list(server_stream(b"100")) == [b"%d" % n for n in range(100)]
    broken = server_stream(b"3")
    got = [next(broken), next(broken), next(broken)]
    assert got == [b"0", b"1", b"2"], got
    fails(lambda: broken, grpc.StatusCode.DATA_LOSS)

    client_stream = channel.stream_unary(PATH + "ClientStream")
    assert client_stream(iter([b"a", b"b", b"c"])) == b"a,b,c"

    # Message by message: the second one is only sent when the first was answered.
    questions = queue.SimpleQueue()
    answers = channel.stream_stream(PATH + "Both")(iter(questions.get, None))
    for n in range(5):
        questions.put(b"%d" % n)
        assert next(answers) == b"echo %d" % n
    questions.put(None)
    assert list(answers) == []

    fails(lambda: channel.unary_unary("/test.Service/Nothing")(b""), grpc.StatusCode.UNIMPLEMENTED)


def triton(channel, address):
    """KServe's inference protocol, by Triton's own client."""
    client = tritonclient.grpc.InferenceServerClient(address)
    assert client.is_server_live()
    values = numpy.array([[1, 2, 3]], dtype=numpy.int32)
    tensor = tritonclient.grpc.InferInput("IN", values.shape, "INT32")
    tensor.set_data_from_numpy(values)
    result = client.infer("wind", [tensor], request_id="7")
    assert (result.as_numpy("OUT") == values).all(), result.get_response()
    assert result.get_response().id == "7"


def refused(channel, address):
    """What Tradewind itself says is said in gRPC."""
    error = fails(lambda: channel.unary_unary(PATH + "Unary")(b"x"), grpc.StatusCode.UNAVAILABLE)
    assert "No backend" in error.details(), error
    error = fails(lambda: channel.unary_unary("/elsewhere.Service/Unary")(b"x"), grpc.StatusCode.UNIMPLEMENTED)
    assert "No route" in error.details(), error


def broken(channel, address):
    """A server that goes within a stream is an error, and never the end of the stream."""
    stream = channel.unary_stream(PATH + "Endless")(b"")
    assert next(stream) == b"x"
    print("begun", flush=True)
    fails(lambda: stream, grpc.StatusCode.UNAVAILABLE)


def main():
    scenario, address = sys.argv[1:]
    # Its own attempts would hide what Tradewind does.
    options = (("grpc.enable_retries", 0),)
    with grpc.insecure_channel(address, options) as channel:
        {"calls": calls, "triton": triton, "refused": refused, "broken": broken}[scenario](channel, address)
    print(f"passed {scenario}", flush=True)


main()
