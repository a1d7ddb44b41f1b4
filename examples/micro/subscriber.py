#!/usr/bin/env python3
"""Prints what is published on a topic, with nothing but the standard library: a websocket by hand.

    ./subscriber.py news --micro 127.0.0.1:8081
    ./subscriber.py news --query durable=me        # goes on where it was, whatever was published meanwhile
"""

import argparse
import base64
import json
import os
import socket
import struct
import urllib.parse

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def connect(address, target):
    """Asks for a websocket; the stream behind the 101."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    stream = connection.makefile("rwb")
    status = stream.readline().decode().strip()
    while stream.readline().strip():
        pass
    if " 101 " not in status:
        raise SystemExit(f"no websocket: {status}")
    return stream


def read(stream):
    """One frame: its opcode and its payload. The daemon sends whole messages."""
    head, length = stream.read(2)
    length &= 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", stream.read(8))
    return head & 0x0F, stream.read(length)


def write(stream, opcode, payload):
    """One frame of at most 125 bytes, masked as clients must."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    stream.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)
    stream.flush()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("topic")
    arguments.add_argument("--micro", default="127.0.0.1:8081", help="where the daemon's micro listener is")
    arguments.add_argument("--query", default="", help="further parameters, such as queue=q or from=start")
    arguments = arguments.parse_args()

    topic = urllib.parse.quote(arguments.topic, safe="")
    stream = connect(arguments.micro, f"/broker?topic={topic}&{arguments.query}".rstrip("&"))
    print("subscribed", flush=True)
    while True:
        opcode, payload = read(stream)
        if opcode == PING:
            write(stream, PONG, payload)
        elif opcode == CLOSE:
            write(stream, CLOSE, payload[:2])
            return
        elif opcode == TEXT:
            message = json.loads(payload)
            print(base64.b64decode(message["Body"]).decode(errors="replace"), flush=True)


if __name__ == "__main__":
    main()
