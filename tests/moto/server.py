"""moto's EC2 on a port of its own choice: says its address on the first line, and ends when standard input does."""

import logging
import sys

from moto.server import ThreadedMotoServer

# Every request would be a line on standard error.
logging.getLogger("werkzeug").setLevel(logging.WARNING)

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"{host}:{port}", flush=True)
sys.stdin.read()
server.stop()
