# What a program is told of its network.
ip -br link | sed 's/@[^ ]*//; s/  */ /g'
ip -br addr | sed 's/@[^ ]*//; s/  */ /g'
ip route
ip -6 route | grep -v fe80 | sed 's/ pref medium//; s/ *$//'
ip route get 10.99.0.9 | head -1 | sed 's/ uid [0-9]*//; s/ *$//'
ip route get 192.0.2.1 | head -1 | sed 's/ uid [0-9]*//; s/ *$//'
ip -6 route get 2001:db8::1 | head -1 | grep -o 'via.*dev eth0'
ip link show nosuch
cat /proc/net/route | sed 's/ *$//'
# Not the flags: that its owner did not wait for doubles is not kept.
grep -v fe80 /proc/net/if_inet6 | sort | awk '{print $1, $2, $3, $4, $6}'
sed 's/:.*//' /proc/net/dev
python3 - <<'P'
import array, fcntl, socket, struct
print(socket.if_nameindex())
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for name, request in [("flags", 0x8913), ("addr", 0x8915), ("brd", 0x8919), ("mask", 0x891b), ("mtu", 0x8921), ("hw", 0x8927), ("index", 0x8933)]:
    print(name, fcntl.ioctl(s, request, struct.pack("16s24x", b"eth0"))[16:32].hex())
b = array.array("B", bytes(4096))
n, = struct.unpack_from("i", fcntl.ioctl(s, 0x8912, struct.pack("iQ", 4096, b.buffer_info()[0])))
print("conf", [bytes(b[i:i + 4]).rstrip(b"\0") for i in range(0, n, 40)])
for host in ("10.99.0.9", "192.0.2.1", "127.0.0.5", "10.99.0.2", "224.0.0.5"):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, 9))
    print(host, "from", s.getsockname()[0])
for host in ("fd99::9", "2001:db8::1", "::1"):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.connect((host, 9))
    print(host, "from", s.getsockname()[0])
for host in ("10.99.0.2", "10.99.0.3", "0.0.0.0"):
    s = socket.socket()
    try:
        s.bind((host, 0))
        print("bind", host, "ok")
    except OSError as e:
        print("bind", host, e)
for device in (b"eth0", b"lo", b"nosuch"):
    try:
        socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        print("device", device, "ok")
    except OSError as e:
        print("device", device, e)
P
