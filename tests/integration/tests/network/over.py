import socket

c = socket.create_connection(("10.99.0.2", 7), 5)
c.sendall(b"over")
c.recv(1)
