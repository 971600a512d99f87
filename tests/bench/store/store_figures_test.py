#!/usr/bin/env python3
"""tests/bench/store-figures and its bench_store: every part runs, and what goes wrong ends them."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parent.parent
BENCH_STORE = os.environ["TEST_BENCH_STORE"]


def run(*command):
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=280,
    )


class Work(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="store-", dir=os.environ["TEST_WORK"])
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)


class BenchStoreTest(Work):
    def bench(self, *flags):
        return run(BENCH_STORE, "--data-dir", self.work / "data", *flags)

    def test_every_measurement_has_both_sides_and_leaves_nothing(self):
        for flags in (
            ["append", "--ops", 50, "--bytes", 5000],
            ["append", "--ops", 50, "--callers", 3, "--in-flight", 4, "--synced"],
            ["append", "--ops", 50, "--segments", 3],
            ["read", "--ops", 500, "--sealed"],
            ["read", "--ops", 50, "--segments", 7],
            ["read", "--ops", 50, "--records", 200, "--cold", "--in-flight", 4],
            ["compact", "--ops", 301, "--live-every", 2],
            ["refs", "--ops", 1000],
            ["open", "--segments", 5],
            ["open", "--segments", 5, "--unclean"],
        ):
            with self.subTest(flags):
                done = self.bench("--rounds", 2, "--json", *flags)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                result = json.loads(done.stdout)
                self.assertEqual(result["name"], flags[0])
                self.assertEqual(len(result["rounds"]), 2)
                for round_ in result["rounds"]:
                    self.assertGreater(round_["store"]["ns"], 0)
                    self.assertGreater(round_["bare"]["ns"], 0)
                self.assertEqual(list(self.work.iterdir()), [])

    def test_text_for_people(self):
        done = self.bench("read", "--ops", 50)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^  bare/store +\d+\.\d\d \(\d")

    def test_a_directory_that_is_there_is_left_alone(self):
        (self.work / "data").mkdir()
        done = self.bench("read")
        self.assertEqual(done.returncode, 1)
        self.assertTrue((self.work / "data").exists())

    def test_what_it_does_not_know_is_refused(self):
        for flags in (["write"], ["read", "--bytes", "many"], ["read", "--ops", 0], ["--ops", 5]):
            with self.subTest(flags):
                self.assertEqual(self.bench(*flags).returncode, 2)
                self.assertEqual(list(self.work.iterdir()), [])


class StoreFiguresTest(Work):
    def figures(self, *flags):
        out = self.work / "out.json"
        return run(BENCH / "store-figures", "--bench-store", BENCH_STORE, "--out", out, *flags)

    def test_points_plots_and_runs(self):
        short = ("--rounds", 1, "--ops", 40, "--segments", 10, "--refs", 10000, "--cold-mib", 1)
        done = self.figures(*short)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads((self.work / "out.json").read_text())
        self.assertEqual(len(result["points"]), 7)
        for point in result["points"]:
            self.assertEqual(point["point"], 5)
            self.assertGreater(point["value"]["median"], 0)
        names = {plot["name"] for plot in result["plots"]}
        self.assertEqual(
            names,
            {"store-sizes", "store-synced", "store-open", "store-segments"}
            | {"store-refs-time", "store-refs-memory", "store-cold"},
        )
        for plot in result["plots"]:
            for line in plot["series"]:
                self.assertEqual(len(line["x"]), len(line["y"]))
        self.assertTrue(all(of["rounds"] for of in result["runs"]["measurements"]))
        self.assertEqual(list(self.work.iterdir()), [self.work / "out.json"], "no data is left")

    def test_a_program_that_fails_ends_it(self):
        done = self.figures("--bench-store", "/bin/false")
        self.assertEqual(done.returncode, 1)
        self.assertIn("bench_store failed", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
