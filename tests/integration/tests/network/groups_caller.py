"""Has groups.py join and leave groups, asks as a router does, and tells which reports the wire brought."""
import select, socket, struct, time

DEVICE = "v0"
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((DEVICE, 3))
own = wire.getsockname()[4]
link = next(bytes.fromhex(l.split()[0]) for l in open("/proc/net/if_inet6") if l.split()[5] == DEVICE and l.startswith("fe80"))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(1)
u.connect(("10.99.0.2", 70))


def do(what):
    for _ in range(60):
        try:
            u.send(what.encode())
            return u.recv(10_000).decode()
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"no answer to {what}")


def sum16(b):
    s = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while s >> 16:
        s = (s >> 16) + (s & 65535)
    return ~s & 65535


def ip4(data):
    return socket.inet_ntoa(data)


def ip6(data):
    return socket.inet_ntop(socket.AF_INET6, data)


def report(frame):
    """What a frame says of groups."""
    mac, kind, p = frame[:6].hex(":"), frame[12:14], frame[14:]
    if frame[6:12] == own:
        return None
    if kind == b"\x08\0" and p[9] == 2:
        n = (p[0] & 15) * 4
        data = p[n:struct.unpack("!H", p[2:4])[0]]
        head = [mac, ip4(p[12:16]), ip4(p[16:20]), "ttl", p[8], "tos", p[1], "whole", p[6] >> 6, "options", p[20:n].hex()]
        head += ["sums", sum16(p[:n]), sum16(data)]
        address, size = ip4, 4
    elif kind == b"\x86\xdd" and p[6] == 0 and p[40] == 58 and p[48] in (131, 132, 143):
        data = p[48:40 + struct.unpack("!H", p[4:6])[0]]
        head = [mac, ip6(p[8:24]), ip6(p[24:40]), "hops", p[7], "class", p[:4].hex(), "options", p[40:48].hex()]
        head += ["sum", sum16(p[8:40] + struct.pack("!IHBB", len(data), 0, 0, 58) + data + bytes(len(data) % 2))]
        address, size = ip6, 16
    else:
        return None
    if data[0] in (0x22, 143):
        count, = struct.unpack("!H", data[6:8])
        records, at = [], 8
        for _ in range(count):
            sources, = struct.unpack("!H", data[at + 2:at + 4])
            records.append((data[at], data[at + 1], sources, address(data[at + 4:at + 4 + size])))
            at += 4 + size + sources * size
        return (*head, "type", hex(data[0]), data[1], sorted(records), "more", len(data) - at)
    return (*head, "type", data[0], data[1], address(data[-size:]), len(data))


def heard(name, seconds, once=False):
    """What came in that time. `once`: a second one may come within it, or later."""
    until, all = time.time() + seconds, []
    while (left := until - time.time()) > 0:
        if select.select([wire], [], [], left)[0] and (r := report(wire.recv(70_000))):
            all.append(r)
    all = [r for n, r in enumerate(all) if not once or r not in all[:n]]
    print("--", name)
    # What is answered after a time that chance has chosen comes in an order that chance has.
    for r in sorted(all):
        print(*r)


def send4(to, data, source="10.99.0.1", wrong=False):
    data = data[:2] + b"\0\0" + data[4:]
    data = data[:2] + struct.pack("!H", sum16(data) ^ wrong) + data[4:]
    to = socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH", 0x46, 0xc0, 24 + len(data), 1, 0, 1, 2, 0) + socket.inet_aton(source) + to + b"\x94\4\0\0"
    head = head[:10] + struct.pack("!H", sum16(head)) + head[12:]
    mac = b"\1\0\x5e" + bytes([to[1] & 127]) + to[2:]
    wire.send(mac + own + b"\x08\0" + head + data)


def send6(to, data, source=link, hops=1):
    to = socket.inet_pton(socket.AF_INET6, to)
    data = data[:2] + b"\0\0" + data[4:]
    data = data[:2] + struct.pack("!H", sum16(source + to + struct.pack("!IHBB", len(data), 0, 0, 58) + data)) + data[4:]
    head = b"\x60\0\0\0" + struct.pack("!HBB", 8 + len(data), 0, hops) + source + to
    wire.send(b"\x33\x33" + to[12:] + own + b"\x86\xdd" + head + b"\x3a\0\5\2\0\0\1\0" + data)


def query4(group, tenths=3, sources=(), robust=2, to=None, **how):
    data = struct.pack("!BBH", 0x11, tenths, 0) + socket.inet_aton(group) + bytes([robust, 125]) + struct.pack("!H", len(sources))
    send4(to or ("224.0.0.1" if group == "0.0.0.0" else group), data + b"".join(map(socket.inet_aton, sources)), **how)


def query6(group, millis=300, sources=0, robust=2, **how):
    data = struct.pack("!BBHHH", 130, 0, 0, millis, 0) + socket.inet_pton(socket.AF_INET6, group) + bytes([robust, 125]) + struct.pack("!H", sources)
    send6("ff02::1" if group == "::" else group, data + bytes(16 * sources), **how)


do("show")
# What was begun before.
time.sleep(2.5)
while select.select([wire], [], [], 0)[0]:
    wire.recv(70_000)
print(do("show"))

for one, other in (("239.1.1.1", "239.1.1.2"), ("ff05::77", "ff12::78")):
    print(do(f"join a{one} {one}"))
    heard("joined", 1.5)
    print(do(f"join b{one} {one}"), do(f"join a{one} {one}"))
    heard("joined by another", 0.5)
    print(do(f"join a{one} {other}"))
    heard("joined another", 1.5)
print(do("show"))

query4("0.0.0.0")
heard("all are asked for", 0.8)
query6("::")
heard("all are asked for", 0.8)
query4("239.1.1.1")
heard("one is asked for", 0.8)
query6("ff05::77")
heard("one is asked for", 0.8)
query4("239.1.1.1", sources=["10.99.0.1"])
heard("one is asked for, of somebody", 0.8)
query4("239.1.1.9")
query6("ff05::79")
heard("one is asked for who is none", 0.8)
query4("0.0.0.0", wrong=True)
query4("0.0.0.0", sources=["10.99.0.1"])
send4("224.0.0.1", b"\x11\3\0\0\0\0\0\0\2\x7d")
query6("::", sources=1)
query6("::", hops=2)
query6("::", source=socket.inet_pton(socket.AF_INET6, "fd99::1"))
heard("nonsense is asked", 0.8)

print(do("leave b239.1.1.1 239.1.1.1"), do("leave b239.1.1.1 239.1.1.1"), do("leave bff05::77 ff05::77"), do("leave bff05::77 ff05::77"))
heard("left by one", 0.5)
for one, other in (("239.1.1.1", "239.1.1.2"), ("ff05::77", "ff12::78")):
    print(do(f"leave a{one} {one}"))
    heard("left", 1.5)
    print(do(f"close a{one}"))
    heard("closed", 1.5)

query4("0.0.0.0", robust=4)
query6("::", robust=4)
heard("more often", 0.8)
for one in ("239.2.1.1", "ff05::88"):
    print(do(f"join c {one}"))
    heard("joined", 3.5)
    print(do("close c"))
    heard("closed", 3.5)
query4("0.0.0.0")
query6("::")
heard("as often as before", 0.8)

# A router of an older kind.
print(do("join d 239.3.1.1"), do("join d 239.3.1.2"), do("join e ff05::99"), do("join e ff05::9a"))
time.sleep(1.5)
while select.select([wire], [], [], 0)[0]:
    wire.recv(70_000)
send4("224.0.0.1", b"\x11\3\0\0\0\0\0\0")
heard("an older router asks for one", 1, True)
send4("239.3.1.1", b"\x11\3\0\0" + socket.inet_aton("239.3.1.1"))
heard("for one of them", 1)
send4("224.0.0.1", b"\x11\x14\0\0\0\0\0\0")
send4("239.3.1.2", b"\x16\0\0\0" + socket.inet_aton("239.3.1.2"), source="10.99.0.7")
heard("another host says it", 2.5)
print(do("join f 239.3.1.3"))
heard("joined", 0.5, True)
print(do("show"))
print(do("close f"))
heard("closed", 0.5)
print(do("leave d 239.3.1.2"))
heard("left what another host spoke of last", 0.5)
print(do("leave d 239.3.1.1"))
heard("left", 0.5)
send6("ff02::1", struct.pack("!BBHHH", 130, 0, 0, 300, 0) + bytes(16))
heard("an older router asks", 1)
print(do("join f ff05::9b"))
heard("joined", 0.5, True)
print(do("close f"))
heard("closed", 0.5)
print(do("close e"))
heard("closed", 0.5)
print(do("over"))
