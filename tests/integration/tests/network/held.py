"""Holds a connection until it is reset, then makes another."""
import socket, sys, time


def connect():
    for _ in range(200):
        try:
            return socket.create_connection(("10.99.0.2", 7), 2)
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nobody there")


c = connect()
c.sendall(b"echox")
assert c.recv(1) == b"x"
print("held", flush=True)
sys.stdin.read()
try:
    # What is sent finds nobody; the answer to it is a reset.
    while True:
        c.sendall(b"y")
        time.sleep(0.05)
except ConnectionError:
    print("reset", flush=True)
c = connect()
c.sendall(b"echoz")
assert c.recv(1) == b"z"
print("again", flush=True)
