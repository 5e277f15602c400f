#!/usr/bin/env python3
"""Hostile clients, many at once: hostile.py HOST:PORT COUNT SECONDS

Each of COUNT connections does what its kind does, again and again, until SECONDS have passed. Prints a JSON object: for each
kind how many rounds it had and which answers it got ("none": it was closed without one, "open": nothing happened). Run by
test_hostile.py in a process of its own, so that its own work does not make the honest deliveries there look slow.
"""
import asyncio
import collections
import json
import os
import socket
import struct
import sys
import time

import harness

PATH = "/webhooks/e2b"
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode()
SIGNATURE = b"e2b-signature: " + b"A" * 43 + b"\r\n"
DRIP_S = 0.5


class Client:
    def __init__(self, reader, writer, deadline):
        self.reader, self.writer, self.deadline = reader, writer, deadline

    async def send(self, data, pause=0.0):
        self.writer.write(data)
        await self.writer.drain()
        if pause:
            await asyncio.sleep(pause)

    def time_left(self):
        return self.deadline - time.monotonic()

    async def drip(self, data):
        for byte in data:
            if self.time_left() < 0:
                return
            await self.send(bytes([byte]), DRIP_S)

    async def endless(self, data):
        while self.time_left() > 0 and not self.reader.at_eof():
            await self.send(data, 0.02)


async def half_open(client):
    pass


async def drip_head(client):
    await client.drip(HEAD + SIGNATURE + b"X-Drip: " + b"x" * 1000)


async def endless_head(client):
    await client.send(HEAD)
    await client.endless(b"X-More: " + b"x" * 500 + b"\r\n")


async def huge_head(client):
    await client.send(HEAD + b"X-Huge: " + b"x" * 300000 + b"\r\n\r\n")


async def slow_body(client):
    await client.send(HEAD + SIGNATURE + b"Content-Length: 10000\r\n\r\n")
    await client.drip(b"{" * 10000)


async def body_of_a_gibibyte(client):
    await client.send(HEAD + SIGNATURE + b"Content-Length: 1073741824\r\n\r\n")
    await client.endless(b"x" * 16384)


async def chunks_without_end(client):
    await client.send(HEAD + SIGNATURE + b"Transfer-Encoding: chunked\r\n\r\n")
    await client.endless(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")


async def bad_chunks(client):
    await client.send(HEAD + SIGNATURE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nwhat\r\n0\r\n\r\n")


async def length_and_coding(client):
    await client.send(HEAD + SIGNATURE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n")


async def pipelined(client):
    await client.send((HEAD + SIGNATURE + b"Content-Length: 2\r\n\r\n{}") * 50, 0.2)


async def leaves_early(client):
    await client.send(HEAD + SIGNATURE + b"Content-Length: 1000\r\n\r\n{", 0.05)
    linger = struct.pack("ii", 1, 0)  # a reset instead of a close in order
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.writer.close()


async def leaves_before_the_answer(client):
    body = harness.encode(harness.event(sandbox_id="left-early"))
    signature = harness.sign_e2b(os.environ["HOSTILE_SECRET"], body)["e2b-signature"]
    await client.send(HEAD + f"Content-Length: {len(body)}\r\ne2b-signature: {signature}\r\n\r\n".encode() + body)
    client.writer.close()


async def garbage(client):
    await client.send(os.urandom(2000) + b"\r\n\r\n")


# Half of them only hold a connection: these cost us little, so there can be many.
KINDS = [half_open, drip_head, half_open, slow_body, half_open, drip_head, half_open, slow_body, drip_head, half_open,
         endless_head, huge_head, body_of_a_gibibyte, chunks_without_end, bad_chunks, length_and_coding, pipelined,
         leaves_early, leaves_before_the_answer, garbage]
# Refused at once, as soon as somebody reads them: who began late is still to see it.
PROMPT, PATIENCE_S = (huge_head, bad_chunks, length_and_coding, pipelined), 5


async def one_round(kind, host, port, deadline, answers):
    reader, writer = await asyncio.open_connection(host, port)
    client = Client(reader, writer, deadline)
    try:
        try:
            await kind(client)
        except OSError:
            pass  # cut off: what was answered may still be read
        first = await asyncio.wait_for(reader.read(4096), max(PATIENCE_S if kind in PROMPT else 0.1, client.time_left()))
        answers[first[9:12].decode("latin-1") if first.startswith(b"HTTP/1.") else "none"] += 1
    except TimeoutError:
        answers["open"] += 1
    except OSError:
        answers["none"] += 1
    finally:
        writer.transport.abort()


async def keep_on(kind, host, port, deadline, answers):
    while time.monotonic() < deadline:
        try:
            await one_round(kind, host, port, deadline, answers)
        except OSError:
            answers["refused"] += 1
        await asyncio.sleep(0.3)


async def main(address, count, seconds):
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    answers = collections.defaultdict(collections.Counter)
    await asyncio.gather(*(keep_on(KINDS[n % len(KINDS)], host, int(port), deadline, answers[KINDS[n % len(KINDS)].__name__])
                           for n in range(count)))
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
