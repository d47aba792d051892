"""What options and settings make of a connection, as its packets show it: window, largest segment, type of service."""
import socket
import struct
import time

RMEM, WMEM = "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"
HOST = ("10.99.0.1", 7)


def packets(tap, port):
    """Headers of TCP that left from that port: type of service, flags, window, options."""
    tap.setblocking(False)
    try:
        while True:
            frame, place = tap.recvfrom(200)
            if place[2] == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[34:36] == struct.pack("!H", port):
                end = 34 + (frame[46] >> 4) * 4
                yield frame[15], frame[47], struct.unpack("!H", frame[48:50])[0], frame[54:end]
    except BlockingIOError:
        pass


def options(raw):
    all = {}
    while raw and raw[0]:
        if raw[0] == 1:
            raw = raw[1:]
            continue
        all[raw[0]] = raw[2 : raw[1]]
        raw = raw[raw[1] :]
    return all


def connection(name, window, *asked):
    """One that is sent much more than it reads. `window`: the most that may ever be offered, and the least that must once have been."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    c = socket.socket()
    for option in asked:
        c.setsockopt(*option)
    print(name, [c.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_RCVBUF, socket.SO_SNDBUF)])
    c.settimeout(10)
    c.connect(HOST)
    c.sendall(b"send" + struct.pack("!I", 3_000_000))
    time.sleep(1)
    seen = list(packets(tap, c.getsockname()[1]))
    syn = options(next(o for _, flags, _, o in seen if flags & 2))
    scale = syn.get(3, b"\0")[0]
    offered = max(w << (0 if flags & 2 else scale) for _, flags, w, _ in seen)
    least, most = window
    print(" ", "window", least <= offered <= most or offered, "segment", struct.unpack("!H", syn[2])[0], "service", {t & ~3 for t, *_ in seen})
    got = 0
    while part := c.recv(1 << 16):
        got += len(part)
    print(" ", got)
    c.close()
    tap.close()


# The most that is received into is as large as the machine.
print(open(RMEM).read().split()[:2], open(WMEM).read().split())
connection("usual", (60_000, 8 << 20))
connection("small", (1000, 65_535), (socket.SOL_SOCKET, socket.SO_RCVBUF, 8192))
connection("clamped", (1000, 65_535), (socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 20_000))
connection("large", (60_000, 8 << 20), (socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000))
connection("segments", (60_000, 8 << 20), (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536), (socket.IPPROTO_IP, socket.IP_TOS, 0x10))
for path, text in ((RMEM, "4096 20000 40000"), (WMEM, "4096 10000 50000")):
    open(path, "w").write(text)
    print(open(path).read().split())
connection("settings", (1000, 65_535))
connection("asked for", (60_000, 8 << 20), (socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000))
