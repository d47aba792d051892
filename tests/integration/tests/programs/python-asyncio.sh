# asyncio without a network: tasks, subprocesses, Unix sockets, signals, executors, pipes.
status python3 - <<'P'
import asyncio, os, signal, time
async def main():
    t = time.monotonic(); await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(200))); print(0.05 <= time.monotonic() - t < 5)
    p = await asyncio.create_subprocess_exec('cat', stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE); print((await p.communicate(b'y' * 300000))[0].count(b'y'), p.returncode)
    ps = await asyncio.gather(*(asyncio.create_subprocess_shell(f'exit {i}') for i in range(8))); print([await p.wait() for p in ps])
    p = await asyncio.create_subprocess_exec('sleep', '60'); p.send_signal(signal.SIGINT); print(await p.wait())
    async def serve(r, w):
        while line := await r.readline(): w.write(line.upper()); await w.drain()
        w.close()
    server = await asyncio.start_unix_server(serve, 'sock')
    async def client(i):
        r, w = await asyncio.open_unix_connection('sock'); n = 0
        for k in range(20): w.write(b'hello %d %d\n' % (i, k)); n += len(await r.readline())
        w.close(); await w.wait_closed(); return n
    print(sum(await asyncio.gather(*(client(i) for i in range(15))))); server.close()
    try: await asyncio.wait_for(asyncio.sleep(10), 0.02)
    except asyncio.TimeoutError: print('timeout')
    loop = asyncio.get_running_loop(); got = asyncio.Event(); loop.add_signal_handler(signal.SIGUSR1, got.set); os.kill(os.getpid(), signal.SIGUSR1); await asyncio.wait_for(got.wait(), 5); print('signal')
    print(sum(await asyncio.gather(*(loop.run_in_executor(None, pow, i, 2) for i in range(50))))); q = asyncio.Queue(3)
    async def make():
        for i in range(100): await q.put(i)
        await q.put(None)
    task = asyncio.create_task(make()); s = 0
    while (i := await q.get()) is not None: s += i
    await task; print(s); r, w = os.pipe(); reader = asyncio.StreamReader(); await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(r, 'rb'))
    loop.call_later(0.02, lambda: (os.write(w, b'through a pipe'), os.close(w))); print(await reader.read()); task = asyncio.create_task(asyncio.sleep(9)); await asyncio.sleep(0); task.cancel()
    try: await task
    except asyncio.CancelledError: print('cancelled')
asyncio.run(main()); raise SystemExit(4)
P
