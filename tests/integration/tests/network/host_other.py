# A program of the host's that listens at its loopback address, and calls where it is told to.
import socket
import struct
import threading

tcp = socket.create_server(("127.0.0.1", 9999))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 9999))


def echo():
    while True:
        data, whence = udp.recvfrom(65536)
        udp.sendto(data, whence)


def obey(conn):
    while order := conn.recv(3):
        kind, port = struct.unpack("!BH", order)
        try:
            if kind == 1:
                socket.create_connection(("127.0.0.1", port)).sendall(b"called")
            else:
                udp.sendto(b"called", ("127.0.0.1", port))
        except OSError as e:
            conn.sendall(e.strerror.encode())


threading.Thread(target=echo, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=obey, args=(tcp.accept()[0],), daemon=True).start()
