"""Answers for names as Docker does: at a port of 127.0.0.11 in the container's namespace, or where it is told to. By streams, too, which is where it
sends who asks for a name that begins with y: that one has many addresses."""
import socket, struct, sys, threading

MANY = 200
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53) if sys.argv[1:] else ("127.0.0.11", 0))
streams = socket.create_server((sys.argv[1], 53) if sys.argv[1:] else ("127.0.0.11", 0))


def answer(question, stream):
    end = question.index(b"\0\0", 12) + 5
    name = question[13:13 + question[12]]
    count, short = 1 if question[end - 4:end - 2] == b"\0\1" else 0, 0
    if name.startswith(b"y"):
        count, short = (count * MANY, 0) if stream else (0, 2)
    one = lambda n: b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 9, 8 + (n > 0), len(name) if n == 0 else n])
    head = question[:2] + bytes([0x81 | short, 0x80]) + struct.pack("!4H", 1, count, 0, 0)
    return head + question[12:end] + b"".join(map(one, range(count)))


def read(c, n):
    data = b""
    while len(data) < n:
        if not (part := c.recv(n - len(data))):
            raise EOFError
        data += part
    return data


def talk(c):
    try:
        while True:
            told = answer(read(c, struct.unpack("!H", read(c, 2))[0]), True)
            c.sendall(struct.pack("!H", len(told)) + told)
            if b"\4over" in told:
                break
    except (EOFError, OSError):
        pass
    c.close()


def serve():
    while True:
        threading.Thread(target=talk, args=(streams.accept()[0],), daemon=True).start()


threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    question, who = s.recvfrom(4096)
    s.sendto(answer(question, False), who)
