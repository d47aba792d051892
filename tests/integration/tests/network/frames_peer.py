"""The other end of frames.py: turns frames of a protocol of our own round, and offers addresses as a DHCP server would."""
import select
import socket
import struct

OURS, IP = 0x88B5, 0x0800
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(OURS))
frames.bind(("v0", OURS))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
server.bind(("", 67))


def total(data):
    data += b"\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xFFFF) + (n >> 16)
    return ~n & 0xFFFF


print("ready", flush=True)
while True:
    for ready in select.select([frames, server], [], [])[0]:
        if ready is frames:
            frame, place = frames.recvfrom(2000)
            # What it sends itself it sees leave.
            if place[2] != socket.PACKET_OUTGOING:
                frames.send(frame[6:12] + bytes.fromhex("020000000001") + frame[12:14] + frame[14:][::-1])
            continue
        asked, _ = server.recvfrom(2000)
        if asked[0] != 1:
            continue
        # To who has no address yet: by its hardware's alone.
        to = asked[28:34]
        offer = struct.pack("!BBBB4sHH4s4s4s4s16s", 2, 1, 6, 0, asked[4:8], 0, 0, bytes(4), bytes([10, 99, 0, 77]), bytes([10, 99, 0, 1]), bytes(4), to + bytes(10))
        udp = struct.pack("!HHHH", 67, 68, 8 + len(offer), 0) + offer
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 99, 0, 1]), bytes([255] * 4))
        header = header[:10] + struct.pack("!H", total(header)) + header[12:]
        frames.send(to + bytes.fromhex("020000000001") + struct.pack("!H", IP) + header + udp)
