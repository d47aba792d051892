"""Joins and leaves groups as groups_caller.py says, and shows what /proc tells of them."""
import errno, socket, struct

u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 70))
sockets = {}
index = socket.if_nametoindex("eth0")
while True:
    words, who = u.recvfrom(1000)
    what, *words = words.decode().split()
    answer = "done"
    try:
        if what in ("join", "leave"):
            key, group = words
            if ":" in group:
                s = sockets.setdefault(key, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                option = socket.IPV6_JOIN_GROUP if what == "join" else socket.IPV6_LEAVE_GROUP
                s.setsockopt(socket.IPPROTO_IPV6, option, socket.inet_pton(socket.AF_INET6, group) + struct.pack("@i", index))
            else:
                s = sockets.setdefault(key, socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                option = socket.IP_ADD_MEMBERSHIP if what == "join" else socket.IP_DROP_MEMBERSHIP
                s.setsockopt(socket.SOL_IP, option, socket.inet_aton(group) + socket.inet_aton("10.99.0.2"))
        elif what == "close":
            sockets.pop(words[0]).close()
        elif what == "show":
            # What runs out differs from moment to moment.
            # When a report comes by itself chance has chosen.
            answer = repr([[w for w in line.split() if ":" not in w[1:]] for line in open("/proc/net/igmp")])
    except OSError as e:
        answer = errno.errorcode[e.errno]
    u.sendto(answer.encode(), who)
    if what == "over":
        break
