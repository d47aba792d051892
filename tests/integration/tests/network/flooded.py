"""Within, for flood.py: echoes on TCP port 7 as many connections as come, and has a socket at UDP port 7 that nobody reads."""
import resource, select, socket, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (16_384, 16_384))
s = socket.create_server(("10.99.0.2", 7), backlog=1024)
s.setblocking(False)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("10.99.0.2", 7))
ep = select.epoll()
ep.register(s, select.EPOLLIN)
open_ = {}
while True:
    for fd, events in ep.poll():
        if fd == s.fileno():
            while True:
                try:
                    c, _ = s.accept()
                except BlockingIOError:
                    break
                open_[c.fileno()] = c
                ep.register(c, select.EPOLLIN)
            continue
        c = open_[fd]
        try:
            data = c.recv(1 << 16)
            c.sendall(data)
        except OSError:
            data = b""
        if data == b"over":
            sys.exit(0)
        if not data:
            ep.unregister(fd)
            open_.pop(fd).close()
