# What a program finds in the host's own network, with another program of the host's at its loopback addresses (host_other.py).
import hashlib
import select
import socket
import struct
import sys
import threading

V4, V6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
OTHER = ("127.0.0.1", 9999)


def told(name, act):
    try:
        result = act()
    except OSError as e:
        result = e.strerror
    print(name, result, flush=True)
    return result


def is_at(s, *rest):
    """Where it is, but for a port that is by chance."""
    at = s.getsockname()
    return (at[0], "some port" if at[1] and at[1] not in rest else at[1])


def sock(family=V4, kind=TCP, *options):
    s = socket.socket(family, kind)
    for option in options:
        s.setsockopt(*option, 1)
    s.settimeout(20)
    return s


REUSE, SHARE = (socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT)
ONLY6 = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)

print("places")
for kind in TCP, UDP:
    s = sock(V4, kind)
    told("before", s.getsockname)
    told("bind", lambda: s.bind(("127.0.0.1", 0)))
    told("name", lambda: is_at(s))
    told("again", lambda: s.bind(("127.0.0.1", 0)))
    told("beside", lambda: sock(V4, kind).bind(s.getsockname()))
    told("at another address", lambda: sock(V4, kind).bind(("127.0.0.2", s.getsockname()[1])))
    told("with any", lambda: sock(V4, kind).bind(("", s.getsockname()[1])))
    told("of the other program", lambda: sock(V4, kind).bind(OTHER))
    told("of the other program, reusing", lambda: sock(V4, kind, REUSE, SHARE).bind(OTHER))
    told("of nobody here", lambda: sock(V4, kind).bind(("192.0.2.1", 0)))
    told("of an interface", lambda: sock(V4, kind).bind(("10.99.0.2", 0)))
    a, b = sock(V4, kind, SHARE), sock(V4, kind, SHARE)
    a.bind(("127.0.0.1", 0))
    told("shared", lambda: b.bind(a.getsockname()))
    port = s.getsockname()[1]
    s.close()
    told("given back", lambda: sock(V4, kind).bind(("127.0.0.1", port)))
    six = sock(V6, kind)
    told("both families", lambda: six.bind(("::", 0)))
    told("taken by both", lambda: sock(V4, kind).bind(("", six.getsockname()[1])))
    six = sock(V6, kind, ONLY6)
    told("one family", lambda: six.bind(("::", 0)))
    told("beside it", lambda: sock(V4, kind).bind(("", six.getsockname()[1])))
    low = sock(V4, kind)
    if told("low", lambda: low.bind(("127.0.0.1", 97))) is None:
        told("low twice", lambda: sock(V4, kind).bind(("127.0.0.1", 97)))
        told("low elsewhere", lambda: sock(V4, kind).bind(("192.0.2.1", 97)))
        told("low of both", lambda: sock(V6, kind).bind(("::", 98)))

print("connections")
l = sock(V4, TCP, REUSE)
told("listen unbound", l.listen)
told("name", lambda: is_at(l))
told("listen twice", lambda: l.listen(3))
for family, to in (V4, "127.0.0.1"), (V4, "127.8.8.8"), (V4, "10.99.0.2"), (V4, "0.0.0.0"), (V6, "::ffff:127.0.0.1"):
    c = sock(family)
    told(to, lambda: c.connect((to, l.getsockname()[1])))
    a, whence = l.accept()
    told("ends", lambda: (c.getpeername()[0], a.getsockname()[0], whence[0], whence[1] == c.getsockname()[1]))
    c.sendall(b"to and")
    told("there", lambda: a.recv(9))
    a.sendall(b"fro")
    told("here", lambda: c.recv(9))
    c.shutdown(socket.SHUT_WR)
    told("end", lambda: a.recv(9))
    a.close()
    told("end", lambda: c.recv(9))
c = sock()
c.bind(("127.0.0.5", 0))
port = c.getsockname()[1]
told("from a place", lambda: c.connect(l.getsockname()[:1] + (l.getsockname()[1],)))
told("from there", lambda: l.accept()[1] == ("127.0.0.5", port))
c = sock()
c.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
c.bind(("127.0.0.6", 0))
told("no port yet", c.getsockname)
told("connect", lambda: c.connect(("127.0.0.1", l.getsockname()[1])))
told("now", lambda: is_at(c))
l.accept()
told("nobody", lambda: sock().connect(("127.0.0.1", 1)))
told("nobody of IPv6", lambda: sock(V6).connect(("::1", 1)))
told("nowhere", lambda: sock().connect(("192.0.2.1", 1)))
c = sock()
c.setblocking(False)
told("without waiting", lambda: c.connect(("127.0.0.1", l.getsockname()[1])))
told("name", lambda: is_at(c))
told("it comes", lambda: select.select([], [c], [], 20)[1] == [c])
told("how", lambda: c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
c = sock()
c.setblocking(False)
told("in vain", lambda: c.connect(("127.0.0.1", 1)))
select.select([], [c], [], 20)
told("how", lambda: c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
told("once more", lambda: (c.setblocking(True), c.connect(("127.0.0.1", l.getsockname()[1])))[1])
six = sock(V6)
six.bind(("::", 0))
six.listen()
for to in ("127.0.0.1", "::1"):
    c = socket.create_connection((to, six.getsockname()[1]))
    told("seen by both", lambda: six.accept()[1][0])
c = sock()
c.connect(("127.0.0.1", six.getsockname()[1]))
a, _ = six.accept()
a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
a.close()
told("reset", lambda: c.recv(1))
c = sock()
c.connect(("127.0.0.1", six.getsockname()[1]))
a, _ = six.accept()
c.close()
told("gone", lambda: a.recv(1))
told("it does not know yet", lambda: a.send(b"x"))
p = select.poll()
p.register(a, 0)
told("now it does", lambda: p.poll(20000) != [])
told("nothing goes", lambda: a.send(b"x"))

print("much")
a, _ = [c := socket.create_connection(("127.0.0.1", six.getsockname()[1])), None][1] or six.accept()
block = bytes(range(256)) * 4096


def pour():
    for _ in range(20):
        c.sendall(block)
    c.shutdown(socket.SHUT_WR)


thread = threading.Thread(target=pour)
thread.start()
digest, total = hashlib.sha256(), 0
while data := a.recv(100000):
    digest.update(data)
    total += len(data)
thread.join()
print(total, digest.hexdigest()[:16])
six.listen(200)
many = [threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", six.getsockname()[1])).sendall(b"1")) for _ in range(100)]
for m in many:
    m.start()
print("callers", sum(int(six.accept()[0].recv(1)) for _ in many))

print("the host's other program")
c = sock()
told("connect", lambda: c.connect(OTHER))
s = sock()
s.bind(("127.0.0.1", 0))
s.listen()
c.sendall(struct.pack("!BH", 1, s.getsockname()[1]))
a, _ = s.accept()
told("it calls here", lambda: a.recv(100))
u = sock(V4, UDP)
u.bind(("", 0))
c.sendall(struct.pack("!BH", 2, u.getsockname()[1]))
told("and here", lambda: u.recvfrom(100))
s.close()
a.close()
c.sendall(struct.pack("!BH", 1, s.fileno() & 0 or 3))
told("nobody listens", lambda: c.recv(100))

print("datagrams")
u = sock(V4, UDP)
told("send", lambda: u.sendto(b"hello", OTHER))
told("name", lambda: is_at(u))
told("answer", lambda: u.recvfrom(100))
told("connect", lambda: u.connect(OTHER))
told("name", lambda: is_at(u))
told("send", lambda: u.send(b"again"))
told("answer", lambda: u.recvfrom(100))
v = sock(V4, UDP)
v.sendto(b"stranger", u.getsockname())
u.setblocking(False)
told("a stranger", lambda: u.recv(100))
w = sock(V4, UDP)
told("nobody", lambda: w.connect(("127.0.0.1", 1)))
told("send", lambda: w.send(b"a"))
told("refused", lambda: w.recv(10))
told("on", lambda: w.connect(OTHER))
told("send", lambda: w.send(b"on"))
told("answer", lambda: w.recv(10))
told("nowhere", lambda: w.connect(("192.0.2.1", 1)))
told("still", lambda: (w.send(b"still"), w.recv(10)))
x = sock(V6, UDP)
x.bind(("::", 0))
for family, to in (V4, "127.0.0.1"), (V6, "::1"):
    v = sock(family, UDP)
    v.sendto(b"to both", (to, x.getsockname()[1]))
    data, whence = x.recvfrom(100)
    told("from", lambda: (data, whence[0]))
    x.sendto(b"back", whence)
    told("back", lambda: v.recv(100))
big = sock(V4, UDP)
big.bind(("127.0.0.1", 0))
v = sock(V4, UDP)
for size in 0, 1, 9000, 65507:
    v.sendto(b"x" * size, big.getsockname())
    told("size", lambda: len(big.recv(70000)))
told("too long", lambda: v.sendto(b"x" * 65508, big.getsockname()))
told("broadcast", lambda: v.sendto(b"x", ("10.99.0.255", 9)))
v.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
told("broadcast", lambda: v.sendto(b"x", ("10.99.0.255", 9)))

print("what there is")
told("names", lambda: sorted(name for _, name in socket.if_nameindex()))
sys.exit(0)
