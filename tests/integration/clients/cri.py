#!/usr/bin/python3
"""A client of Kubernetes' Container Runtime Interface for cri.sh, as the kubelet is one: requests by gRPC on a daemon's socket, exec and
attach by the WebSocket that the daemon then names.

CRI_SOCKET: the daemon's socket. CRI_TYPES: cri.proto as `protoc --descriptor_set_out` made it.
    call METHOD REQUEST [PATH]       a request in JSON; what is printed of the answer is at PATH (`status.state`)
    exec [-s SECONDS] ID COMMAND...  ExecSync: its streams and its exit status become ours
    stream [-i] [-t] [-w ROWS COLUMNS] ID COMMAND...  Exec, with our input (-i), a terminal (-t) and its size (-w)
    attach [-t] ID                   Attach, with our input; ends when what the container prints ends
"""

import argparse
import json
import os
import sys
import threading

import grpc
import websocket
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

LIMIT = 60  # seconds for any request


class Service:
    """The daemon's methods, as cri.proto has them."""

    def __init__(self, socket, types):
        with open(types, "rb") as file:
            described = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for file in described.file:
            pool.Add(file)
        self.methods = pool.FindServiceByName("runtime.v1.RuntimeService").methods_by_name
        self.messages = message_factory.MessageFactory(pool)
        self.channel = grpc.insecure_channel("unix:" + socket)

    def call(self, name, request):
        """Asks with a dictionary, answers with a message."""
        method = self.methods[name]
        asked, answered = (self.messages.GetPrototype(d) for d in (method.input_type, method.output_type))
        call = self.channel.unary_unary(
            f"/{method.containing_service.full_name}/{name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        return call(json_format.ParseDict(request, asked()), timeout=LIMIT)


def at(value, path):
    """What a dictionary has at a path, as text."""
    for part in path.split(".") if path else ():
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value if isinstance(value, str) else json.dumps(value)


# The first byte of each message of `v4.channel.k8s.io` says what the rest belongs to.
STDIN, STDOUT, STDERR, STATUS, SIZE = range(5)


def stream(url, feed, size=None):
    """Joins our streams to those behind the URL until they end; the exit status that came, if one did."""
    peer = websocket.create_connection(
        url.replace("http", "ws", 1), subprotocols=["v4.channel.k8s.io"], timeout=LIMIT, http_no_proxy=["*"]
    )

    def say(channel, content):
        peer.send_binary(bytes([channel]) + content)

    def input():
        # This protocol has no word for the end of the input: the peer just gets no more.
        while content := os.read(0, 4096):
            say(STDIN, content)

    if size:
        say(SIZE, json.dumps({"Height": size[0], "Width": size[1]}).encode())
    if feed:
        threading.Thread(target=input, daemon=True).start()
    status = 0
    while True:
        opcode, content = peer.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE or not content:
            return status
        channel, content = content[0], content[1:]
        if channel in (STDOUT, STDERR):
            os.write(1 if channel == STDOUT else 2, content)
        elif channel == STATUS and content:
            status = ended(json.loads(content))


def ended(status):
    """The exit status that a Kubernetes `Status` tells of."""
    if status["status"] == "Success":
        return 0
    for cause in status.get("details", {}).get("causes", ()):
        if cause["reason"] == "ExitCode":
            return int(cause["message"])
    print(status.get("message"), file=sys.stderr)
    return 255


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    call = verbs.add_parser("call")
    call.add_argument("method")
    call.add_argument("request", type=json.loads)
    call.add_argument("path", nargs="?", default="")
    sync = verbs.add_parser("exec")
    sync.add_argument("-s", dest="seconds", type=int, default=0)
    streamed, attach = verbs.add_parser("stream"), verbs.add_parser("attach")
    streamed.add_argument("-i", dest="input", action="store_true")
    streamed.add_argument("-w", dest="size", type=int, nargs=2)
    for verb in (streamed, attach):
        verb.add_argument("-t", dest="terminal", action="store_true")
    for verb in (sync, streamed, attach):
        verb.add_argument("id")
    for verb in (sync, streamed):
        verb.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def main():
    a = arguments()
    service = Service(os.environ["CRI_SOCKET"], os.environ["CRI_TYPES"])
    if a.verb == "call":
        answer = json_format.MessageToDict(
            service.call(a.method, a.request), including_default_value_fields=True, preserving_proto_field_name=True
        )
        print(at(answer, a.path))
        return 0
    if a.verb == "exec":
        done = service.call("ExecSync", {"container_id": a.id, "cmd": a.command, "timeout": a.seconds})
        os.write(1, done.stdout)
        os.write(2, done.stderr)
        return done.exit_code
    # A terminal has one output, not two.
    what = {"container_id": a.id, "tty": a.terminal, "stdout": True, "stderr": not a.terminal}
    if a.verb == "attach":
        return stream(service.call("Attach", {**what, "stdin": True}).url, True)
    return stream(service.call("Exec", {**what, "cmd": a.command, "stdin": a.input}).url, a.input, a.size)


try:
    sys.exit(main())
except grpc.RpcError as e:
    sys.exit(f"{e.code().name}: {e.details()}")
