#!/usr/bin/env python3
"""tests/bench/streams, large, memory: tiny runs measure what they say, and leave nothing."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 1
SPREAD = {"median", "least", "most"}


class SuiteTest(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="suite-", dir=os.environ["TEST_WORK"])
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def run_program(self, name, *flags):
        return subprocess.run(
            [BENCH / name, "--server", os.environ["TEST_SERVER"], "--load", os.environ["TEST_LOAD"]]
            + ["--out", self.work / "out.json", "--seconds", "0.02"]
            + ["--rounds", str(ROUNDS), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=280,
        )

    def measure(self, name, *flags):
        done = self.run_program(name, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(self.work.iterdir()), [self.work / "out.json"], "no data is left")
        results = json.loads((self.work / "out.json").read_text())
        self.assertEqual((results["name"], results["rounds"]), (name, ROUNDS))
        for point in results["points"]:
            value, bound = point["value"], point["bound"]
            self.assertEqual(set(value), SPREAD)
            self.assertTrue(0 < value["least"] <= value["median"] <= value["most"], point)
            within = value["median"] <= bound if point["at_most"] else value["median"] >= bound
            self.assertEqual(point["holds"], within)
        for plot in results["plots"]:
            self.assertGreater(len(plot["series"]), 0)
            for series in plot["series"]:
                sizes = {len(series[key]) for key in ("x", "y", "least", "most")}
                self.assertEqual(sizes, {len(series["x"])})
        told = done.stdout.count(": holds\n") + done.stdout.count(": does NOT hold\n")
        self.assertEqual(told, len(results["points"]), "whether each holds is printed")
        return results

    def wrong_load(self):
        load = self.work / "wrong-load"
        load.write_text("#!/bin/sh\nexit 1\n")
        load.chmod(0o755)
        return ("--load", load)

    def test_streams_without_redis(self):
        results = self.measure(
            *("streams", "--alone", "--core", os.environ["TEST_CORE"]),
            *("--redis-server", self.work / "no-redis-server"),
        )
        points = [(point["point"], point["unit"], point["bound"]) for point in results["points"]]
        self.assertEqual(points, 2 * [(3, "us", 1.5), (3, "payloads/s", 500000)])
        self.assertFalse(results["runs"]["redis"])
        cells = results["runs"]["cells"]
        self.assertEqual({cell["server"] for cell in cells}, {"payloadstored", "bare_core"})
        self.assertEqual(len(cells), 2 * 2 * (1 + 2))
        self.assertTrue(all(len(cell["runs"]) == ROUNDS for cell in cells))
        self.assertEqual(len(results["plots"]), 4)

    @unittest.skipUnless(shutil.which("redis-server"), "Redis is not installed")
    def test_streams_beside_redis(self):
        no_core = self.work / "no-core"
        results = self.measure("streams", "--alone", "--setting", "1x16", "--core", no_core)
        self.assertEqual(results["runs"]["setting"], [1, 16])
        ratios = [point for point in results["points"] if not point["unit"]]
        self.assertEqual(
            [point["reference"] for point in ratios],
            ["redis set, 64 a pipeline", "redis get, 64 a pipeline"],
        )
        redis = [cell for cell in results["runs"]["cells"] if cell["server"] == "redis"]
        found = [(cell["method"], cell["setting"], len(cell["runs"])) for cell in redis]
        self.assertEqual(
            found,
            [(command, batched, ROUNDS) for batched in (True, False) for command in ("set", "get")],
        )

    @unittest.skipUnless(shutil.which("redis-server"), "Redis is not installed")
    def test_a_redis_that_does_not_serve_ends_it(self):
        done = self.run_program("streams", "--alone", "--redis-server", "/bin/false")
        self.assertEqual(done.returncode, 1)
        self.assertIn("redis does not serve", done.stderr)

    def test_large_reads(self):
        results = self.measure(
            *("large", "--bare", os.environ["TEST_BARE"], "--core", os.environ["TEST_CORE"]),
            *("--size", "65536", "--size", "262144", "--connections", "3", "--in-flight", "4"),
        )
        keys = ("point", "reference", "at_most", "bound")
        points = [tuple(point[key] for key in keys) for point in results["points"]]
        self.assertEqual(
            points, 2 * [(4, "bare_send", True, 1.15), (4, "bare_send", False, 0.87)]
        )
        self.assertEqual([plot["name"] for plot in results["plots"]], ["large-us", "large-mb"])
        for cell in results["runs"]["cells"]:
            for runs in cell["servers"].values():
                self.assertEqual([run["wrong"] for run in runs], ROUNDS * [0])
                self.assertEqual({run["connections"] for run in runs}, {3})

    def test_memory(self):
        results = self.measure(
            *("memory", "--stored", "1", "--stored", "3", "--connections", "4", "--streams", "8"),
        )
        units = [(point["point"], point["unit"], point["bound"]) for point in results["points"]]
        self.assertEqual(units, 2 * [(6, "MiB", 20)] + 2 * [(6, "MiB", 64)] + 2 * [(6, "", 1.1)])
        self.assertEqual(results["plots"][0]["series"][0]["x"], [1, 3])
        self.assertEqual(len(results["runs"]["streams"]), 4)

    def test_wrong_answers_end_each(self):
        for name in ("streams", "large", "memory"):
            done = self.run_program(name, *self.wrong_load())
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("payloadstored answered", done.stderr)

    def test_the_bare_loop_notices_other_bytes(self):
        """Each side is told of other lengths, so that no record lies where it is asked for."""
        sys.path.insert(0, str(BENCH))
        import bench

        bare = os.environ["TEST_BARE"]
        with bench.Server("bare_send", bare, self.work, ["--bytes", "4096"]) as server:
            done = subprocess.run(
                [bare, "--address", server.address, "--method", "read", "--bytes", "1024"],
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("the server closed the connection", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
