#!/usr/bin/env python3
"""Deliveries from inside a machine under test: traffic.py ADDRESS SECRET (--count N | --until FILE), prints a JSON object.

Each delivery is an event of its own on a connection of its own, sent once. `stored` are the ids that were acknowledged,
`others` everything else that became of a delivery. --until: by four senders, until the file exists.
"""
import argparse
import collections
import json
import pathlib
import threading

from harness import encode, event, exchange, http_connection, sign_e2b


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("address")
    parser.add_argument("secret")
    parser.add_argument("--count", type=int)
    parser.add_argument("--until", type=pathlib.Path)
    args = parser.parse_args()
    stored, others = [], collections.Counter()

    def deliver():
        it = event()
        body = encode(it)
        connection = http_connection(args.address, timeout=40)
        try:
            answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(args.secret, body))
        except OSError as error:
            others[type(error).__name__] += 1
            return
        finally:
            connection.close()
        if answer.outcome == "stored":
            stored.append(it["id"])
        else:
            others[str(answer.outcome)] += 1

    def load():
        while not args.until.exists():
            deliver()

    if args.count:
        for _ in range(args.count):
            deliver()
    else:
        senders = [threading.Thread(target=load) for _ in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    print(json.dumps({"stored": stored, "others": others}))


if __name__ == "__main__":
    main()
