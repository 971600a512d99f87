#!/usr/bin/env python3
"""tests/bench/compare: it compares, and does not compare what answers wrongly or not at all."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

# Listens, and speaks something else.
NO_PEER = """#!/usr/bin/env python3
import socket, sys
host, port = sys.argv[sys.argv.index("--listen") + 1].split(":")
with socket.create_server((host, int(port))) as listener:
    while True:
        with listener.accept()[0] as client:
            client.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
"""

BENCH = pathlib.Path(__file__).resolve().parent.parent


class CompareTest(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="compare-", dir=os.environ["TEST_WORK"])
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def compare(self, *flags):
        return subprocess.run(
            [BENCH / "compare", "--server", os.environ["TEST_SERVER"]]
            + ["--load", os.environ["TEST_LOAD"], "--peers", self.work]
            + ["--out", self.work / "out.json", "--seconds", "0.05", "--rounds", "3", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=280,
        )

    def test_every_cell_has_every_server_and_its_ratios(self):
        done = self.compare("--peer", "same=" + os.environ["TEST_SERVER"])
        self.assertEqual(done.returncode, 0, done.stderr)
        cells = json.loads((self.work / "out.json").read_text())["runs"]["cells"]
        self.assertEqual([cell["method"] for cell in cells], ["append", "read"])
        for cell in cells:
            self.assertLessEqual({"payloadstored", "same"}, set(cell["servers"]))
            for figures in cell["servers"].values():
                for of in figures.values():
                    self.assertEqual(len(of["runs"]), 3)
                    self.assertEqual(of["median"], sorted(of["runs"])[1])
                    self.assertGreater(of["ours"]["median"], 0)
            self.assertEqual(cell["servers"]["payloadstored"]["calls/s"]["ours"]["median"], 1)
        self.assertRegex(done.stdout, r"(?m)^  same .*\d\.\d\d$")
        self.assertEqual(list(self.work.iterdir()), [self.work / "out.json"], "no data is left")

    def test_a_peer_that_does_not_serve_ends_it(self):
        done = self.compare("--peer", "none=/bin/false")
        self.assertEqual(done.returncode, 1)
        self.assertIn("none does not serve", done.stderr)

    def test_a_peer_that_answers_wrongly_ends_it(self):
        peer = self.work / "peer"
        peer.write_text(NO_PEER)
        peer.chmod(0o755)
        done = self.compare("--peer", f"other={peer}")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("other answered append wrongly", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
