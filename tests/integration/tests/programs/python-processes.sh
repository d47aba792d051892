# subprocess, multiprocessing (fork, spawn, pools, queues, shared memory) and os.* of processes.
cat > p.py <<'P'
import faulthandler, multiprocessing as mp, os, resource, signal, subprocess as sp, sys, time
from multiprocessing import shared_memory
def square(x): return x * x
def put(q, i): q.put((i, os.getpid() != os.getppid()))
def count(v, l):
    for _ in range(500):
        with l: v.value += 1
def child(c): c.send({'got': c.recv()}); c.close()
def boom(_): raise ValueError('boom')
def wait_all(b, e, q): b.wait(); e.wait(); q.put(1)
if __name__ == '__main__':
    faulthandler.dump_traceback_later(50, exit=True)
    print(sp.run(['sort', '-n'], input='3\n1\n2\n', text=True, capture_output=True).stdout.split()); print(sp.run('exit 7', shell=True).returncode)
    p = sp.Popen(['sleep', '60']); p.terminate(); print(p.wait()); print(sp.Popen('kill -9 $$', shell=True).wait())
    try: sp.run(['sleep', '9'], timeout=0.1)
    except sp.TimeoutExpired as e: print('timeout', round(e.timeout, 1))
    try: sp.run(['/no/such'])
    except FileNotFoundError as e: print(e.strerror)
    try: sp.run(['/etc/passwd'])
    except PermissionError as e: print(e.strerror)
    a = sp.Popen(['seq', '20000'], stdout=sp.PIPE); b = sp.Popen(['wc', '-l'], stdin=a.stdout, stdout=sp.PIPE); a.stdout.close(); print(b.communicate()[0].strip(), a.wait())
    print(sp.check_output('echo $X; pwd', shell=True, env={'X': 'env'}, cwd='/usr')); print(sp.run(['sh', '-c', 'echo e >&2'], stderr=sp.STDOUT, stdout=sp.PIPE).stdout)
    big = sp.Popen(['cat'], stdin=sp.PIPE, stdout=sp.PIPE); out = big.communicate(b'x' * 3_000_000)[0]; print(len(out)); ps = [sp.Popen(['sh', '-c', f'exit {i}']) for i in range(20)]; print([p.wait() for p in ps] == list(range(20)))
    print(sp.run(['sh', '-c', 'ps -o pgid= -p $$'], start_new_session=True, capture_output=True).returncode, sp.run(['id', '-u'], user=65534, capture_output=True).stdout); r, w = os.pipe(); sp.run(['sh', '-c', f'echo kept >&{w}'], pass_fds=[w]); print(os.read(r, 10))
    for method in ('fork', 'spawn', 'forkserver'):
        c = mp.get_context(method)
        with c.Pool(3) as pool: print(method, sum(pool.map(square, range(200))), pool.apply(square, (9,)))
        a, b = c.Pipe(); p = c.Process(target=child, args=(b,)); p.start(); a.send([1, 'two']); print(a.recv()); p.join(); print(p.exitcode)
    q = mp.Queue(); ps = [mp.Process(target=put, args=(q, i)) for i in range(6)]; [p.start() for p in ps]; print(sorted(q.get() for _ in ps)); [p.join() for p in ps]
    v, l = mp.Value('i', 0), mp.Lock(); ps = [mp.Process(target=count, args=(v, l)) for _ in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; print(v.value)
    m = shared_memory.SharedMemory(create=True, size=1 << 20); m.buf[:5] = b'share'
    if (pid := os.fork()) == 0: n = shared_memory.SharedMemory(name=m.name); n.buf[5:9] = b'd by'; n.close(); os._exit(0)
    print(os.waitpid(pid, 0)[1], bytes(m.buf[:9])); m.close(); m.unlink(); print(m.name.lstrip('/') in os.listdir('/dev/shm'))
    b, e, q = mp.Barrier(4), mp.Event(), mp.SimpleQueue(); ps = [mp.Process(target=wait_all, args=(b, e, q)) for _ in range(3)]; [p.start() for p in ps]; b.wait(); e.set(); [p.join() for p in ps]; print(sum(q.get() for _ in ps))
    with mp.Pool(2) as pool:
        try: pool.map(boom, [1])
        except ValueError as x: print(x)
    with mp.Manager() as man: d = man.dict(); d['k'] = [1]; print(dict(d))
    p = mp.Process(target=time.sleep, args=(60,)); p.start(); p.kill(); p.join(); print(p.exitcode); pid = os.posix_spawn('/bin/sh', ['sh', '-c', 'exit 5'], {}); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pid = os.fork() or os._exit(8); st = os.waitid(os.P_PID, pid, os.WEXITED); print(st.si_status, st.si_code == os.CLD_EXITED); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime >= 0); r, w = os.pipe()
    if os.fork() == 0: os.close(r); signal.alarm(0); os.write(w, b'a' * 100000); os._exit(0)
    os.close(w); n = 0
    while c := os.read(r, 7777): n += len(c)
    print(n, os.wait()[1]); sys.stdout.flush(); os.execv(sys.executable, [sys.executable, '-c', 'print("execed"); raise SystemExit(3)'])
P
status python3 p.py
