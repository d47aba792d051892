"""A server within, for caller.py on the host's kernel. Ends when it is told to. "user": behind published ports."""
import socket, struct, threading, os, sys, time

over = threading.Event()


def talk(c):
    try:
        word = c.recv(4)
        if word == b"echo":
            while data := c.recv(1 << 16):
                c.sendall(data)
        elif word == b"send":
            n, = struct.unpack("!I", c.recv(4))
            part = bytes(range(256)) * 256
            while n > 0:
                n -= c.send(part[:n])
        elif word == b"sink":
            n = 0
            while data := c.recv(1 << 16):
                n += len(data)
            c.sendall(b"%d" % n)
        elif word == b"rset":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif word == b"over":
            over.set()
    except OSError as e:
        print("within:", e)
    c.close()


def serve(s):
    while True:
        c, who = s.accept()
        threading.Thread(target=talk, args=(c,), daemon=True).start()


both = socket.create_server(("::", 7), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
USER = "user" in sys.argv
four = socket.create_server(("" if USER else "10.99.0.2", 8))
# One that nobody accepts from.
deaf = socket.create_server(("0.0.0.0", 9), backlog=1)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.bind(("::", 7))


def datagrams():
    while True:
        data, who = u.recvfrom(1 << 16)
        u.sendto(data, who)


group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group.bind(("", 70))
if not USER:
    group.setsockopt(socket.SOL_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("10.99.0.2"))


def members():
    while True:
        data, who = group.recvfrom(1 << 16)
        group.sendto(b"member:" + data, who)


for of, args in ((serve, (both,)), (serve, (four,)), (datagrams, ()), (members, ())):
    threading.Thread(target=of, args=args, daemon=True).start()
over.wait(120)
