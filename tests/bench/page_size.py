#!/usr/bin/env python3
"""Decides what is fixed when a store is created: page_size and auto_vacuum.

Inserts events like the daemon's log (the real schema, a block of bodies a batch of 64, synchronous=FULL, PASSIVE checkpoints at 1,000 pages)
under each setting, in turns, and prints rows/s, bytes written to the write-ahead log per row, file size per row, and what
deleting the older half gives back.
"""
import os
import random
import sqlite3
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = os.path.join(HERE, '..', '..', 'schema', 'sqlite', '0001-initial.sql')
ROWS, BATCH = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000, 64
EVENT = ('INSERT INTO event (seq, time_s, time_frac_ns, id, received_delta_ms, traits_key, delivery_id, deliveries, body_at, body_len,'
         ' id_at) VALUES (?,?,?,?,?,1,?,1,?,?,?)')
BLOCK = 'INSERT INTO body_block (first_seq, bodies) VALUES (?,?)'


def one(directory, page_size, auto_vacuum):
    path = os.path.join(directory, f's{page_size}-{auto_vacuum}.db')
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f'PRAGMA page_size={page_size}')
    db.execute(f'PRAGMA auto_vacuum={auto_vacuum}')
    db.execute('PRAGMA journal_mode=WAL')
    db.execute('PRAGMA synchronous=FULL')
    db.execute('PRAGMA wal_autocheckpoint=0')
    with open(SCHEMA, encoding='utf-8') as f:
        db.executescript(f.read())
    rng = random.Random(1)
    frames, seq, began = 0, 0, time.monotonic()
    while seq < ROWS:
        db.execute('BEGIN IMMEDIATE')
        first, at = seq + 1, 0
        for _ in range(BATCH):
            seq += 1
            size = rng.randrange(450, 1100)
            db.execute(EVENT, (seq, 1_790_000_000 + seq // 9000, rng.randrange(10**9), uuid.UUID(int=rng.getrandbits(128)).bytes,
                               rng.randrange(900), uuid.UUID(int=rng.getrandbits(128)).bytes, at, size, 20))
            at += size - 36
        db.execute(BLOCK, (first, b'x' * at))
        db.execute('COMMIT')
        if seq % (BATCH * 16) == 0:
            frames += db.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone()[1]
    seconds = time.monotonic() - began
    frames += db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[1]
    size = os.path.getsize(path)
    db.execute('DELETE FROM event WHERE seq <= ?', (ROWS // 2,))
    db.execute('DELETE FROM body_block WHERE first_seq <= ?', (ROWS // 2 - BATCH,))
    db.executescript('PRAGMA incremental_vacuum;')
    db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    after = os.path.getsize(path)
    db.close()
    return ROWS / seconds, frames * (page_size + 24) / ROWS, size / ROWS, after / size


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get('BENCH_DIR')) as directory:
        print('page_size auto_vacuum   rows/s  wal_bytes/row  file_bytes/row  left_after_pruning_half')
        for _ in range(3):
            for page_size in (4096, 8192, 16384):
                for auto_vacuum in (0, 2):
                    rate, wal, size, left = one(os.path.join(directory), page_size, auto_vacuum)
                    print(f'{page_size:9} {("none", "", "incremental")[auto_vacuum]:11} {rate:8.0f} {wal:14.0f} {size:15.0f} {left:12.2f}')
                    for name in os.listdir(directory):
                        os.remove(os.path.join(directory, name))


main()
