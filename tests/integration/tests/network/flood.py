"""Floods flooded.py in one way, then sees whether a transfer works: `flood.py syn|connections|pieces|udp|full|none|over`."""
import os, resource, socket, struct, sys, time

THEM = "10.99.0.2"


def checksum(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


def header(length, number, field, source, protocol):
    # The sum of the header is the kernel's.
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, number, field, 64, protocol, 0, source, socket.inet_aton(THEM))


def raw():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    return lambda packet: s.sendto(packet, (THEM, 0))


def syn():
    """From everywhere, and nobody is there to answer."""
    send = raw()
    for n in range(60_000):
        source = struct.pack("!BBH", 172, 16 + n % 16, n + 1)
        head = struct.pack("!HHIIBBHHH", 1024 + n % 60_000, 7, n, 0, 5 << 4, 2, 64_000, 0, 0)
        pseudo = source + socket.inet_aton(THEM) + struct.pack("!HH", 6, len(head))
        head = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
        send(header(20, 0, 0, source, 6) + head)
        # First it might be a crowd, and they would come again; then it is a flood.
        if n == 20_000:
            time.sleep(1.5)


def connections():
    """As many as there can be, which say a word and nothing more; then all of them are gone at once."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16_384, 16_384))
    all_ = []
    for _ in range(4000):
        c = socket.create_connection((THEM, 7), 20)
        c.sendall(b"word")
        all_.append(c)
    for c in all_:
        c.settimeout(20)
        assert c.recv(9) == b"word"
    for c in all_:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()


def pieces():
    """First ones of wholes whose rest never comes, and lonely ones from the middle."""
    send, own = raw(), socket.inet_aton("10.99.0.1")
    piece = os.urandom(1400)
    for n in range(60_000):
        source = own if n % 2 else struct.pack("!BBH", 172, 16, n + 1)
        send(header(1400, n + 1, 0x2000 | (n % 3) * 175, source, 17) + piece)


def udp():
    """To a socket that nobody reads, and to where there is none."""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    data = os.urandom(1400)
    for n in range(150_000):
        try:
            u.sendto(data, (THEM, 7 + n % 2))
        except ConnectionRefusedError:
            pass


def full():
    """To one who does not look: what finds no room is lost."""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    data = os.urandom(1400)
    for _ in range(40_000):
        u.sendto(data, (THEM, 7))
    print("sent", flush=True)
    sys.stdin.read()


def transfer():
    for _ in range(100):
        try:
            c = socket.create_connection((THEM, 7), 5)
            break
        except OSError:
            time.sleep(0.1)
    c.settimeout(30)
    data = os.urandom(200_000)
    sent, back = 0, b""
    while len(back) < len(data):
        if sent < len(data):
            sent += c.send(data[sent:sent + 50_000])
        part = c.recv(1 << 16)
        assert part
        back += part
    return back == data


what = sys.argv[1]
if what == "over":
    c = socket.create_connection((THEM, 7), 5)
    c.sendall(b"over")
    c.recv(1)
    sys.exit(0)
if what != "none":
    globals()[what]()
assert transfer()
print("transferred")
