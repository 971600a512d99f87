#!/usr/bin/env python3
"""tests/bench/growth, and tests/bench/points and plots on what it and others write."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parent.parent
HAS_MATPLOTLIB = (
    subprocess.run(
        ["/usr/bin/python3", "-c", "import matplotlib"], stderr=subprocess.DEVNULL
    ).returncode
    == 0
)

MACHINE = {"processors": 2, "model": "A <model> & more", "kernel": "6.1.0-9-amd64"}
SERIES = {"label": "ours", "x": [1, 8, 64], "y": [3, 2, 1], "least": [2, 1, 1], "most": [4, 2, 2]}


def point(number, median, bound, at_most):
    return {
        "point": number,
        "what": f"a figure of point {number}",
        "reference": "tonic",
        "value": {"median": median, "least": median - 0.1, "most": median + 0.1},
        "bound": bound,
        "at_most": at_most,
        "unit": "",
        "holds": True,  # of an older bound: it is looked at anew
    }


class WorkTest(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="growth-", dir=os.environ["TEST_WORK"])
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def run_program(self, name, *flags):
        return subprocess.run(
            [BENCH / name, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=280,
        )

    def document(self, points=(), plots=()):
        path = self.work / "document.json"
        whole = {"name": "x", "machine": MACHINE, "rounds": 3, "runs": {}}
        path.write_text(json.dumps({**whole, "points": list(points), "plots": list(plots)}))
        return path


class GrowthTest(WorkTest):
    def test_every_server_in_every_cell(self):
        out = self.work / "out.json"
        done = self.run_program(
            "growth",
            *("--server", os.environ["TEST_SERVER"], "--load", os.environ["TEST_LOAD"]),
            *("--peers", self.work, "--peer", "same=" + os.environ["TEST_SERVER"]),
            *("--out", out, "--seconds", "0.03", "--rounds", "1"),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(self.work.iterdir()), [out], "no data is left")
        document = json.loads(out.read_text())
        self.assertEqual(len(document["plots"]), 2 * 2 * 3)
        for plot in document["plots"]:
            self.assertLessEqual({"payloadstored", "same"}, {s["label"] for s in plot["series"]})
            for series in plot["series"]:
                self.assertEqual(series["x"], sorted(series["x"]))
                for least, y, most in zip(series["least"], series["y"], series["most"]):
                    self.assertTrue(0 < least <= y <= most)
        for cell in document["runs"]["cells"]:
            for runs in cell["servers"].values():
                self.assertEqual([run["wrong"] for run in runs], [0])
                self.assertEqual([run["in_flight"] for run in runs], [cell["in_flight"]])


class PointsTest(WorkTest):
    def test_a_line_a_figure_and_a_line_a_point(self):
        path = self.document([point(1, 0.8, 0.85, True), point(1, 1.1, 1.15, False)])
        done = self.run_program("points", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"0\.80 \(0\.70-0\.90\) +<= 0\.85 +holds")
        self.assertRegex(done.stdout, r"1\.10 \(1\.00-1\.20\) +>= 1\.15 +misses")
        last = done.stdout.splitlines()[-7:]
        self.assertTrue(last[0].endswith(": misses 1 of 2"), last)
        for line in last[1:]:
            self.assertTrue(line.endswith(": not measured"), line)

    def test_markdown(self):
        path = self.document([point(7, 1.5, 2.0, True)])
        done = self.run_program("points", "--markdown", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(
            "| 7 | a figure of point 7 | tonic | 1.50 (1.40-1.60) | <= 2.00 | holds |", done.stdout
        )

    def test_what_is_no_document_is_refused(self):
        path = self.work / "other.json"
        for text in ("", "[]", '{"points": [{"point": 1}]}', '{"machine": 1}'):
            path.write_text(text)
            for program in ("points", "plots") if HAS_MATPLOTLIB else ("points",):
                done = self.run_program(program, path)
                self.assertEqual(done.returncode, 1, (program, text))
                self.assertIn("is no document of a benchmark", done.stderr)
        self.assertEqual(self.run_program("points", self.work / "none.json").returncode, 1)
        done = self.run_program("points", self.document([point(8, 1, 1, True)]))
        self.assertEqual(done.returncode, 1)


@unittest.skipUnless(HAS_MATPLOTLIB, "Debian's python3-matplotlib is not installed")
class PlotsTest(WorkTest):
    def test_equal_figures_make_equal_files_that_say_what_is_drawn(self):
        plot = {"name": "a-plot", "title": "What it is", "x": "calls in flight", "y": "us a call"}
        path = self.document(plots=[{**plot, "series": [SERIES], "log_x": True, "log_y": False}])
        drawn = []
        for directory in (self.work / "one", self.work / "two"):
            done = self.run_program("plots", "--out-dir", directory, path)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(list(directory.iterdir()), [directory / "a-plot.svg"])
            drawn.append((directory / "a-plot.svg").read_text())
        self.assertEqual(*drawn)
        for text in (*plot.values(), "ours", "2 x A &lt;model&gt; &amp; more, Linux 6.1"):
            self.assertIn(text, drawn[0].replace("a-plot", "") + "a-plot")
        for text in ("dc:date", str(self.work), "@font-face"):
            self.assertNotIn(text, drawn[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
