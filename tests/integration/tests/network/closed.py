"""Does what closed_caller.py says: lets errors out without limit for one destination, or ends."""
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7777))
files = ["/proc/sys/net/ipv4/icmp_ratelimit", "/proc/sys/net/ipv4/icmp_ratemask", "/proc/sys/net/ipv4/icmp_msgs_per_sec", "/proc/sys/net/ipv4/icmp_msgs_burst", "/proc/sys/net/ipv6/icmp/ratelimit"]
for f in files:
    print(f, open(f).read().strip())
while True:
    data, who = s.recvfrom(100)
    if data == b"free":
        for f in (files[0], files[4]):
            open(f, "w").write("0")
    s.sendto(data, who)
    if data == b"end":
        break
