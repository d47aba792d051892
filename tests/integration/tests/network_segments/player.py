"""Plays scripts of single TCP segments (`*.pkt`, in the words of packetdrill) against a kernel: what it is given is at 10.99.0.2, this end is
10.99.0.77, which is nobody's: no other TCP is in between. All scripts at once, each with ports of its own.

    < S 0:0(0) win 1000 <mss 1460>   a segment for it: flags, sequence numbers (from, to, bytes), perhaps an acknowledgement, window, options
    > S. 0:0(0) ack 1 win >0         the next that it sends must be this one, and come within a second
    +0.8..1.3 > S 0:0(0)             the same, so many seconds after what was before
    none 0.5                         it sends nothing for so long
    listen, connect, accept, write N, read N, shutdown, close, set LEVEL NAME N, urgent
                                     what its program does; `connect`, `read` and `accept` are waited for where `told` stands
    fill             segments of 1000 bytes until there is no room for more; from then on the number of the next is 1 again
    drain            its program reads what there is
    windows 0.3      for so long it may say that its window is another one, and nothing else
    told WORD                        what came of that (connected, read 5, ECONNRESET)
    native: LINE, netd: LINE         only for the one; why stands in a comment before

Numbers are relative to the first of either side. P is not compared, nor are windows and options that a script does not name; `*` is any value.
`ts N` is a timestamp of N, with the last one of the other side as its echo; expected it is the echo."""
import glob, os, queue, random, re, select, socket, struct, sys, threading, time

KIND, DEVICE, FOLDER = sys.argv[1:4]
HERE, THERE = socket.inet_aton("10.99.0.77"), socket.inet_aton("10.99.0.2")
# A machine may be busy: how much later than a script says something may come.
LATE = float(os.environ.get("LATE", "1.5"))
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32}
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((DEVICE, 0))
wire.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
own = wire.getsockname()[4]
other = bytes.fromhex("020000000002")
inboxes, answers, voice = {}, {}, threading.Lock()


def total(data):
    data += b"\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


def send(tcp):
    pseudo = HERE + THERE + struct.pack("!HH", 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", total(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + HERE + THERE
    ip = ip[:10] + struct.pack("!H", total(ip)) + ip[12:]
    wire.send(other + own + b"\x08\0" + ip + tcp)


def hear():
    while True:
        frame = wire.recv(1 << 16)
        at = time.monotonic()
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x01" and frame[38:42] == HERE:
            wire.send(frame[6:12] + own + frame[12:20] + b"\0\x02" + own + HERE + frame[22:32] + b"\0" * 18)
        elif frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[26:34] == THERE + HERE:
            length, = struct.unpack("!H", frame[16:18])
            tcp = frame[34:14 + length]
            inbox = inboxes.get(tcp[:4])
            if inbox:
                inbox.put((at, tcp))


def listen_to_guest():
    for line in sys.stdin:
        number, _, word = line.strip().partition(" ")
        answers[number].put(word)


def read_options(data):
    found = []
    while data and data[0]:
        if data[0] == 1:
            data = data[1:]
            continue
        kind, length = data[0], data[1]
        body, data = data[2:length], data[length:]
        if kind == 2:
            found.append(("mss", str(int.from_bytes(body, "big"))))
        elif kind == 3:
            found.append(("wscale", str(body[0])))
        elif kind == 4:
            found.append(("sackOK", ""))
        elif kind == 8:
            found.append(("ts", struct.unpack("!II", body)))
        elif kind == 5:
            found.append(("sack", struct.unpack(f"!{len(body) // 4}I", body)))
        else:
            found.append((f"option{kind}", body.hex()))
    return found


class Wrong(Exception):
    pass


class Script:
    def __init__(self, number, path):
        self.number, self.name = str(number), os.path.basename(path).removesuffix(".pkt")
        lines = [(n, line.split("#")[0].strip()) for n, line in enumerate(open(path), 1)]
        self.lines = [(n, line) for n, line in lines if line]
        chance = random.Random(self.name)
        self.ours, self.theirs = chance.getrandbits(32), None
        if chance.random() < 0.5:
            self.ours = 0xffffffff - chance.randrange(3000)
        self.ports = {"us": 2000 + number, "it": 3000 + number}
        self.inbox, self.answers, self.stamp = queue.Queue(), queue.Queue(), 0
        answers[self.number] = self.answers
        self.hear_at(self.ports["us"])
        self.at = time.monotonic()
        self.seen, self.said = [], "it was not played to its end"

    def hear_at(self, port):
        inboxes[struct.pack("!HH", self.ports["it"], port)] = self.inbox

    def tell(self, *words):
        with voice:
            print(self.number, *words, flush=True)

    def told(self, wanted=None):
        try:
            word = self.answers.get(timeout=20 + LATE)
        except queue.Empty:
            raise Wrong("its program says nothing") from None
        if wanted and word != wanted:
            raise Wrong(f"its program was told {word}, not {wanted}")

    def give(self, line):
        m = re.fullmatch(r"< (\S+) (-?\d+):(-?\d+)\((\d+)\)(?: ack (-?\d+))?(?: win (\d+))?(?: urg (\d+))?(?: <(.*)>)?", line)
        if not m:
            raise Wrong("nobody understands this line")
        flags, left, right, length, ack, win, urgent, options = m.groups()
        bits = sum(FLAGS[f] for f in flags)
        if int(right) - int(left) != int(length):
            raise Wrong("the numbers do not fit")
        raw = b""
        for option in (options or "").split(","):
            word, *value = option.split()or [""]
            if word == "mss":
                raw += struct.pack("!BBH", 2, 4, int(value[0]))
            elif word == "sackOK":
                raw += b"\x04\x02"
            elif word == "wscale":
                raw += bytes([3, 3, int(value[0])])
            elif word == "ts":
                raw += struct.pack("!BBII", 8, 10, int(value[0]), self.stamp)
            elif word == "sack":
                edges = [(int(e) + self.theirs) % 2**32 for block in value for e in block.split(":")]
                raw += bytes([5, 2 + 4 * len(edges)]) + struct.pack(f"!{len(edges)}I", *edges)
        raw += b"\x01" * (-len(raw) % 4)
        ack = 0 if ack is None else (int(ack) + (self.theirs or 0)) % 2**32
        tcp = struct.pack("!HHIIBBHHH", self.ports["us"], self.ports["it"], (int(left) + self.ours) % 2**32, ack,
                          5 + len(raw) // 4 << 4, bits, int(win or 0), 0, int(urgent or 0))
        send(tcp + raw + b"y" * int(length))

    def shown(self, tcp):
        """A segment in the words of scripts."""
        here, there, seq, ack, offset, bits, win, _, urgent = struct.unpack("!HHIIBBHHH", tcp[:20])
        if bits & 2 and self.theirs is None:
            self.theirs = seq
        near = lambda n, base: (n - base + 2**31) % 2**32 - 2**31
        left, length = near(seq, self.theirs or 0), len(tcp) - (offset >> 4) * 4
        flags = "".join(f for f in "SFRU." if bits & FLAGS[f])
        found = read_options(tcp[20:(offset >> 4) * 4])
        words = []
        for word, value in found:
            if word == "ts":
                self.stamp = value[0]
                words.append(f"ts {value[1]}")
            elif word == "sack":
                edges = [near(e, self.ours) for e in value]
                words.append("sack " + " ".join(f"{l}:{r}" for l, r in zip(edges[::2], edges[1::2])))
            else:
                words.append(f"{word} {value}".strip())
        return {"flags": flags, "seq": f"{left}:{left + length}({length})", "win": win, "options": words,
                "ack": near(ack, self.ours) if bits & 16 else None, "urg": urgent if bits & 32 else None}

    def text(self, s):
        ack = "" if s["ack"] is None else f" ack {s['ack']}"
        urg = "" if s["urg"] is None else f" urg {s['urg']}"
        return f"{s['flags']} {s['seq']}{ack} win {s['win']}{urg} <{','.join(s['options'])}>"

    def expect(self, line, least, most):
        m = re.fullmatch(r"> (\S+) (\S+)(?: ack (-?\d+))?(?: win (>?)(\d+))?(?: urg (\d+))?(?: <(.*)>)?", line)
        if not m:
            raise Wrong("nobody understands this line")
        flags, seq, ack, more, win, urgent, options = m.groups()
        try:
            at, tcp = self.inbox.get(timeout=max(0, self.at + most + LATE - time.monotonic()))
        except queue.Empty:
            raise Wrong(f"nothing comes within {most} s") from None
        s = self.shown(tcp)
        after = at - self.at
        self.seen.append(f"{after:.3f} {self.text(s)}")
        wanted = set(flags) - {"P"}
        fits = set(s["flags"]) == wanted and (seq == "*" or s["seq"] == seq)
        fits = fits and (ack is None and "." not in wanted or ack is None or s["ack"] == int(ack))
        if win is not None:
            fits = fits and (s["win"] > int(win) if more else s["win"] == int(win))
        if urgent is not None:
            fits = fits and s["urg"] == int(urgent)
        if options is not None:
            words = [w.strip() for w in options.split(",")] if options else []
            same = len(words) == len(s["options"])
            for want, got in zip(words, s["options"]):
                same = same and re.fullmatch(re.escape(want).replace(r"\*", ".*"), got)
            fits = fits and same
        if not fits:
            raise Wrong(f"it sends {self.text(s)}")
        if least and after < least * 0.9 - 0.005:
            raise Wrong(f"it comes after {after:.3f} s")
        self.at = at

    def fill(self):
        room, closed = 1000, time.monotonic() + 30
        while room and time.monotonic() < closed:
            length = min(room, 1000)
            self.give(f"< . 1:{1 + length}({length}) ack 1 win 60000")
            try:
                s = self.shown(self.inbox.get(timeout=1 + LATE)[1])
            except queue.Empty:
                raise Wrong("nobody answers") from None
            self.ours = (self.ours + s["ack"] - 1) % 2**32
            if s["ack"] != 1 + length:
                return
            room = s["win"]

    def step(self, line):
        only = re.match(r"(native|netd): (.*)", line)
        if only:
            if only[1] != KIND:
                return
            line = only[2]
        timed = re.match(r"\+([\d.]+)\.\.([\d.]+) (.*)", line)
        least, most, line = (float(timed[1]), float(timed[2]), timed[3]) if timed else (0, 1, line)
        word, *rest = line.split()
        if word == "<":
            self.at = time.monotonic()
            return self.give(line)
        elif word == ">":
            return self.expect(line, least, most)
        elif word == "none":
            try:
                at, tcp = self.inbox.get(timeout=float(rest[0]))
                raise Wrong(f"it sends {self.text(self.shown(tcp))}")
            except queue.Empty:
                pass
        elif word == "windows":
            until = time.monotonic() + float(rest[0])
            while (left := until - time.monotonic()) > 0:
                try:
                    s = self.shown(self.inbox.get(timeout=left)[1])
                except queue.Empty:
                    break
                if s["flags"] != "." or s["ack"] != 1 or not s["seq"].endswith("(0)"):
                    raise Wrong(f"it sends {self.text(s)}")
        elif word == "told":
            self.told(" ".join(rest))
        elif word == "wait":
            time.sleep(float(rest[0]))
        elif word == "fill":
            self.fill()
        elif word == "renumber":
            # Our first number is another one, so much further; the other side begins anew.
            self.ours, self.theirs = (self.ours + int(rest[0])) % 2**32, None
        elif word == "listen":
            self.tell("listen", self.ports["it"])
            self.told("listens")
            # netd hears of it a moment later.
            time.sleep(0.1)
        elif word == "connect":
            self.tell("connect", self.ports["it"], self.ports["us"])
        else:
            self.tell(*line.split())
            # The others are done at once.
            if word in ("write", "shutdown", "close", "urgent", "accept", "drain"):
                self.told()
        self.at = time.monotonic()

    def run(self):
        said = "ok"
        try:
            for number, line in self.lines:
                here = number, line
                self.step(line)
        except Wrong as e:
            before = "".join(f"\n      {s}" for s in self.seen[-6:])
            said = f"line {here[0]}: {here[1]}\n      {e}\n    it sent before (seconds since what was before each):{before}"
        self.said = said
        self.tell("over")


threading.Thread(target=hear, daemon=True).start()
threading.Thread(target=listen_to_guest, daemon=True).start()
paths = sorted(p for p in glob.glob(FOLDER + "/*.pkt") if os.environ.get("CASE", "") in p)
scripts = [Script(n, path) for n, path in enumerate(paths)]
threads = [threading.Thread(target=s.run) for s in scripts]
for n, t in enumerate(threads):
    t.start()
    # Not all at the same moment: a busy machine would be late for all.
    time.sleep(0.05)
for t in threads:
    t.join()
for s in scripts:
    print(f"{s.name}: {s.said}", file=sys.stderr, flush=True)
