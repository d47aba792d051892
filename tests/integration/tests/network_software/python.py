"""asyncio's streams, TLS, datagrams and executors, and urllib, both ends."""
import asyncio, hashlib, http.client, ssl, sys, urllib.request

what, folder = sys.argv[1:3]


async def talk(reader, writer):
    try:
        while line := await reader.readline():
            n = int(line)
            data = await reader.readexactly(n)
            writer.write(hashlib.md5(data).hexdigest().encode() + b"\n" + data[::-1])
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError) as e:
        print("within:", e, file=sys.stderr)
    writer.close()


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, who):
        self.transport.sendto(data[::-1], who)


async def serve():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Echo, local_addr=("0.0.0.0", 9003))
    await asyncio.start_server(talk, None, 9001, backlog=300)
    tls = await asyncio.start_server(talk, None, 9002, backlog=300, ssl=context)
    await tls.serve_forever()


async def one(host, port, n, context):
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    for size in (1, 100 * n, 100_000 if n % 20 == 0 else 5):
        data = bytes([n & 255]) * (size - 1) + b"."
        writer.write(b"%d\n" % size + data)
        await writer.drain()
        digest = (await reader.readline()).strip().decode()
        back = await reader.readexactly(size)
        if digest != hashlib.md5(data).hexdigest() or back != data[::-1]:
            return False
    writer.close()
    await writer.wait_closed()
    return True


class Asker(asyncio.DatagramProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()

    def datagram_received(self, data, who):
        self.answers.put_nowait(data)


async def ask(host):
    context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
    for name, port, count, tls in (("plain", 9001, 200, None), ("tls", 9002, 60, context)):
        done = await asyncio.gather(*(one(host, port, n, tls) for n in range(count)))
        print(name, count, all(done))
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=(host, 9003))
    right = 0
    for n in range(200):
        transport.sendto(b"%d" % n)
        right += await asyncio.wait_for(asker.answers.get(), 10) == (b"%d" % n)[::-1]
    transport.close()
    print("datagrams", right)
    try:
        await asyncio.open_connection(host, 9009)
    except OSError as e:
        print("refused", e.errno)
    # A connection that is given up while nothing comes.
    reader, writer = await asyncio.open_connection(host, 9001)
    try:
        await asyncio.wait_for(reader.readline(), 0.3)
    except asyncio.TimeoutError:
        print("nothing came")
    writer.close()

    def fetch(n):
        with urllib.request.urlopen(f"http://{host}:8000/1m", timeout=30) as answer:
            return hashlib.md5(answer.read()).hexdigest()

    print(len(set(await asyncio.gather(*(asyncio.to_thread(fetch, n) for n in range(12))))))
    c = http.client.HTTPConnection(host, 8000, timeout=30)
    for path in ("/1k", "/nosuch"):
        c.request("GET", path)
        answer = c.getresponse()
        print(answer.status, len(answer.read()), answer.getheader("Content-type"))


asyncio.run(serve() if what == "serve" else ask(sys.argv[3]))
