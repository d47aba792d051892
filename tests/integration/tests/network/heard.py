"""Prints the words of datagrams to port 77, in order of the alphabet, when its input ends; and is there at port 7 of TCP."""
import select, socket, sys, threading

sockets = []
for family, host in ((socket.AF_INET, "10.99.0.1"), (socket.AF_INET6, "fd99::1")):
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.bind((host, 77))
    sockets.append(u)
s = socket.create_server(("10.99.0.1", 7))


def serve():
    while True:
        c, _ = s.accept()
        c.close()


threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
words = []
while True:
    ready, _, _ = select.select([sys.stdin, *sockets], [], [])
    for u in ready:
        if u is not sys.stdin:
            words.append(u.recv(1 << 16).decode()[:32])
    if ready == [sys.stdin]:
        break
print(sorted(words))
