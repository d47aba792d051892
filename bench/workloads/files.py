"""What the benchmark runs inside each runtime on files: prints "name nanoseconds" a line.

files.py micro            stat and open+read+close of one file, by Python's own calls
files.py small DIR        every file below DIR is opened, read and closed, twice
files.py big FILE         FILE is read from start to end, twice
files.py programs DIR     python3, find and git as children; DIR is a git work tree
"""
import os
import subprocess
import sys
import threading
import time


def say(name, seconds):
    print(f"{name} {seconds * 1e9:.0f}", flush=True)


def median(rounds, count, body):
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(count):
            body()
        times.append((time.perf_counter() - begun) / count)
    return sorted(times)[rounds // 2]


def micro():
    def read():
        f = os.open("/etc/passwd", os.O_RDONLY)
        os.read(f, 4096)
        os.close(f)

    say("stat, warm, in Python", median(7, 3000, lambda: os.stat("/etc/passwd")))
    say("open+read+close, warm, in Python", median(7, 2000, read))
    say("8 threads that list /etc 100 times each, in Python", threads(8, 100))


def threads(count, times):
    """They hand the interpreter's lock around at every name."""
    def work():
        for _ in range(times):
            os.listdir("/etc")

    all_of_them = [threading.Thread(target=work) for _ in range(count)]
    begun = time.perf_counter()
    for t in all_of_them:
        t.start()
    for t in all_of_them:
        t.join()
    return time.perf_counter() - begun


def small(top):
    names = []
    for folder, folders, files in os.walk(top):
        if ".git" in folders:
            folders.remove(".git")
        names += [os.path.join(folder, f) for f in files]
    for which in ("first time", "again"):
        begun = time.perf_counter()
        for name in names:
            f = os.open(name, os.O_RDONLY)
            os.read(f, 65536)
            os.close(f)
        say(f"open+read+close of a small file, {which} (of {len(names)})", (time.perf_counter() - begun) / len(names))


def big(name):
    buffer = bytearray(1 << 20)
    for which in ("first time", "again"):
        f = os.open(name, os.O_RDONLY)
        begun = time.perf_counter()
        while os.readv(f, [buffer]):
            pass
        say(f"sequential read of 1 GiB, {which}", time.perf_counter() - begun)
        os.close(f)


def programs(tree):
    def run(*words):
        # Not every runtime lets find read everything: what it says of that is not measured.
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("/usr/bin/python3", "-c", "pass")
    say("python3 -c pass, as a child", median(9, 1, lambda: run("/usr/bin/python3", "-c", "pass")))
    for which in ("first time", "again"):
        say(f"find /usr, {which}", median(1, 1, lambda: run("find", "/usr")))
    for which in ("first time", "again"):
        say(f"git status of a large tree, {which}", median(1, 1, lambda: run("git", "-C", tree, "status", "-s")))


{"micro": micro, "small": small, "big": big, "programs": programs}[sys.argv[1]](*sys.argv[2:])
