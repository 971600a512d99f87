#!/usr/bin/env python3
"""tests/bench/mixed, and what of the load generator it takes beside the rest."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH))

import bench  # noqa: E402

LOAD, COMPACT = os.environ["TEST_LOAD"], os.environ["TEST_COMPACT"]
KINDS = {"append", "hot read", "cold read"}
SOON = 60


class MixedTest(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="mixed-", dir=os.environ["TEST_WORK"])
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def mixed(self, *flags):
        return subprocess.run(
            [BENCH / "mixed", "--server", os.environ["TEST_SERVER"], "--load", LOAD]
            + ["--compact", COMPACT, "--out", self.work / "out.json", "--rounds", "2"]
            + ["--seconds", "0.2", "--cold-mb", "16", "--rate", "1500", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=280,
        )

    def test_every_kind_of_call_with_and_without_a_compaction(self):
        done = self.mixed()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(self.work.iterdir()), [self.work / "out.json"], "no data is left")
        document = json.loads((self.work / "out.json").read_text())
        self.assertEqual([point["point"] for point in document["points"]], [7] * 4)
        for point in document["points"]:
            self.assertEqual((point["bound"], point["at_most"]), (2.0, True))
            self.assertGreater(point["value"]["median"], 0)
        self.assertEqual(
            {plot["name"] for plot in document["plots"]},
            {"mixed-append", "mixed-hot-read", "mixed-cold-read"},
        )
        for rounds in document["runs"]["series"].values():
            self.assertEqual(len(rounds), 2)
            for a_round in rounds:
                self.check_round(a_round)

    def check_round(self, a_round):
        for part in ("with", "without"):
            self.assertEqual(set(a_round[part]["runs"]), KINDS)
            for run in a_round[part]["runs"].values():
                self.assertGreater(run["calls"], 0)
                self.assertEqual(run["wrong"], 0)
        compaction = a_round["with"]["compaction"]
        self.assertEqual(compaction["live_records"], 16 * 1024 / 2)
        self.assertEqual(compaction["relocated_bytes"], 16 * 1024 / 2 * 1028)

    def test_a_compaction_that_fails_ends_it(self):
        done = self.mixed("--compact", "/bin/false")
        self.assertEqual(done.returncode, 1)
        self.assertIn("the compaction failed", done.stderr)

    def load(self, server, *flags):
        return subprocess.Popen(
            [LOAD, "--address", server.address, "--json", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_the_load_reads_what_it_is_told_of_and_ends_when_interrupted(self):
        refs = self.work / "refs"
        with bench.Server("payloadstored", os.environ["TEST_SERVER"], self.work) as server:
            with subprocess.Popen(
                [COMPACT, server.address, "kept", "100", "500", refs, "50"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            ) as broker:
                self.assertEqual(json.loads(broker.stdout.read())["records"], 500)
            self.assertEqual(len(refs.read_text().splitlines()), 50)

            flags = ("--method", "read", "--store", "kept", "--refs-file", refs)
            reading = self.load(server, *flags, "--bytes", "100", "--prompted")
            self.addCleanup(reading.kill)
            self.assertEqual(reading.stdout.readline(), "ready\n")
            reading.stdin.write("\n")
            reading.stdin.flush()
            with self.assertRaises(subprocess.TimeoutExpired):
                reading.wait(0.2)  # it reads on
            reading.send_signal(signal.SIGINT)
            said, errors = reading.communicate(timeout=SOON)
            self.assertEqual((reading.returncode, errors), (0, ""))
            self.assertGreater(json.loads(said)["calls"], 0)

            # Payloads of another size are not those that the load can check.
            other = self.load(server, *flags, "--bytes", "99")
            _, errors = other.communicate(timeout=SOON)
            self.assertEqual(other.returncode, 2)
            self.assertIn("no ref of such a payload", errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
