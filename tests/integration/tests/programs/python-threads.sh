# Threads of Python: locks, conditions, queues, pools, timers, signals to the main thread.
status python3 - <<'P'
import concurrent.futures as cf, faulthandler, hashlib, os, queue, select, signal, socket, struct, tempfile, threading, time, zlib
faulthandler.dump_traceback_later(50, exit=True)
n = 0; lock = threading.Lock()
def add():
    global n
    for _ in range(3000):
        with lock: n += 1
ts = [threading.Thread(target=add) for _ in range(10)]; [t.start() for t in ts]; [t.join() for t in ts]; print(n)
q, r = queue.Queue(5), queue.Queue()
def work():
    while (i := q.get()) is not None: r.put(hashlib.sha256(b'%d' % i * 100).hexdigest())
ws = [threading.Thread(target=work) for _ in range(4)]; [w.start() for w in ws]
[q.put(i) for i in range(500)]; [q.put(None) for _ in ws]; [w.join() for w in ws]
print(hashlib.md5(''.join(sorted(r.get() for _ in range(500))).encode()).hexdigest())
with cf.ThreadPoolExecutor(8) as pool: print(sum(pool.map(lambda i: zlib.crc32(bytes([i]) * 20000), range(100))))
e, b = threading.Event(), threading.Barrier(5); out = []
def meet(i): b.wait(); e.wait(); out.append(i)
ms = [threading.Thread(target=meet, args=(i,)) for i in range(4)]; [m.start() for m in ms]; b.wait(); print(len(out)); e.set(); [m.join() for m in ms]; print(sorted(out))
c = threading.Condition(); print(c.acquire() and not c.wait(0.02)); print(lock.acquire() and lock.acquire(timeout=0.02)); lock.release()
t = threading.Timer(0.02, lambda: out.append('timer')); t.start(); t.join(); print(out[-1])
hits = []; signal.signal(signal.SIGUSR1, lambda *_: hits.append(threading.current_thread() is threading.main_thread()))
k = threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGUSR1) or time.sleep(0.01) for _ in range(3)]); k.start(); k.join(); time.sleep(0.01); print(all(hits), len(hits))
signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1); print(len(hits) == 4 or hits)
signal.setitimer(signal.ITIMER_REAL, 0.03); signal.signal(signal.SIGALRM, lambda *_: hits.append('alarm')); time.sleep(0.1); print(hits[-1])
a, z = socket.socketpair(); p = select.poll(); p.register(a, select.POLLIN); print(p.poll(10)); threading.Timer(0.02, z.send, (b'x',)).start(); print(p.poll(1000)[0][1])
ep = select.epoll(); ep.register(a, select.EPOLLIN | select.EPOLLET); print(len(ep.poll(1)), len(ep.poll(0.01))); print(a.recv(9)); z.close(); print(ep.poll(1)[0][1] & select.EPOLLHUP > 0); print(select.select([a], [], [], 1)[0] == [a])
print(threading.active_count(), len(os.listdir('/proc/self/task'))); local = threading.local(); local.x = 1
def other():
    try: local.x
    except AttributeError: print('own')
o = threading.Thread(target=other); o.start(); o.join()
s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()
def serve():
    for _ in range(20):
        c, _a = s.accept(); d = c.recv(100); c.sendall(d.upper()); c.close()
sv = threading.Thread(target=serve); sv.start(); got = []
for i in range(20):
    c = socket.socket(socket.AF_UNIX); c.connect('s'); c.sendall(b'msg%d' % i); got.append(c.recv(100)); c.close()
sv.join(); print(got[-1]); rfd, wfd = os.pipe()
u, v = socket.socketpair(); socket.send_fds(u, [b'fd'], [wfd]); m, fds, *_ = socket.recv_fds(v, 10, 4); os.write(fds[0], b'passed'); print(m, os.read(rfd, 10))
print(struct.unpack('3i', u.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
P
