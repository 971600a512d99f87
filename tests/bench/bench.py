"""What the benchmarks share: servers started anew, the load, spreads, and results as JSON.

A benchmark is a program that measures what it is about and a reference alternately, round by round,
and writes one JSON document (Results.write):

    name      of the benchmark
    machine   processors, model, kernel, and the machine's load before it began
    rounds    how often each side was measured
    points    a list of Point: ratios that the project has set itself
    plots     a list of Plot
    runs      whatever was measured, for those who want to look closer

Ratios are of neighbours in one round, so that they hold where the machine's speed drifts; told are
medians over the rounds, with least and most.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build/bench"
RESULTS = BUILD / "results"
START_SECONDS = 30
OURS = "payloadstored"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program with --data-dir and --listen, on an empty directory; a context.

    `flags` are further ones; `prefix` is a command that runs it, such as taskset's.
    """

    def __init__(self, name, binary, work, flags=(), prefix=()):
        self.name, self.binary, self.work = name, binary, work
        self.flags, self.prefix = list(flags), list(prefix)

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.work)
        self.data = os.path.join(self.directory, "data")
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(os.path.join(self.directory, "log"), "w")
        self.start()
        return self

    def command(self):
        """What runs it."""
        return [self.binary, "--data-dir", self.data, "--listen", self.address, *self.flags]

    def start(self):
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.prefix, *self.command()],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.wait_until_listening()

    def wait_until_listening(self):
        host, port = self.address.rsplit(":", 1)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.stderr.write(pathlib.Path(self.directory, "log").read_text())
                    self.__exit__()
                    raise SystemExit(f"{program()}: {self.name} does not serve")
            time.sleep(0.02)

    def stop(self):
        """Ends it; start() serves the same directory again."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __exit__(self, *_):
        self.stop()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def program():
    return os.path.basename(sys.argv[0])


def load(binary, server, method, *flags):
    """One run of tests/bench/load on a Server; what it measured, as it writes it with --json.

    Ends the program where an answer was wrong.
    """
    done = subprocess.run(
        [binary, "--address", server.address, "--method", method, "--json"]
        + ["--server-pid", str(server.process.pid), *map(str, flags)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{program()}: {server.name} answered {method} wrongly")
    return json.loads(done.stdout)


def turned(names, number):
    """The names in the order of a round: whoever comes behind another is not always the same."""
    names = list(names)
    start = number // 2 % len(names)
    names = names[start:] + names[:start]
    return names[::-1] if number % 2 else names


def alternating(names, rounds):
    """(round, name) for each, in turn."""
    for number in range(rounds):
        for name in turned(names, number):
            print(f"{program()}: round {number + 1} of {rounds}: {name}", file=sys.stderr)
            yield number, name


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(ours, theirs):
    """The spread of ours over theirs, run by run."""
    return spread([a / b for a, b in zip(ours, theirs) if b])


def machine():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return {
        "processors": os.cpu_count(),
        "model": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


@dataclasses.dataclass
class Point:
    """A figure and where it is to be."""

    point: int  # of the seven: 1 unary against peers ... 7 mixed load
    what: str  # "append, 1 KiB, 1 connection, 64 in flight: server CPU"
    reference: str  # "tonic"
    value: dict  # a spread: of a ratio ours / reference, or of a figure by itself
    bound: float
    at_most: bool  # the median is to be `bound` at most; else at least
    unit: str = ""  # "" for a ratio

    def holds(self):
        median = self.value["median"]
        return median <= self.bound if self.at_most else median >= self.bound


@dataclasses.dataclass
class Series:
    label: str
    x: list
    y: list  # medians
    least: list = dataclasses.field(default_factory=list)
    most: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Plot:
    name: str  # of its file, without .svg
    title: str
    x: str  # axis, with its unit
    y: str
    series: list
    log_x: bool = True
    log_y: bool = False


class Results:
    def __init__(self, name, rounds):
        self.name, self.rounds, self.machine = name, rounds, machine()
        self.points, self.plots, self.runs = [], [], {}

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "name": self.name,
            "machine": self.machine,
            "rounds": self.rounds,
            "points": [{**dataclasses.asdict(p), "holds": p.holds()} for p in self.points],
            "plots": [dataclasses.asdict(plot) for plot in self.plots],
            "runs": self.runs,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"\non {self.machine['processors']} x {self.machine['model']}, ", end="")
        print(f"load {self.machine['load_before']:.1f} before; written to {path}")


def arguments(description, name, rounds=3, seconds=2.0):
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default=str(BUILD / "server/payloadstored"))
    parser.add_argument("--load", default=str(BUILD / "tests/load"))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of one run")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / f"{name}.json")
    return parser


def add_peers(parser):
    parser.add_argument("--peers", type=pathlib.Path, default=ROOT / "build/peers")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=BINARY")


def find_servers(options):
    """{name: binary}: the server and what it is compared with, as arguments and add_peers say."""
    servers = {OURS: options.server}
    for name in ("cpp", "go", "rust"):
        binary = options.peers / f"peer-{name}"
        if binary.exists():
            servers[name] = str(binary)
    bare = pathlib.Path(options.load).parent / "bare_core"
    if bare.exists():
        servers["bare_core"] = str(bare)
    servers.update(peer.split("=", 1) for peer in options.peer)
    return servers


def work_directory(out):
    """For the servers' data, beside the results: a context that gives its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="bench-", dir=out.parent)
