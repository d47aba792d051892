"""Asks for names that have too many addresses for a datagram, and by streams of its own."""
import errno, socket, struct, sys, time

NAMES = sys.argv[1]

print(len(socket.getaddrinfo("yes", 80, socket.AF_INET, socket.SOCK_STREAM)))
print(socket.getaddrinfo("no", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])


def question(name, number=7):
    q = struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name.encode() + b"\0\0\1\0\1"
    return struct.pack("!H", len(q)) + q


def read(c, n):
    data = b""
    while len(data) < n and (part := c.recv(n - len(data))):
        data += part
    return data


def answer(c):
    n, = struct.unpack("!H", read(c, 2))
    data = read(c, n)
    return n, data[:2].hex(), struct.unpack("!H", data[6:8])[0]


def told(name, of):
    try:
        print(name, of())
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e))


c = socket.create_connection((NAMES, 53), 5)
print(c.getpeername() == (NAMES, 53))
c.sendall(question("a") + question("yb", 8) + question("c", 9)[:5])
print(answer(c), answer(c))
c.settimeout(0.3)
told("no more", lambda: c.recv(9))
c.settimeout(5)
c.sendall(question("c", 9)[5:])
print(answer(c))
c.sendall(question("over"))
print(answer(c), c.recv(9))
c.close()

# Much of it at once, read late.
c = socket.create_connection((NAMES, 53), 5)
c.sendall(question("y") * 100)
time.sleep(0.5)
print({answer(c) for _ in range(100)})
# Gone in the middle.
c.sendall(question("y") * 20)
c.close()

# One after the other, and several at once.
for _ in range(40):
    c = socket.create_connection((NAMES, 53), 5)
    c.sendall(question("d"))
    assert answer(c)[2] == 1
    c.close()
several = [socket.create_connection((NAMES, 53), 5) for _ in range(12)]
[c.sendall(question("y" * n, n)) for n, c in enumerate(several, 1)]
print([answer(c) for c in several])
told("elsewhere", lambda: socket.create_connection((NAMES, 54), 5))
