"""A real payloadstored for tests, and what tests in Python need to talk to it.

The server, the tools and a place for data come from the environment, set by the tests' CMake files:

    TEST_SERVER   the payloadstored to test
    TEST_TOOLS    where grpcurl and ghz lie
    TEST_WORK     where data directories are made; the system's temporary directory without it

Nothing here sleeps to wait: everything that takes time is polled for, with a deadline.
"""

import functools
import importlib
import importlib.resources
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

# Servers are started while channels live; gRPC's handlers for fork are not needed for that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402
from google.rpc import error_details_pb2  # noqa: E402
from grpc_status import rpc_status  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVICE = "payloadstore.v1.PayloadStore"
MIB = 1 << 20

# How long anything that should happen soon may take: generous, for loaded machines and sanitizers.
SOON = 60.0

_OPTIONS = [
    # Reads of whole payloads; streams keep the default limit, as the contract promises they can.
    ("grpc.max_receive_message_length", 128 * MIB),
    ("grpc.max_send_message_length", 128 * MIB),
    # A server that was restarted should be found at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Channels of one process would share connections otherwise.
    ("grpc.use_local_subchannel_pool", 1),
]


def server_binary():
    return os.environ.get("TEST_SERVER", str(ROOT / "build/dev/server/payloadstored"))


def tool(name):
    return os.path.join(os.environ.get("TEST_TOOLS", str(ROOT / "build/tools")), name)


def clean_environment(**more):
    """The environment without what the server would take its settings from."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PAYLOADSTORE_", "QRUSTY_"))
    }
    kept.update(more)
    return kept


def poll(what, condition, seconds=SOON):
    """The first true value that `condition` gives; an AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)  # between two looks, so as not to take the processor from the server


def make_certificates(where):
    """What lib/make-certificates makes, in a new directory."""
    subprocess.run([ROOT / "tests/lib/make-certificates", where], check=True)
    return pathlib.Path(where)


def credentials(where, ca="ca", certificate=None):
    """A client's, by the names of certificates in that directory."""
    def read(name):
        return (where / name).read_bytes()

    if certificate is None:
        return grpc.ssl_channel_credentials(read(f"{ca}.pem"))
    return grpc.ssl_channel_credentials(
        read(f"{ca}.pem"), read(f"{certificate}.key"), read(f"{certificate}.pem")
    )


@functools.lru_cache(maxsize=None)
def stubs():
    """The modules that protoc generates from the project's .proto: messages, and calls."""
    from grpc_tools import protoc

    where = tempfile.mkdtemp(prefix="stubs-", dir=os.environ.get("TEST_WORK"))
    try:
        well_known = importlib.resources.files("grpc_tools") / "_proto"
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={ROOT / 'proto'}",
                f"--proto_path={well_known}",
                f"--python_out={where}",
                f"--grpc_python_out={where}",
                "payloadstore/v1/payload_store.proto",
            ]
        )
        if status != 0:
            raise AssertionError("protoc cannot make Python stubs from the .proto")
        sys.path.insert(0, where)
        messages = importlib.import_module("payloadstore.v1.payload_store_pb2")
        calls = importlib.import_module("payloadstore.v1.payload_store_pb2_grpc")
        sys.path.remove(where)
    finally:
        shutil.rmtree(where)
    return messages, calls


def error_info(error):
    """The google.rpc.ErrorInfo of a grpc.RpcError, or None."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


class Server:
    """One payloadstored process, on a port that it chooses.

    `listen` names the addresses; each gets a flag. With `secure`, a client's credentials, channels
    to ports are made with TLS. Everything it prints is kept.
    """

    def __init__(
        self, data_dir, *flags, listen=("127.0.0.1:0",), secure=None, environment=None, cwd=None
    ):
        self._secure = secure
        self.data_dir = pathlib.Path(data_dir)
        self._listen = listen
        self._command = [server_binary(), "--log-format", "json"]
        for address in listen:
            self._command += ["--listen", address]
        if not any(flag.startswith("--data-dir") for flag in flags):
            self._command += ["--data-dir", str(data_dir)]
        self._command += flags
        self._environment = environment if environment is not None else clean_environment()
        self._cwd = cwd
        self._output = tempfile.TemporaryFile()
        self._channels = []
        self.process = None
        self.addresses = []

    def start(self):
        """Starts it, and returns when it serves."""
        self._output.seek(0)
        self._output.truncate()
        self.process = subprocess.Popen(
            # A test that is killed takes its servers with it.
            ["setpriv", "--pdeathsig", "KILL", *self._command],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=self._environment,
            cwd=self._cwd,
        )
        def listening():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended at once:\n{self.log()}")
            return [e["address"] for e in self.events() if e.get("event") == "listening"]

        try:
            self.addresses = poll("the server listens", listening)
            self.wait_until_serving()
            self.addresses = listening()  # by now all of them
        except BaseException:
            self.kill()
            sys.stderr.write(self.log())
            raise
        return self

    @property
    def address(self):
        return self.addresses[0]

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    def wait_until_serving(self):
        with self._connect(self.address, _OPTIONS, self._secure) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            # HealthCheckResponse{status: SERVING} on the wire.
            poll(
                "the server serves",
                lambda: check(b"", timeout=SOON, wait_for_ready=True) == b"\x08\x01",
            )

    @staticmethod
    def _connect(address, options, secure):
        if secure is None or address.startswith("unix:"):
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, secure, options=options)

    def channel(self, address=None, options=(), secure=None):
        channel = self._connect(
            address or self.address, [*_OPTIONS, *options], secure or self._secure
        )
        self._channels.append(channel)
        return channel

    def stub(self, address=None, **more):
        return stubs()[1].PayloadStoreStub(self.channel(address, **more))

    def log(self):
        # Not through the file's own position, which the server shares.
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode("utf-8", "replace")

    def events(self):
        """The log's whole lines, parsed; what is not JSON comes as {"not json": line}."""
        found = []
        for line in self.log().split("\n")[:-1]:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            found.append(event if isinstance(event, dict) else {"not json": line})
        return found

    def payload_files(self, store="default"):
        return sorted((self.data_dir / store).glob("payload_*"))

    def cpu_seconds(self):
        """What the process has used of processors so far, in user and system mode."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, how=signal.SIGTERM, seconds=SOON):
        """Disconnects, asks it to end, and returns its exit status."""
        self._close_channels()
        self.process.send_signal(how)
        return self.wait(seconds)

    def wait(self, seconds=SOON):
        """Its exit status; what a sanitizer reports is a failure."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end within {seconds} s:\n{self.log()}")
        self._close_channels()
        log = self.log()
        if "Sanitizer" in log or "runtime error:" in log:
            raise AssertionError(f"a sanitizer reports:\n{log}")
        return status

    def kill(self):
        """As a crash would end it."""
        if self.running():
            self.process.kill()
            self.process.wait()
        self._close_channels()

    def close(self):
        """After this there is no log either."""
        self.kill()
        self._output.close()

    def _close_channels(self):
        for channel in self._channels:
            channel.close()
        self._channels.clear()


class ServerTest(unittest.TestCase):
    """Tests that start servers, each with a data directory of its own."""

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="test-", dir=os.environ.get("TEST_WORK")))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)

    def serve(self, *flags, data_dir=None, **options):
        """A started server, ended with the test; it must end well if it was not ended before."""
        server = Server(data_dir or self.work / "payloads", *flags, **options)
        self.addCleanup(self._end, server)
        return server.start()

    def _end(self, server):
        try:
            if server.running():
                self.assertEqual(server.stop(), 0, server.log())
            if not getattr(self._outcome, "success", True):
                sys.stderr.write(server.log())
        finally:
            server.close()

    def assert_refused(self, code, call, *arguments, reason=None, words=(), **options):
        """`call` fails with the status, and with the ErrorInfo where a reason is wanted."""
        with self.assertRaises(grpc.RpcError) as caught:
            answer = call(*arguments, timeout=SOON, **options)
            if hasattr(answer, "__iter__"):
                list(answer)
        error = caught.exception
        self.assertEqual(error.code(), code, error.details())
        for word in words:
            self.assertIn(word, error.details())
        if reason:
            info = error_info(error)
            self.assertIsNotNone(info, f"no ErrorInfo with: {error.details()}")
            self.assertEqual((info.reason, info.domain), (reason, "payloadstore"))
        return error


def report(*lines):
    """Lines for people to read when tests pass, too; tests/run shows them in its totals."""
    print("\n--- report", *lines, "--- end", sep="\n", flush=True)
