#!/usr/bin/env python3
"""ghz, as its users run it: 20,000 appends and 20,000 reads of 1 KiB at concurrency 50, and not one
error. Its summary is shown, with what the server used of the processor for each call."""

import base64
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from payloadstored import SERVICE, SOON, ServerTest, report, stubs, tool  # noqa: E402

CALLS = 20000
CONCURRENCY = 50
PAYLOAD = bytes(range(256)) * 4


class GhzTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.server = self.serve()

    def ghz(self, title, method, *data):
        before = self.server.cpu_seconds()
        done = subprocess.run(
            [tool("ghz"), "--insecure", "--call", f"{SERVICE}.{method}"]
            + ["-n", str(CALLS), "-c", str(CONCURRENCY), *data, self.server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        used = self.server.cpu_seconds() - before
        said = done.stdout
        self.assertEqual(done.returncode, 0, said)
        self.assertRegex(said, rf"(?m)^\s*Count:\s*{CALLS}$")
        statuses = re.findall(r"(?m)^\s*\[(\w+)\]\s+(\d+) responses", said)
        self.assertEqual(statuses, [("OK", str(CALLS))], said)
        self.assertNotIn("Error distribution", said)
        summary = [line.rstrip() for line in said.splitlines() if line.strip()]
        # ghz's histogram and its latencies say the same twice.
        if "Response time histogram:" in summary:
            start = summary.index("Response time histogram:")
            stop = summary.index("Latency distribution:")
            summary[start:stop] = []
        report(
            f"{title}:",
            *summary,
            f"Server CPU: {used * 1e6 / CALLS:.1f} us a call",
        )

    def append(self, title, durability):
        payload = base64.b64encode(PAYLOAD).decode()
        request = {"store": "ghz", "payload": payload, "durability": durability}
        self.ghz(title, "Append", "-d", json.dumps(request))
        pb = stubs()[0]
        stat = self.server.stub().Stat(pb.StatRequest(store="ghz"), timeout=SOON)
        self.assertEqual(stat.records, CALLS)
        self.assertEqual(stat.disk_usage_bytes, CALLS * (4 + len(PAYLOAD)))

    def test_appends_that_wait_for_the_device(self):
        self.append("Append 1 KiB, SYNCED", "DURABILITY_UNSPECIFIED")

    def test_appends_that_do_not_wait_for_the_device(self):
        self.append("Append 1 KiB, BUFFERED", "DURABILITY_BUFFERED")

    def test_reads(self):
        pb, _ = stubs()
        stub = self.server.stub()
        requests = []
        for number in range(1000):
            payload = number.to_bytes(4, "little") + PAYLOAD[4:]
            ref = stub.Append(
                pb.AppendRequest(payload=payload, durability=pb.DURABILITY_BUFFERED), timeout=SOON
            ).ref
            requests.append(
                {
                    "ref": {
                        "fileId": ref.file_id,
                        "offset": ref.offset,
                        "length": ref.length,
                        "crc32c": ref.crc32c,
                    }
                }
            )
        # ghz takes them in turn.
        path = self.work / "refs.json"
        path.write_text(json.dumps(requests))
        self.ghz("Read 1 KiB", "Read", "-D", str(path))


if __name__ == "__main__":
    unittest.main(verbosity=2)
