"""Holds a connection until it is reset, then makes another."""
import socket, sys, time


def connect():
    for _ in range(200):
        try:
            c = socket.create_connection(("10.99.0.2", 7), 2)
            # At a published port nobody may listen yet.
            c.sendall(b"echox")
            if c.recv(1) == b"x":
                return c
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("nobody there")


c = connect()
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
c.sendall(b"z")
assert c.recv(1) == b"z"
print("again", flush=True)
