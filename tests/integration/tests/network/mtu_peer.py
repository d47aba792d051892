"""The other end of mtu.py: sends datagrams' lengths back, and what comes over connections."""
import select
import socket

all = {}
for family, host in ((socket.AF_INET, "10.98.0.2"), (socket.AF_INET6, "fd98::2")):
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.bind((host, 7))
    t = socket.create_server((host, 7), family=family)
    all[u] = all[t] = True
print("ready", flush=True)
while True:
    for s in select.select(list(all), [], [])[0]:
        if s.type == socket.SOCK_DGRAM:
            data, who = s.recvfrom(70000)
            s.sendto(b"%d" % len(data), who)
        elif all[s]:
            all[s.accept()[0]] = False
        else:
            try:
                data = s.recv(1 << 16)
                s.sendall(data)
            except OSError:
                data = b""
            if not data:
                del all[s]
                s.close()
