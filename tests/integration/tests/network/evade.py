"""Datagrams to port 77 of the other end by every way there is, each with a word in it (heard.py prints what arrives)."""
import socket, struct, sys, time

US, THEM = "10.99.0.2", "10.99.0.1"
US6, THEM6 = "fd99::2", "fd99::1"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


def datagram(word, six=False):
    p = socket.inet_pton
    ends = p(socket.AF_INET6, US6) + p(socket.AF_INET6, THEM6) if six else socket.inet_aton(US) + socket.inet_aton(THEM)
    word = word.encode()
    head = struct.pack("!HHHH", 9, 77, 8 + len(word), 0) + word
    pseudo = ends + struct.pack("!II" if six else "!HH", *((len(head), 17) if six else (17, len(head))))
    return head[:6] + struct.pack("!H", checksum(pseudo + head)) + head[8:]


def header(length, number, field, options=b"", protocol=17):
    raw = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + length, number, field, 64, protocol, 0,
                      socket.inet_aton(US), socket.inet_aton(THEM)) + options
    return raw[:10] + struct.pack("!H", checksum(raw)) + raw[12:]


def quietly(of):
    try:
        of()
    except OSError as e:
        print("not sent:", e, file=sys.stderr)


u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
quietly(lambda: u.sendto(b"plain", (THEM, 77)))
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
quietly(lambda: u.sendto(b"plain6", (THEM6, 77)))
quietly(lambda: u.sendto(b"mapped", ("::ffff:" + THEM, 77)))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
quietly(lambda: u.sendto(b"long" * 2000, (THEM, 77)))

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
quietly(lambda: raw.sendto(datagram("raw"), (THEM, 0)))
made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def make(word, number, options=b""):
    data = datagram(word)
    quietly(lambda: made.sendto(header(len(data), number, 0, options) + data, (THEM, 0)))


make("made", 1)
make("with options", 2, b"\1\1\1\1")
six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP)
quietly(lambda: six.sendto(datagram("raw6", True), (THEM6, 0)))
# Behind options for the destination, and behind the header of a piece that is the whole.
for kind, head, word in ((60, b"\x11\0\1\4\0\0\0\0", "behind options"), (44, b"\x11\0\0\0\0\0\0\5", "one piece")):
    six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, kind)
    quietly(lambda: six.sendto(head + datagram(word, True), (THEM6, 0)))
# Two pieces, the later one first; the ports are in the other.
six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 44)
data = datagram("in pieces", True)
quietly(lambda: six.sendto(b"\x11\0\0\x08\0\0\0\6" + data[8:], (THEM6, 0)))
quietly(lambda: six.sendto(b"\x11\0\0\1\0\0\0\6" + data[:8], (THEM6, 0)))
# As a frame, whole and as a piece, and behind a tag.
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"
data = datagram("a frame")
quietly(lambda: frames.sendto(MACS + b"\x08\0" + header(len(data), 7, 0) + data, ("eth0", 0)))
data = datagram("frames in pieces")
quietly(lambda: frames.sendto(MACS + b"\x08\0" + header(8, 8, 0x2000) + data[:8], ("eth0", 0)))
quietly(lambda: frames.sendto(MACS + b"\x08\0" + header(len(data) - 8, 8, 1) + data[8:], ("eth0", 0)))
time.sleep(0.5)
c = socket.create_connection((THEM, 7), 5)
c.recv(1)
print("tried")
