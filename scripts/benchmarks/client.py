"""A client that costs little: raw sockets in one epoll loop, each sends its request again when the answer is whole.

usage: client.py HOST PORT CONNECTIONS SECONDS REQUEST_FILE, the request as it goes over the wire.  Prints a JSON
object: answers, failures (other than 200, or no answer to a request that was sent), connections that the server ended as
it had said, seconds, and the latencies' median and 99th percentile in ms.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from pathlib import Path

RECEIVED = 16384  # bytes at a time: a large buffer costs more than all else
LIKELY = b"HTTP/1.1 200 "
CLOSE = b"\r\nConnection: close"


def whole(data: bytes) -> int:
    """The length of the answer that begins these bytes, 0 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = data.lower().find(b"\r\ncontent-length:", 0, end) + 2
    return end + 4 + int(data[at + 15 : data.find(b"\r\n", at)])


def main(host: str, port: int, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    poller = select.epoll()
    clients: dict[int, socket.socket] = {}
    for _ in range(connections):
        client = socket.create_connection((host, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[client.fileno()] = client
        poller.register(client, select.EPOLLIN)
    received = dict.fromkeys(clients, b"")
    sent_at = dict.fromkeys(clients, time.perf_counter())
    latencies: list[float] = []
    failed = ended = length = 0
    begun = time.perf_counter()
    for client in clients.values():
        client.sendall(request)
    while clients and time.perf_counter() < begun + seconds:
        for number, _ in poller.poll(1):
            client = clients[number]
            try:
                more = client.recv(RECEIVED)
            except ConnectionError:
                more = b""
            now = time.perf_counter()
            data = received[number] + more
            if len(data) != length or not data.startswith(LIKELY):  # not like the answer before
                length = whole(data)
                if more and (not length or len(data) < length):
                    received[number] = data
                    continue
                failed += not data.startswith(LIKELY)
            ending = not more or data.find(CLOSE, 0, 500) >= 0
            if more:
                latencies.append(now - sent_at[number])
                sent_at[number] = now
                received[number] = data[length:]
                ended += ending
            if ending:
                poller.unregister(number)
                clients.pop(number).close()
            else:
                client.sendall(request)
    taken = time.perf_counter() - begun
    latencies.sort()
    return {
        "answers": len(latencies),
        "failed": failed,
        "ended": ended,
        "seconds": taken,
        "median_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(0.99 * (len(latencies) - 1))],
    }


if __name__ == "__main__":
    host, port, connections, seconds, file = sys.argv[1:]
    print(json.dumps(main(host, int(port), int(connections), float(seconds), Path(file).read_bytes())))  # noqa: T201
