"""From within to the other end (peer.py). "user": behind sockets of the caller's, where the own addresses are others."""
import array, errno, fcntl, hashlib, os, select, socket, struct, sys, tempfile, time

USER = "user" in sys.argv

ENDS = ((socket.AF_INET, "10.99.0.1"), (socket.AF_INET6, "fd99::1"))


def told(name, of):
    try:
        print(name, of())
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e))


def everything(c):
    data = b""
    while part := c.recv(1 << 16):
        data += part
    return data


def echo(family, host, size):
    c = socket.create_connection((host, 7), 10)
    c.settimeout(20)
    data = os.urandom(size)
    c.sendall(b"echo")
    back, sent = b"", 0
    while len(back) < size:
        if sent < size:
            sent += c.send(data[sent:sent + 60_000])
        back += c.recv(1 << 16)
    c.shutdown(socket.SHUT_WR)
    return back == data, c.recv(1)


for family, host in ENDS:
    print("--", host)
    for size in (1, 1000, 1460, 70_000, 1_000_000):
        told(f"echo {size}", lambda: echo(family, host, size))

    c = socket.create_connection((host, 7), 10)
    c.sendall(b"send" + struct.pack("!I", 20_000_000))
    print("received", hashlib.md5(everything(c)).hexdigest())

    c = socket.create_connection((host, 7), 10)
    c.sendall(b"sink")
    c.setblocking(True)
    f = tempfile.TemporaryFile()
    f.write(bytes(range(256)) * 40_000)
    f.flush()
    sent = 0
    while sent < 10_240_000:
        sent += os.sendfile(c.fileno(), f.fileno(), sent, 10_240_000 - sent)
    c.shutdown(socket.SHUT_WR)
    print("sendfile", sent, everything(c))

    c = socket.create_connection((host, 7), 10)
    c.sendall(b"half")
    print("their end", everything(c))
    c.sendall(b"x" * 5000)
    c.close()

    c = socket.create_connection((host, 7), 10)
    c.sendall(b"rset")
    time.sleep(0.2)
    told("reset", lambda: c.recv(9))
    told("after", lambda: c.recv(9))
    told("send after", lambda: c.send(b"x"))

    c = socket.create_connection((host, 7), 10)
    print("names", c.getpeername()[:2], USER or c.getsockname()[0])
    c.sendall(b"wait")
    c.setblocking(False)
    told("not yet", lambda: c.recv(9))
    ep = select.epoll()
    ep.register(c, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    print("events", [e for _, e in ep.poll(5)], [e for _, e in ep.poll(5)])
    print("peek", c.recv(2, socket.MSG_PEEK), c.recv(9))
    # The end comes later, and is an event of its own.
    print("at the end", [e & (select.EPOLLIN | select.EPOLLRDHUP) for _, e in ep.poll(5)], c.recv(9))

    told("refused", lambda: socket.create_connection((host, 81), 5))
    c = socket.socket(family)
    c.setblocking(False)
    print("begun", errno.errorcode[c.connect_ex((host, 81))])
    p = select.poll()
    p.register(c, select.POLLOUT)
    print("poll", p.poll(5000)[0][1], errno.errorcode[c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])

    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(5)
    u.connect((host, 7))
    for size in (0, 1, 1400, 9000, 40_000):
        data = os.urandom(size)
        u.send(data)
        print("udp", size, u.recv(1 << 16) == data)
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(2)
    u.connect((host, 82))
    u.send(b"nobody")
    time.sleep(0.2)
    told("udp refused", lambda: u.recv(9))
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(2)
    level, option = (socket.SOL_IP, 11) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 25)
    u.setsockopt(level, option, 1)
    u.sendto(b"nobody", (host, 82))
    time.sleep(0.2)
    data, control, flags, who = u.recvmsg(100, 500, socket.MSG_ERRQUEUE)
    print("error queue", data, who[:2], [(l, k, d[:8].hex()) for l, k, d in control], flags)

    # Many at once.
    many = [socket.create_connection((host, 7), 10) for _ in range(200)]
    for c in many:
        c.sendall(b"echo" + b"%d" % c.fileno())
    print("many", all(int(c.recv(100)) == c.fileno() for c in many))
    for c in many:
        c.close()

    # One that does not read for a while: what is sent waits, and none of it is lost.
    c = socket.create_connection((host, 7), 10)
    c.sendall(b"slow")
    c.setblocking(False)
    n, first = 0, None
    while n < 30_000_000:
        try:
            n += c.send(b"y" * 50_000)
        except BlockingIOError:
            first = first or n > 0
            select.select([], [c], [], 10)
    print("slow", n >= 30_000_000, first)
    c.setblocking(True)
    c.shutdown(socket.SHUT_WR)
    print(c.recv(1))

print("-- elsewhere")
begin = time.monotonic()
told("nobody's address", lambda: socket.create_connection(("10.99.0.66", 7), 10))
print("took", 2 < time.monotonic() - begin < 6)
told("no way", lambda: socket.create_connection(("10.98.0.1", 7), 0.5))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(3)
if not USER:
    told("broadcast forbidden", lambda: u.sendto(b"all", ("10.99.0.255", 7)))
    u.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    u.sendto(b"all", ("10.99.0.255", 7))
    print("broadcast", u.recvfrom(100))
    u.setsockopt(socket.SOL_IP, 10, 2)
    told("too long", lambda: u.sendto(b"z" * 1473, ("10.99.0.1", 7)))
    told("just fits", lambda: u.sendto(b"z" * 1472, ("10.99.0.1", 7)))
    print(len(u.recv(9999)))
# To oneself by one's own address.
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("10.99.0.1", 9))
own = own.getsockname()[0]
s = socket.create_server((own, 0))
c = socket.create_connection(s.getsockname(), 5)
a, who = s.accept()
a.sendall(b"self")
print("self", c.recv(9), who[0] == own, c.getsockname()[0] == own)
# Behind sockets of the caller's anybody sends them: by one of datagrams, without the header.
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if USER else socket.SOCK_RAW, socket.IPPROTO_ICMP)
ping.settimeout(3)
ping.sendto(struct.pack("!BBHHH", 8, 0, ~(0x0800 + 7 + 1) & 0xffff, 7, 1), ("10.99.0.1", 0))
data, who = ping.recvfrom(100)
print("ping", who[0], data[:2] + data[6:] if USER else (data[9], data[20:22], data[24:28]))
if USER:
    raise SystemExit


def queued(s):
    data, control, flags, who = s.recvmsg(2000, 500, socket.MSG_ERRQUEUE)
    return data[:2], len(data), who[0], [(l, k, d[:12].hex()) for l, k, d in control], flags


# Errors about packets of sockets without ports, raw ones and those of ping, beside UDP's. Nobody is found to be there for all at once.
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 0")
waiting = []
for family, host, none, level, option, discover, own in (
        (socket.AF_INET, "10.99.0.1", "10.99.0.67", socket.SOL_IP, 11, 10, socket.IPPROTO_ICMP),
        (socket.AF_INET6, "fd99::1", "fd99::67", socket.IPPROTO_IPV6, 25, 23, socket.IPPROTO_ICMPV6)):
    echo = bytes((8 if family == socket.AF_INET else 128, 0, 0, 0, 0, 7, 0, 1))
    for kind, number in ((socket.SOCK_RAW, own), (socket.SOCK_RAW, 253), (socket.SOCK_DGRAM, own), (socket.SOCK_DGRAM, 17)):
        s = socket.socket(family, kind, number)
        s.setsockopt(level, option, 1)
        s.setsockopt(level, discover, 2)
        name = f"{family.name} {kind.name} {number}"
        port = 7 if number == 17 else 0
        told(name + " too long", lambda: s.sendto(echo + bytes(1500), (host, port)))
        told(name + " told", lambda: queued(s))
        told(name + " sent", lambda: s.sendto(echo, (none, port)))
        waiting.append((name, s))
    # Who has not asked and is not connected is told nothing; who is connected is told what stands.
    s = socket.socket(family, socket.SOCK_RAW, 252)
    s.settimeout(0.3)
    told("not connected", lambda: (s.sendto(b"12345678", (host, 0)), s.recv(100))[1])
    s.connect((host, 0))
    told("connected", lambda: (s.send(b"12345678"), s.recv(100))[1])
    told("about too little", lambda: (s.send(b"1234567"), s.recv(100))[1])
    s.setsockopt(level, discover, 0)
    told("too long, in pieces", lambda: s.send(bytes(3000)))
for name, s in waiting:
    p = select.poll()
    p.register(s, 0)
    print(name, [e for _, e in p.poll(8000)])
    told(name + " nobody there", lambda: queued(s))
    told(name + " no more", lambda: queued(s))
    print(name + " error", s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
