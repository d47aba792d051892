"""`serve`: echoes once a connection, and datagrams, at port 7. `call`: tries both at 10.99.0.2:7007 until one answers, then says what the other does."""
import errno, socket, sys, threading, time

THERE = ("10.99.0.2", 7007)


def serve():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("", 7))
    s = socket.create_server(("", 7))

    def datagrams():
        while True:
            data, who = u.recvfrom(99)
            u.sendto(data, who)

    threading.Thread(target=datagrams, daemon=True).start()
    while True:
        c, _ = s.accept()
        c.sendall(c.recv(99))
        c.close()


def tcp():
    c = socket.create_connection(THERE, 2)
    c.sendall(b"word")
    return c.recv(99) == b"word"


def udp():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.settimeout(1)
    u.connect(THERE)
    u.send(b"word")
    return u.recv(99) == b"word"


def told(of):
    try:
        return of()
    except OSError as e:
        return errno.errorcode.get(e.errno, e)


if sys.argv[1] == "serve":
    serve()
for _ in range(100):
    if told(tcp) is True or told(udp) is True:
        break
    time.sleep(0.1)
print("tcp", told(tcp), "udp", told(udp))
