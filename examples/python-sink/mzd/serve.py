"""Serves a plugin of mzd. plugin.proto of the project says what happens here."""
import os
import sys
from concurrent import futures

import grpc

from mzd.v1 import plugin_pb2_grpc

PROTOCOL = "1"
MAX_MESSAGE = 33 << 20  # the largest row, and its envelope
MAX_STREAMS = 256  # each holds a thread: one for each view of a sink


def serve(plugin, add_to_server):
    """Serves plugin, a Servicer of Plugin and of what add_to_server adds, until mzd ends."""
    if os.environ.get("MZD_PLUGIN") != "the last mile of a streaming database":
        sys.exit(f"{sys.argv[0]} is a plugin of mzd, which runs it itself: name it in pipeline.yaml")
    if PROTOCOL not in os.environ["PLUGIN_PROTOCOL_VERSIONS"].split(","):
        sys.exit(f"{sys.argv[0]} speaks version {PROTOCOL} of the protocol, and mzd does not")
    if "PLUGIN_CLIENT_CERT" in os.environ:
        sys.exit('Python cannot use the certificates of mzd: write "tls: off" beside "plugin:"')
    server = grpc.server(futures.ThreadPoolExecutor(MAX_STREAMS),
                         options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)])
    plugin_pb2_grpc.add_PluginServicer_to_server(plugin, server)
    add_to_server(plugin, server)
    health = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")  # status: SERVING
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health})])
    path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "plugin.sock")
    server.add_insecure_port("unix:" + path)
    server.start()
    print(f"1|{PROTOCOL}|unix|{path}|grpc|", flush=True)
    sys.stdin.read()  # it ends when mzd has, however that was
    os._exit(0)
