"""Floods a closed port of closed.py's and counts what comes back."""
import select
import socket
import time


def ask(word):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.2)
    for _ in range(100):
        try:
            s.sendto(word, ("10.99.0.2", 7777))
            if s.recv(100) == word:
                return
        except OSError:
            pass
    print("no answer to", word)


def flood(family, host, protocol, kind, at, tries):
    """Errors about datagrams that were sent all at once."""
    hears = socket.socket(family, socket.SOCK_RAW, protocol)
    sends = socket.socket(family, socket.SOCK_DGRAM)
    for _ in range(tries):
        sends.sendto(b"nobody", (host, 9))
    n = 0
    while select.select([hears], [], [], 0.05)[0]:
        n += hears.recv(2000)[at] == kind
    return n


ask(b"hello")
ENDS = ((socket.AF_INET, "10.99.0.2", socket.IPPROTO_ICMP, 3, 20), (socket.AF_INET6, "fd99::2", socket.IPPROTO_ICMPV6, 1, 0))
for end in ENDS:
    # What was sent before is forgotten.
    time.sleep(7)
    n = flood(*end, 60)
    print(end[1], "a few of many")
    assert 5 <= n <= 9, n
    time.sleep(1.2)
    assert flood(*end, 1) == 1, "a moment later"
ask(b"free")
for end in ENDS:
    time.sleep(1)
    n = flood(*end, 200)
    print(end[1], "of many more")
    assert 40 <= n <= 120, n
ask(b"end")
