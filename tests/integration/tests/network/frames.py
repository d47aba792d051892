"""Packet sockets on an interface: what is sent by hand, what is seen of others, what tools make of it. Lines hold nothing that differs
from run to run."""
import re
import select
import socket
import struct
import subprocess
import time

ALL, IP, ARP, OURS = 3, 0x0800, 0x0806, 0x88B5
SOL_PACKET, ADD, STATISTICS, AUXDATA = 263, 1, 6, 8
OWN, PEER = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
KINDS = {0: "to us", 1: "to all", 2: "to several", 3: "to others", 4: "left"}


def packets(kind, protocol, device="eth0"):
    s = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
    s.bind((device, protocol))
    s.settimeout(5)
    return s


def told(name, s, wanted=lambda frame: True):
    """The next that is wanted, and where it came from."""
    until = time.time() + 5
    while time.time() < until:
        try:
            frame, (device, protocol, kind, hatype, address) = s.recvfrom(70000)
        except TimeoutError:
            break
        if wanted(frame):
            print(name, KINDS[kind], device, f"{protocol:04x}", hatype, address.hex(":"), len(frame), frame[:60].hex())
            return frame
    print(name, "nothing")
    return b""


def error(name, f):
    try:
        print(name, f())
    except OSError as e:
        print(name, e.strerror)


def tool(*arguments, drop=()):
    r = subprocess.run(arguments, capture_output=True, text=True, timeout=30)
    print("$", *arguments, "=", r.returncode)
    for line in (r.stdout + r.stderr).splitlines():
        line = re.sub(r"\d+\.\d+ ?ms", "T ms", re.sub(r"id \d+", "id N", line))
        if not any(d in line for d in drop):
            print(" ", line)


print("by hand")
raw, bare = packets(socket.SOCK_RAW, OURS), packets(socket.SOCK_DGRAM, OURS)
print(raw.getsockname(), bare.getsockname())
raw.send(PEER + OWN + struct.pack("!H", OURS) + b"from us, with a header")
told("raw", raw)
told("bare", bare)
bare.sendto(b"without a header", ("eth0", OURS, 0, 0, PEER))
told("raw", raw)
told("bare", bare)
# Whose the address is that a frame comes from is nobody's business: the answer goes there.
forged = bytes.fromhex("020000000099")
raw.send(PEER + forged + struct.pack("!H", OURS) + b"not from us")
told("forged", raw, lambda f: f[:6] == forged)
told("forged, bare", bare)
error("short", lambda: raw.send(b"x" * 13))
error("header alone", lambda: raw.send(PEER + OWN + struct.pack("!H", OURS)))
told("", raw)
told("", bare)
error("longest", lambda: raw.send((PEER + OWN + struct.pack("!H", OURS)).ljust(1514, b"l")))
print(len(told("longest", raw)))
told("longest", bare)
error("too long", lambda: raw.send((PEER + OWN + struct.pack("!H", OURS)).ljust(1515, b"l")))
error("to nobody", lambda: bare.send(b"x"))
error("to no device", lambda: bare.sendto(b"x", ("nope", OURS, 0, 0, PEER)))
raw.close()
bare.close()

print("ARP")
asks, sees = packets(socket.SOCK_DGRAM, ARP), packets(socket.SOCK_RAW, ALL)
asks.sendto(struct.pack("!HHBBH6s4s6s4s", 1, IP, 6, 4, 1, OWN, bytes([10, 99, 0, 2]), bytes(6), bytes([10, 99, 0, 1])), ("eth0", ARP, 0, 0, b"\xff" * 6))
told("answer", asks, lambda f: f[6:8] == b"\0\2")
told("asked", sees, lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\1" and f[:6] == b"\xff" * 6)
told("answered", sees, lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2")

print("an address asked for")
heard = packets(socket.SOCK_DGRAM, IP)
ask = struct.pack("!BBBBIHH4s4s4s4s16s", 1, 1, 6, 0, 0x12345678, 0, 0x8000, bytes(4), bytes(4), bytes(4), bytes(4), OWN + bytes(10)).ljust(300, b"\0")
udp = struct.pack("!HHHH", 68, 67, 8 + len(ask), 0) + ask
header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), bytes([255] * 4))
n = sum(struct.unpack("!10H", header))
header = header[:10] + struct.pack("!H", ~(n + (n >> 16)) & 0xFFFF) + header[12:]
heard.sendto(header + udp, ("eth0", IP, 0, 0, b"\xff" * 6))
offer = told("offer", heard, lambda f: f[9] == 17 and f[20:22] == struct.pack("!H", 67))
print("offered", socket.inet_ntoa(offer[28 + 16 : 28 + 20]), offer[28 + 4 : 28 + 8].hex())
heard.close()

print("what others do")
while select.select([sees], [], [], 0.2)[0]:
    sees.recv(9)
sees.setsockopt(SOL_PACKET, ADD, struct.pack("iHH8s", socket.if_nametoindex("eth0"), 1, 0, bytes(8)))
sees.setsockopt(SOL_PACKET, AUXDATA, 1)
print(len(sees.getsockopt(SOL_PACKET, STATISTICS, 8)))
to_peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to_peer.sendto(b"nobody is there", ("10.99.0.1", 9))


def seen(name, wanted):
    until = time.time() + 5
    while time.time() < until:
        frame, along, flags, place = sees.recvmsg(2000, 200)
        if wanted(frame):
            status, length, kept, mac, net = struct.unpack("IIIHH", along[0][2][:16])
            print(name, KINDS[place[2]], len(frame), flags, status & 7, length, kept, mac, net)
            return frame
    print(name, "nothing")


seen("datagram", lambda f: f[12:14] == b"\x08\0" and f[23] == 17)
refused = seen("refused", lambda f: f[12:14] == b"\x08\0" and f[23] == 1)
print(refused[34:36].hex(), refused[-15:])
tcp = socket.socket()
print(tcp.connect_ex(("10.99.0.1", 9)))
flags = lambda f: f[14 + 20 + 13]
for name, mask in (("SYN", 0x02), ("RST", 0x14)):
    until = time.time() + 5
    while time.time() < until:
        frame, place = sees.recvfrom(2000)
        if frame[12:14] == b"\x08\0" and frame[23] == 6 and flags(frame) & 0x17 == mask:
            print(name, KINDS[place[2]], frame[:12].hex())
            break
    else:
        print(name, "nothing")
came, lost = struct.unpack("II", sees.getsockopt(SOL_PACKET, STATISTICS, 8))
print("counted", came >= 4, lost)
sees.close()

print("tools")
tool("arping", "-c", "2", "-I", "eth0", "10.99.0.1")
tool("arping", "-c", "1", "-w", "1", "-I", "eth0", "10.99.0.200")
for name, arguments in (("eth0", ["-i", "eth0", "-c", "4", "-n", "-t", "icmp"]), ("any", ["-i", "any", "-c", "4", "-n", "-t", "icmp"]), ("six", ["-i", "eth0", "-c", "4", "-n", "-t", "icmp6 and (ip6[40] == 128 or ip6[40] == 129)"]), ("lo", ["-i", "lo", "-c", "4", "-n", "-t", "icmp"])):
    dump = subprocess.Popen(["tcpdump", "-Z", "root", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # It says so when it listens.
    said = ""
    while "listening" not in said:
        line = dump.stderr.readline()
        if not line:
            break
        said += line
    ping = ["ping", "-c", "2", "-i", "0.2", "127.0.0.1" if name == "lo" else "fd99::1" if name == "six" else "10.99.0.1"]
    subprocess.run(ping, stdout=subprocess.DEVNULL)
    try:
        out, err = dump.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        dump.kill()
        out, err = dump.communicate()
        out += "TIMED OUT\n"
    print("tcpdump", name, dump.returncode)
    for line in (said + out).splitlines():
        print(" ", re.sub(r"id \d+", "id N", line))
    print(" ", [re.sub(r"^\d+ packets? received", "N received", line) for line in err.splitlines() if "dropped" in line])
