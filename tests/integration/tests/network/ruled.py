"""Calls peer.py from where rules let only some of it pass: what comes of each try."""
import errno, os, socket, struct

V4, V6 = (socket.AF_INET, "10.99.0.1"), (socket.AF_INET6, "fd99::1")


def told(name, of):
    try:
        print(name, of(), flush=True)
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e), flush=True)


def tcp(host, port):
    c = socket.create_connection((host, port), 10)
    c.settimeout(10)
    data = os.urandom(100_000)
    c.sendall(b"echo" + data)
    c.shutdown(socket.SHUT_WR)
    back = b""
    while part := c.recv(1 << 16):
        back += part
    return back == data


def udp(family, host, port, size=100):
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(1)
    u.connect((host, port))
    data = os.urandom(size)
    try:
        u.send(data)
    except PermissionError:
        # A host's rule tells the caller, too.
        pass
    return u.recv(1 << 16) == data


def ping(family, host):
    kind, protocol = (8, socket.IPPROTO_ICMP) if family == socket.AF_INET else (128, socket.IPPROTO_ICMPV6)
    s = socket.socket(family, socket.SOCK_RAW, protocol)
    s.settimeout(1)
    # A number of our own: to the host's kernel another's answer would be ours.
    number = os.getpid() & 0xffff
    total = (kind << 8) + number + 1
    total = (total & 0xffff) + (total >> 16)
    try:
        s.sendto(struct.pack("!BBHHH", kind, 0, ~total & 0xffff, number, 1), (host, 0))
    except PermissionError:
        pass
    while True:
        data, _ = s.recvfrom(1000)
        data = data[20:] if family == socket.AF_INET else data
        if data[0] == (0 if family == socket.AF_INET else 129):
            return data[4:8] == struct.pack("!HH", number, 1)


for family, host in (V4, V6):
    print("--", host)
    told("tcp 7", lambda: tcp(host, 7))
    told("tcp 81", lambda: tcp(host, 81))
    told("udp 7", lambda: udp(family, host, 7))
    told("udp 7, in pieces", lambda: udp(family, host, 7, 9000))
    told("udp 82", lambda: udp(family, host, 82))
    told("ping", lambda: ping(family, host))
print("-- elsewhere")
told("nobody", lambda: tcp("10.99.0.66", 7))
told("in other clothes", lambda: tcp("::ffff:10.99.0.1", 7))
told("in other clothes, elsewhere", lambda: tcp("::ffff:10.99.0.1", 9))
s = socket.create_server(("127.0.0.1", 0))
told("oneself", lambda: bool(socket.create_connection(s.getsockname(), 5)))
