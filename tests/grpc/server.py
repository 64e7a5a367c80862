"""A gRPC server on a port of its own choice: says its address on the first line, and ends when standard input does.

Messages are bytes, so that nothing has to be generated. It also serves KServe's inference protocol, for Triton's client.
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


def unary(request, context):
    if request == b"metadata":
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        return dict(context.invocation_metadata())["x-own"].encode()
    if request == b"deadline":
        return str(context.time_remaining()).encode()
    if request == b"slow":
        # Until the client has given up, which ends the call here, too.
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(20)
        return b"late"
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as the test wants it: \u00e9")
    return b"echo " + request


def server_stream(request, context):
    for n in range(int(request)):
        yield b"%d" % n
    if request == b"3":
        context.abort(grpc.StatusCode.DATA_LOSS, "after three")


def client_stream(requests, context):
    return b",".join(requests)


def both(requests, context):
    for request in requests:
        yield b"echo " + request


def endless(request, context):
    """Until the server ends."""
    while context.is_active():
        yield b"x"
        time.sleep(0.01)


class Inference(service_pb2_grpc.GRPCInferenceServiceServicer):
    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ModelInfer(self, request, context):
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        output = response.outputs.add(name="OUT", datatype="INT32", shape=request.inputs[0].shape)
        del output
        response.raw_output_contents.append(request.raw_input_contents[0])
        return response


def main():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


main()
