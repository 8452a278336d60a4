#!/usr/bin/env python3
"""A client of mzd's streams, with nothing but Python's standard library.

    client.py http://127.0.0.1:8875 top10 counter

follows views as one cut, verifies every state, comes back after every loss of
the connection, and prints what it holds after each message, one JSON object a
line. It is written from docs/protocol.md alone.
"""

import argparse
import http.client
import json
import random
import sys
import time
import urllib.parse

WIDE = {"int8", "uint8", "numeric", "mz_timestamp"}
M32, M64 = 2**32 - 1, 2**64 - 1


def xxh32(data, seed):
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393

    def rotate(x, n):
        return (x << n | x >> 32 - n) & M32

    def word(i):
        return int.from_bytes(data[i : i + 4], "little")

    i = 0
    if len(data) >= 16:
        lanes = [seed + p1 + p2 & M32, seed + p2 & M32, seed, seed - p1 & M32]
        while i + 16 <= len(data):
            for lane in range(4):
                lanes[lane] = rotate(lanes[lane] + word(i) * p2 & M32, 13) * p1 & M32
                i += 4
        h = sum(rotate(v, n) for v, n in zip(lanes, (1, 7, 12, 18))) & M32
    else:
        h = seed + p5 & M32
    h = h + len(data) & M32
    while i + 4 <= len(data):
        h = rotate(h + word(i) * p3 & M32, 17) * p4 & M32
        i += 4
    while i < len(data):
        h = rotate(h + data[i] * p5 & M32, 11) * p1 & M32
        i += 1
    h = (h ^ h >> 15) * p2 & M32
    h = (h ^ h >> 13) * p3 & M32
    return h ^ h >> 16


def row_hash(text):
    data = text.encode()
    return xxh32(data, 0) + (xxh32(data, 1) << 32)


class Text(str):
    """The text of a value or of a row, as it came."""


def parse(text, at=0):
    """Parses the JSON value at a place, but leaves the rows of inserted and
    deleted as lists of the Texts of their values. Messages are compact."""
    if text[at] == "{":
        value, at = {}, at + 1
        while text[at] != "}":
            name, at = json.JSONDecoder().raw_decode(text, at + (text[at] == ","))
            if name in ("inserted", "deleted") and text[at + 1] == "[":
                value[name], at = parse_list(text, at + 1, lambda t, a: parse_list(t, a, parse_text))
            else:
                value[name], at = parse(text, at + 1)
        return value, at + 1
    return json.JSONDecoder().raw_decode(text, at)


def parse_list(text, at, element):
    values, at = [], at + 1
    while text[at] != "]":
        value, at = element(text, at + (text[at] == ","))
        values.append(value)
    return values, at + 1


def parse_text(text, at):
    _, end = json.JSONDecoder().raw_decode(text, at)
    return Text(text[at:end]), end


def is_number(text):
    try:
        return isinstance(json.loads(text), (int, float)) and text[0] in "-0123456789"
    except ValueError:
        return False


class Missed(Exception):
    """What is held does not fit what came: start over."""


class View:
    def __init__(self, columns):
        self.wide = [c["type"] in WIDE for c in columns]
        self.rows = {}
        self.sum = 0

    def change(self, values, copies):
        row = "[" + ",".join(values) + "]"
        self.rows[row] = self.rows.get(row, 0) + copies
        if self.rows[row] < 0:
            raise Missed("a row was deleted that is not there: " + row)
        if self.rows[row] == 0:
            del self.rows[row]
        plain = [v[1:-1] if wide and v[0] == '"' and is_number(v[1:-1]) else v for v, wide in zip(values, self.wide)]
        self.sum = self.sum + copies * row_hash("[" + ",".join(plain) + "]") & M64

    def list(self):
        return sorted(row for row, copies in self.rows.items() for _ in range(copies))


class Client:
    def __init__(self, url, views, sse, numbers):
        self.url, self.names, self.sse, self.numbers = urllib.parse.urlsplit(url), views, sse, numbers
        self.token, self.timestamp, self.views, self.bases = "", "", {}, 0
        self.retry = 0  # what the server said to wait, in seconds

    def connect(self):
        """Yields the messages of one connection, as text."""
        query = [("view", name) for name in self.names] + [("numbers", "string")] * self.numbers
        headers = {}
        if self.sse:
            headers["Accept"] = "text/event-stream"
            if self.token:
                headers["Last-Event-ID"] = self.token
        elif self.token:
            query.append(("since", self.token))
        connection = http.client.HTTPConnection(self.url.netloc, timeout=45)
        try:
            connection.request("GET", "/api/stream?" + urllib.parse.urlencode(query), headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                yield response.read().decode()
                return
            for line in response:
                line = line.decode().rstrip("\n")
                if not self.sse:
                    yield line
                elif line.startswith("data:"):
                    yield line[5:].removeprefix(" ")
        finally:
            connection.close()

    def messages(self):
        """Yields after each message that was applied, for one connection."""
        parts = []
        for text in self.connect():
            message, _ = parse(text)
            if message["type"] == "error":
                print(message["code"], message["message"], file=sys.stderr)
                if message["code"] == "bad_token":
                    self.token = ""
                self.retry = message.get("retry_ms", 0) / 1000
                continue  # of one that ends the stream nothing comes after it
            parts.append(message)
            if message.get("more"):
                continue
            self.apply(parts)
            parts = []
            yield message

    def apply(self, parts):
        last = parts[-1]
        if last["type"] == "delta" and last["from"] != self.token:
            raise Missed("a delta from " + last["from"])
        if last["type"] == "base":
            self.bases += 1
            self.views = {}
        for part in parts:
            for name, view in self.by_view(part):
                if "columns" in view:
                    self.views[name] = View(view["columns"])
                for row in view.get("inserted", []):
                    self.views[name].change(row, 1)
                for row in view.get("deleted", []):
                    self.views[name].change(row, -1)
        for name, view in self.by_view(last):
            if view["checksum"] != f"{self.views[name].sum:016x}":
                raise Missed("the checksum of " + name)
        self.token, self.timestamp = last["token"], last["timestamp"]

    def by_view(self, message):
        return message["views"].items() if "views" in message else [(message["view"], message)]

    def run(self, leave_after):
        """Yields after each message, for ever. It leaves by itself now and then
        if it is told to."""
        wait = 0.25
        while True:
            count = 0
            try:
                for count, message in enumerate(self.messages(), 1):
                    wait = 0.25
                    yield message
                    if 0 < leave_after == count:
                        break
                if 0 < leave_after == count:
                    continue
            except (OSError, http.client.HTTPException) as lost:
                print("lost the connection:", lost, file=sys.stderr)
            except Missed as missed:
                print("starting over:", missed, file=sys.stderr)
                self.token = ""
            time.sleep(self.retry + random.uniform(0, wait))
            self.retry = 0
            wait = min(2 * wait, 10)


def main():
    options = argparse.ArgumentParser(description="Follows views of mzd.")
    options.add_argument("url")
    options.add_argument("view", nargs="+")
    options.add_argument("--sse", action="store_true", help="server-sent events instead of JSON lines")
    options.add_argument("--numbers", action="store_true", help="ask for numbers=string")
    options.add_argument("--leave-after", type=int, default=0, help="leave after so many messages, and come back")
    options.add_argument("--until", default="", help="end once the first view has a row that begins like this")
    o = options.parse_args()
    client = Client(o.url, o.view, o.sse, o.numbers)
    for message in client.run(o.leave_after):
        views = {name: view.list() for name, view in client.views.items()}
        print(json.dumps({"type": message["type"], "timestamp": client.timestamp, "views": views}), flush=True)
        if o.until and any(row.startswith(o.until) for row in views[o.view[0]]):
            return


if __name__ == "__main__":
    main()
