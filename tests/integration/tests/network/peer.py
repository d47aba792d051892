"""The other end: echoes TCP and UDP, and does odd things when asked. Runs on the host's kernel."""
import socket, struct, sys, threading, time


def exactly(c, n):
    data = b""
    while len(data) < n:
        part = c.recv(n - len(data))
        if not part:
            break
        data += part
    return data


def talk(c):
    word = exactly(c, 4)
    if word == b"echo":
        while data := c.recv(1 << 16):
            c.sendall(data)
    elif word == b"sink":
        n = 0
        while data := c.recv(1 << 16):
            n += len(data)
        c.sendall(b"%d" % n)
    elif word == b"send":
        n, = struct.unpack("!I", exactly(c, 4))
        part = bytes(range(256)) * 256
        while n > 0:
            n -= c.send(part[:n])
    elif word == b"rset":
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif word == b"half":
        # Ends its side first, and tells afterwards what came.
        c.sendall(b"first")
        c.shutdown(socket.SHUT_WR)
        data = b""
        while part := c.recv(1 << 16):
            data += part
        print("half", len(data), flush=True)
    elif word == b"slow":
        time.sleep(0.5)
        n = 0
        while data := c.recv(1 << 12):
            n += len(data)
        print("slow", n, flush=True)
    elif word == b"wait":
        time.sleep(0.3)
        c.sendall(b"late")
        time.sleep(0.3)
    c.close()


def tcp(family, host):
    s = socket.create_server((host, 7), family=family, backlog=128)
    while True:
        c, _ = s.accept()
        threading.Thread(target=talk, args=(c,), daemon=True).start()


def udp(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.bind((host, 7))
    while True:
        data, who = s.recvfrom(1 << 16)
        s.sendto(data, who)


for what in (tcp, udp):
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        if family == socket.AF_INET6:
            host = "fd99::1"
        threading.Thread(target=what, args=(family, host), daemon=True).start()
time.sleep(0.2)
print("ready", flush=True)
time.sleep(600)
