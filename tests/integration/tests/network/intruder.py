"""Calls server.py, of which rules let only some be reached: what comes of each try."""
import errno, os, socket, struct, subprocess, sys, time

V4, V6 = (socket.AF_INET, "10.99.0.2"), (socket.AF_INET6, "fd99::2")


def told(name, of):
    try:
        print(name, of(), flush=True)
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e), flush=True)


def tcp(host, port):
    c = socket.create_connection((host, port), 1.5)
    c.settimeout(10)
    data = os.urandom(100_000)
    c.sendall(b"echo")
    c.sendall(data)
    c.shutdown(socket.SHUT_WR)
    back = b""
    while part := c.recv(1 << 16):
        back += part
    return back == data


def udp(family, host, port, size=100):
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(1.5)
    u.connect((host, port))
    data = os.urandom(size)
    u.send(data)
    return u.recv(1 << 16) == data


def ping(family, host):
    kind, protocol = (8, socket.IPPROTO_ICMP) if family == socket.AF_INET else (128, socket.IPPROTO_ICMPV6)
    s = socket.socket(family, socket.SOCK_RAW, protocol)
    s.settimeout(1.5)
    number = os.getpid() & 0xffff
    total = (kind << 8) + number + 1
    total = (total & 0xffff) + (total >> 16)
    s.sendto(struct.pack("!BBHHH", kind, 0, ~total & 0xffff, number, 1), (host, 0))
    while True:
        data, _ = s.recvfrom(1000)
        data = data[20:] if family == socket.AF_INET else data
        if data[0] == (0 if family == socket.AF_INET else 129):
            return data[4:8] == struct.pack("!HH", number, 1)


def segment(flags):
    """A segment of no connection: whether anything is said of it."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    s.settimeout(1)
    head = struct.pack("!HHIIBBHHH", 4000 + flags, 8, 1, 1, 5 << 4, flags, 1000, 0, 0)
    pseudo = socket.inet_aton("10.99.0.1") + socket.inet_aton("10.99.0.2") + struct.pack("!HH", 6, len(head))
    total = sum(struct.unpack(f"!{len(pseudo + head) // 2}H", pseudo + head))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    s.sendto(head[:16] + struct.pack("!H", ~total & 0xffff) + head[18:], ("10.99.0.2", 0))
    end = time.monotonic() + 1
    while time.monotonic() < end:
        data, who = s.recvfrom(1000)
        if who[0] == "10.99.0.2" and data[20:24] == struct.pack("!HH", 8, 4000 + flags):
            return data[33]


for _ in range(200):
    try:
        socket.create_connection(("10.99.0.2", 7), 1).close()
        break
    except OSError:
        time.sleep(0.1)
for family, host in (V4, V6):
    print("--", host)
    told("tcp 7", lambda: tcp(host, 7))
    told("tcp 8", lambda: tcp(host, 8))
    told("udp 7", lambda: udp(family, host, 7))
    told("udp 7, in pieces", lambda: udp(family, host, 7, 9000))
    told("udp 70", lambda: udp(family, host, 70))
    told("ping", lambda: ping(family, host))
told("ack", lambda: segment(16))
told("fin", lambda: segment(1))
print("-- over", flush=True)
# Who waits at our input looks at counters before it ends.
sys.stdin.read()
c = socket.create_connection(("10.99.0.2", 7), 5)
c.sendall(b"over")
c.recv(1)
