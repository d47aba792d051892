"""Some megabytes both ways at once, in several connections."""
import hashlib, os, socket, struct, threading

DATA = bytes(os.urandom(1 << 16)) * 48
results = {}


def both_ways(n, host):
    c = socket.create_connection((host, 7), 30)
    c.settimeout(60)
    c.sendall(b"echo")

    def send():
        c.sendall(DATA)
        c.shutdown(socket.SHUT_WR)

    t = threading.Thread(target=send)
    t.start()
    h = hashlib.md5()
    got = 0
    while part := c.recv(1 << 16):
        h.update(part)
        got += len(part)
    t.join()
    results[n] = got == len(DATA) and h.digest() == hashlib.md5(DATA).digest()


threads = [threading.Thread(target=both_ways, args=(n, ("10.99.0.1", "fd99::1")[n % 2])) for n in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(sorted(results.items()))
