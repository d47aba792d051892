"""Calls server.py from the host's kernel; what it prints is what is compared."""
import errno, hashlib, os, socket, struct, sys, threading, time

USER = "user" in sys.argv

ENDS = ((socket.AF_INET, "10.99.0.2"), (socket.AF_INET6, "fd99::2"))


def told(name, of):
    try:
        print(name, of())
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e))


def connect(host, port, limit=10):
    return socket.create_connection((host, port), limit)


for _ in range(200):
    try:
        # Who calls at a published port is let in, and turned away if nobody listens.
        c = connect("10.99.0.2", 7, 1)
        c.sendall(b"echox")
        if c.recv(1):
            break
    except OSError:
        time.sleep(0.1)
c.close()


def everything(c):
    data = b""
    while part := c.recv(1 << 16):
        data += part
    return data


for family, host in ENDS:
    print("--", host)
    for size in (1, 1448, 100_000):
        c = connect(host, 7)
        data = os.urandom(size)
        c.sendall(b"echo")
        threading.Thread(target=c.sendall, args=(data,), daemon=True).start()
        back = b""
        while len(back) < size:
            back += c.recv(1 << 16)
        c.shutdown(socket.SHUT_WR)
        print("echo", size, back == data, c.recv(1))
    c = connect(host, 7)
    c.sendall(b"send" + struct.pack("!I", 20_000_000))
    print("received", hashlib.md5(everything(c)).hexdigest())
    c = connect(host, 7)
    c.sendall(b"sink" + bytes(10_000_000))
    c.shutdown(socket.SHUT_WR)
    print("sunk", everything(c))
    c = connect(host, 7)
    c.sendall(b"rset")
    told("reset", lambda: c.recv(9))
    many = [connect(host, 7) for _ in range(300)]
    for c in many:
        c.sendall(b"echo" + b"%d" % c.fileno())
    print("many", all(int(c.recv(100)) == c.fileno() for c in many))
    for c in many:
        c.close()
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(5)
    u.connect((host, 7))
    for size in (0, 1, 9000):
        data = os.urandom(size)
        u.send(data)
        print("udp", size, u.recv(1 << 16) == data)
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(2)
    u.connect((host, 82))
    u.send(b"nobody")
    time.sleep(0.2)
    told("udp refused", lambda: u.recv(9))
    told("refused", lambda: connect(host, 81))
told("one address", lambda: connect("10.99.0.2", 8).getpeername())
if not USER:
    told("not the other", lambda: connect("fd99::2", 8))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.settimeout(5)
    u.setsockopt(socket.SOL_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.99.0.1"))
    u.sendto(b"hello", ("239.1.2.3", 70))
    print("group", u.recvfrom(100))
# A queue that is full lets nobody in, and forgets nobody.
waiting = []
for n in range(8):
    c = socket.socket()
    c.setblocking(False)
    c.connect_ex(("10.99.0.2", 9))
    waiting.append(c)
    # One after the other: of several at once Linux, too, may answer more than it has room for.
    time.sleep(0.1)
time.sleep(0.5)
let_in = [c for c in waiting if not c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and c in __import__("select").select([], waiting, [], 0)[1]]
# Who is published waits with the host.
print("let in", USER or len(let_in))
for c in waiting:
    c.close()
c = connect("10.99.0.2", 7)
c.sendall(b"over")
print("over", c.recv(1))
