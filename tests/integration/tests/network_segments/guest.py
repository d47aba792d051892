"""The program whose connections are played with: does what lines at its input say, each with the number of a script, a thread for each.

What it says: `number word`, once a thing was done that a script waits for."""
import errno, queue, socket, sys, threading

PEER = ("10.99.0.77", 0)
scripts, voice = {}, threading.Lock()


def say(number, *words):
    with voice:
        print(number, *words, flush=True)


def told(number, of):
    try:
        say(number, of())
    except OSError as e:
        say(number, errno.errorcode[e.errno])


def name(of):
    return of if isinstance(of, int) else getattr(socket, of)


def play(number, todo):
    listener = c = None
    options = []
    while True:
        word, *rest = todo.get()
        if word == "listen":
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for option in options:
                listener.setsockopt(*option)
            listener.bind(("10.99.0.2", int(rest[0])))
            listener.listen(4)
            say(number, "listens")
        elif word == "accept":
            c = listener.accept()[0]
            say(number, "accepted")
        elif word == "connect":
            c = socket.socket()
            for option in options:
                c.setsockopt(*option)
            c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            c.bind(("10.99.0.2", int(rest[0])))
            told(number, lambda: c.connect((PEER[0], int(rest[1]))) or "connected")
        elif word == "set":
            option = (name(rest[0]), name(rest[1]), int(rest[2]))
            options.append(option)
            if c:
                c.setsockopt(*option)
        elif word == "write":
            told(number, lambda: c.sendall(b"x" * int(rest[0])) or "wrote")
        elif word == "urgent":
            told(number, lambda: c.send(b"!", socket.MSG_OOB) and "wrote")
        elif word == "read":
            def read():
                got = 0
                while got < int(rest[0]) and (part := c.recv(int(rest[0]) - got)):
                    got += len(part)
                return f"read {got}"
            told(number, read)
        elif word == "drain":
            # All that there is.
            c.setblocking(False)
            try:
                while c.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass
            c.setblocking(True)
            say(number, "drained")
        elif word == "shutdown":
            told(number, lambda: c.shutdown(socket.SHUT_WR) or "shut")
        elif word == "close":
            c.close()
            say(number, "closed")
        elif word == "over":
            for s in (listener, c):
                if s:
                    s.close()
            return


for line in sys.stdin:
    number, *words = line.split()
    if number not in scripts:
        scripts[number] = queue.Queue()
        threading.Thread(target=play, args=(number, scripts[number]), daemon=True).start()
    scripts[number].put(words)
