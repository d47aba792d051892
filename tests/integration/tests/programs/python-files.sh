# mmap, sqlite3, ctypes and the calls of os on files.
status python3 - <<'P'
import ctypes, ctypes.util, errno, fcntl, hashlib, mmap, os, pathlib, shutil, signal, sqlite3, stat, tempfile, threading
with open('m', 'w+b') as f:
    f.write(b'0123456789' * 20000); f.flush(); m = mmap.mmap(f.fileno(), 0); m[10:15] = b'hello'; m.flush(); f.seek(8); print(f.read(9)); print(m.find(b'hello'), m.size()); f.seek(0); f.write(b'WRITE'); f.flush(); print(m[:6])
    if os.fork() == 0: m[100000:100005] = b'child'; os._exit(0)
    os.wait(); print(m[100000:100005]); m.resize(300000); print(len(m), os.path.getsize('m'), m[299999]); m.close(); c = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY); c[0:1] = b'#'; f.seek(0); print(f.read(1), c[0:1]); ro = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ, offset=4096); print(ro[:4])
    print(hashlib.md5(c[:]).hexdigest())
an = mmap.mmap(-1, 64 << 20); an[5 << 20] = 7; pid = os.fork() or (an.__setitem__(6 << 20, 9), os._exit(0)); os.wait(); print(an[5 << 20], an[6 << 20]); an.madvise(mmap.MADV_DONTNEED); print(len(an))
if (pid := os.fork()) == 0:
    ctypes.string_at(0); os._exit(0)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
db = sqlite3.connect('s.db', timeout=20, check_same_thread=False); db.execute('CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)'); db.executemany('INSERT INTO t(b) VALUES(?)', (('r%d' % (i * 31 % 997),) for i in range(30000))); db.commit(); print(db.execute('SELECT count(*), count(DISTINCT b), max(b) FROM t').fetchone())
db.execute('PRAGMA journal_mode=WAL'); errors = []
def writer(k):
    try:
        d = sqlite3.connect('s.db', timeout=30)
        for i in range(10):
            with d: d.execute('INSERT INTO t(b) VALUES(?)', (f'w{k}-{i}',))
        d.close()
    except Exception as e: errors.append(e)
ts = [threading.Thread(target=writer, args=(k,)) for k in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]; print(errors, db.execute("SELECT count(*) FROM t WHERE b LIKE 'w%'").fetchone()); db.create_function('twice', 1, lambda x: x * 2); print(db.execute('SELECT twice(21)').fetchone())
try: db.execute('INSERT INTO t(a) VALUES(1)')
except sqlite3.IntegrityError as e: print(e)
print('\n'.join(db.iterdump()).count('INSERT'))
libc = ctypes.CDLL(None, use_errno=True); print(libc.strlen(b'four'), libc.open(b'/no/such', 0), errno.errorcode[ctypes.get_errno()]); print(libc.getpid() == os.getpid()); CMP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)); v = (ctypes.c_int * 200)(*[(i * 37) % 200 for i in range(200)]); libc.qsort(v, 200, 4, CMP(lambda a, b: a[0] - b[0])); print(list(v) == list(range(200))); print(ctypes.CDLL(ctypes.util.find_library('m') or 'libm.so.6').abs(-5))
buf = ctypes.create_string_buffer(64); libc.snprintf(buf, 64, b'%05d %s', 42, b'x'); print(buf.value); print(libc.syscall(39) == os.getpid())
fd = os.open('f', os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o640); print(os.write(fd, b'a' * 10000), os.pread(fd, 3, 9998), os.lseek(fd, -1, 2), oct(os.fstat(fd).st_mode)); os.pwrite(fd, b'zz', 5); os.ftruncate(fd, 20); print(os.pread(fd, 99, 0)); print(os.preadv(fd, [bytearray(4), bytearray(4)], 2), os.writev(fd, [b'1', b'22']))
fcntl.lockf(fd, fcntl.LOCK_EX); pid = os.fork()
if pid == 0:
    try: fcntl.lockf(os.open('f', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e: os._exit(e.errno)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (errno.EAGAIN, errno.EACCES)); os.fsync(fd); os.posix_fallocate(fd, 0, 50000); print(os.fstat(fd).st_size); print(os.copy_file_range(fd, os.open('g', os.O_CREAT | os.O_WRONLY), 10), os.sendfile(os.open('h', os.O_CREAT | os.O_WRONLY), fd, 0, 15))
p = pathlib.Path('d/e'); p.mkdir(parents=True); (p / 'x').write_text('x' * 5); (p / 'ln').symlink_to('x'); os.link(p / 'x', p / 'hard'); print(sorted(e.name for e in os.scandir(p)), os.stat(p / 'x').st_nlink, os.readlink(p / 'ln')); shutil.copytree('d', 'k', symlinks=True); print([sorted(f) for _, _, f in os.walk('k')]); os.replace('k/e/x', 'k/y'); os.utime('k/y', ns=(10**9, 2 * 10**9 + 5)); print(os.stat('k/y').st_mtime_ns)
for call in (lambda: os.rmdir('d'), lambda: os.open('f/x', 0), lambda: os.mkdir('d'), lambda: os.unlink('d'), lambda: os.read(99, 1), lambda: os.rename('d', 'd/e/f'), lambda: os.open('d', os.O_WRONLY), lambda: os.link('d', 'l'), lambda: os.symlink('', 'x'), lambda: os.open('x' * 300, 0), lambda: os.readlink('f'), lambda: os.lseek(os.pipe()[0], 0, 0)):
    try: call(); print('?')
    except OSError as e: print(e.errno and errno.errorcode[e.errno], end=' ')
print(); os.setxattr('f', 'user.k', b'v') if hasattr(os, 'setxattr') else None; print(os.listxattr('f'), os.getxattr('f', 'user.k')); fd = os.memfd_create('mem'); os.write(fd, b'mem'); print(os.pread(fd, 3, 0)); ev = os.eventfd(3); print(os.eventfd_read(ev)); dirfd = os.open('d', os.O_RDONLY); print(os.stat('e/x', dir_fd=dirfd).st_size); print(os.access('f', os.W_OK), os.path.samefile('d/e/x', 'd/e/hard')); shutil.rmtree('d'); print(os.path.exists('d')); t = tempfile.TemporaryFile(); t.write(b't'); print(t.tell(), stat.S_ISREG(os.fstat(t.fileno()).st_mode)); print(os.statvfs('.').f_bsize, os.cpu_count() > 0, os.getloadavg() is not None, os.sysconf('SC_PAGE_SIZE'))
P
