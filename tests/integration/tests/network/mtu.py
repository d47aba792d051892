"""A path whose second link takes 1300 bytes: what sockets are told of it."""
import errno
import hashlib
import os
import select
import socket
import struct
import time

ERRQUEUE = 0x2000
DONT, WANT, DO, PROBE, INTERFACE, OMIT = range(6)
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 0")
FAMILIES = (
    ("four", socket.AF_INET, "10.98.0.2", socket.IPPROTO_IP, 14, 10, 11, 28),
    ("six", socket.AF_INET6, "fd98::2", socket.IPPROTO_IPV6, 24, 23, 25, 48),
)


def told(name, f):
    try:
        print(name, f())
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e))


def ready(s, event=select.POLLIN, wait=5000):
    p = select.poll()
    p.register(s, event)
    return bool(p.poll(wait))


def back(s, wait=5000):
    return s.recv(100) if ready(s, wait=wait) else "nothing"


def queue(s):
    """What waits in the queue of errors."""
    while True:
        try:
            data, along, flags, who = s.recvmsg(3000, 500, ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError as e:
            print("  queue", errno.errorcode[e.errno])
            return
        for level, kind, raw in along:
            number, origin, of, code, pad, info, rest = struct.unpack("IBBBBII", raw[:16])
            print("  queue", len(data), level, kind, errno.errorcode[number], origin, of, code, info, who[:2])


for name, family, host, level, MTU, DISCOVER, RECVERR, headers in FAMILIES:
    print("--", name)

    def udp(how=None, connect=True):
        s = socket.socket(family, socket.SOCK_DGRAM)
        if how is not None:
            s.setsockopt(level, DISCOVER, how)
        if connect:
            s.connect((host, 7))
        return s

    fresh = udp(connect=False)
    told("how", lambda: fresh.getsockopt(level, DISCOVER))
    told("unconnected", lambda: fresh.getsockopt(level, MTU))
    told("none such", lambda: fresh.setsockopt(level, DISCOVER, 6))
    s, probe, listens = udp(DO), udp(PROBE), udp()
    told("before", lambda: s.getsockopt(level, MTU))
    told("too long for the device", lambda: s.send(bytes(1501 - headers)))
    told("as long as the device takes", lambda: probe.send(bytes(1500 - headers)))
    ready(probe, 0)
    told("probe", lambda: probe.send(b"x"))
    told("probe again", lambda: probe.send(b"x"))
    told("echo", lambda: back(probe))
    # What one has learned all know.
    told("probe's", lambda: probe.getsockopt(level, MTU))
    told("too long", lambda: s.send(bytes(1301 - headers)))
    told("after", lambda: s.getsockopt(level, MTU))
    told("fits", lambda: s.send(bytes(1300 - headers)))
    told("echo", lambda: back(s))
    told("probes again", lambda: probe.send(bytes(1301 - headers)))
    ready(probe, 0)
    told("error", lambda: errno.errorcode.get(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
    # In pieces.
    for how in (None, DONT, WANT, OMIT):
        p = udp(how)
        p.send(bytes(1400))
        told(f"in pieces {how}", lambda: back(p, 5000 if how != OMIT or family == socket.AF_INET else 300))
    p.close()
    far = udp(INTERFACE)
    told("interface", lambda: far.send(bytes(1400)))
    told("interface, too long", lambda: far.send(bytes(1501 - headers)))
    told("echo", lambda: back(far, 5000 if family == socket.AF_INET else 300))
    big = udp()
    told("long", lambda: big.send(bytes(30000)))
    told("echo", lambda: back(big))
    # Errors in a queue.
    e = udp(PROBE)
    e.setsockopt(level, RECVERR, 1)
    told("sent", lambda: e.send(bytes(1400)))
    ready(e, 0)
    queue(e)
    told("too long", lambda: e.send(bytes(2000)))
    queue(e)
    e.setsockopt(level, DISCOVER, DO)
    told("too long", lambda: e.send(bytes(1400)))
    queue(e)
    ping = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6)
    asks = b"\x08" if family == socket.AF_INET else b"\x80"
    ping.setsockopt(level, DISCOVER, DO)
    told("ping", lambda: ping.sendto(asks.ljust(1301 - headers + 8, b"\0"), (host, 0)))
    told("ping", lambda: ping.sendto(asks.ljust(1300 - headers + 8, b"\0"), (host, 0)))
    told("answer", lambda: ready(ping) and len(ping.recv(3000)))
    told("no answer to what was not sent", lambda: ready(ping, wait=100))
    if family == socket.AF_INET6:
        n = udp()
        n.setsockopt(level, 62, 1)
        told("no pieces", lambda: n.send(bytes(1400)))
        n.setsockopt(level, 62, 0)
        told("pieces of 1290", lambda: n.setsockopt(level, 24, 1290))
        told("pieces too small", lambda: n.setsockopt(level, 24, 1279))
        told("sent", lambda: n.send(bytes(1400)))
        told("echo", lambda: back(n))
        told("path", lambda: struct.unpack("I", n.getsockopt(level, 61, 32)[28:]))
    # Connections find their way.
    c = socket.create_connection((host, 7), 10)
    c.settimeout(20)
    data, got, sent = os.urandom(1_000_000), hashlib.md5(), 0
    length = 0
    while length < len(data):
        if sent < len(data):
            sent += c.send(data[sent : sent + 60_000])
        part = c.recv(1 << 16)
        got.update(part)
        length += len(part)
    print("a connection", got.digest() == hashlib.md5(data).digest())
    told("its packets", lambda: c.getsockopt(level, MTU))
    c.close()
