#!/usr/bin/env python3
"""gRPC's interoperability suite on grpc-c: its client and server with themselves, Go's and Python's.

The programs come from the environment, set by the tests' CMake files:

    TEST_INTEROP_SERVER, TEST_INTEROP_CLIENT   grpc-c's
    TEST_TOOLS                                 where Go's lie
    TEST_WORK                                  where what a test makes goes
"""

import concurrent.futures
import functools
import importlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

# Processes are started while channels live; gRPC's handlers for fork are not needed for that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"
SOON = 60.0  # how long anything may take that should happen soon

OVER_TLS = ["empty_unary", "large_unary", "ping_pong"]
PLAIN = OVER_TLS + [
    "client_streaming",
    "server_streaming",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "custom_metadata",
]
STREAMING = [
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
]
CLIENT_COMPRESSED = ["client_compressed_unary", "client_compressed_streaming"]
SERVER_COMPRESSED = ["server_compressed_unary", "server_compressed_streaming"]


def program(name):
    default = BUILD / f"dev/tests/grpc-c-interop-{name}"
    return os.environ.get(f"TEST_INTEROP_{name.upper()}", str(default))


def go_program(name):
    tools = os.environ.get("TEST_TOOLS", str(BUILD / "tools"))
    return os.path.join(tools, f"grpc-go-interop-{name}")


class Server:
    """A server process that says on which port it listens."""

    def __init__(self, command):
        self.output = tempfile.TemporaryFile(dir=os.environ.get("TEST_WORK"))
        self.process = subprocess.Popen(
            # A test that is killed takes its servers with it.
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, GRPC_GO_LOG_SEVERITY_LEVEL="info"),
        )
        deadline = time.monotonic() + SOON
        while not (said := re.search(r"listening on \S*:(\d+)\n", self.log())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log()
                self.close()
                raise AssertionError(f"{command[0]} does not listen:\n{said}")
            time.sleep(0.01)  # between two looks
        self.port = int(said.group(1))

    def log(self):
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.output.close()

    def stop(self):
        """SIGTERM; what it said, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(SOON)
        return self.log(), status


class InteropTest(unittest.TestCase):
    def serve(self, *command):
        server = Server(command)
        self.addCleanup(server.close)
        return server

    def serve_ours(self, *flags):
        server = self.serve(program("server"), "--port=0", *flags)

        def stop():
            log, status = server.stop()
            self.assertEqual(status, 0, log)

        self.addCleanup(stop)
        return server

    def run_case(self, command, port, case, *flags):
        done = subprocess.run(
            [
                command,
                "--server_host=127.0.0.1",
                f"--server_port={port}",
                f"--test_case={case}",
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SOON,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def run_cases(self, command, port, cases, *flags):
        for case in cases:
            with self.subTest(case=case):
                status, said = self.run_case(command, port, case, *flags)
                self.assertEqual(status, 0, said)


@functools.lru_cache(maxsize=None)
def certificates():
    """A directory with what make-certificates makes; gone when the tests are over."""
    where = tempfile.mkdtemp(prefix="certificates-", dir=os.environ.get("TEST_WORK"))
    unittest.addModuleCleanup(shutil.rmtree, where)
    subprocess.run([HERE.parent / "lib/make-certificates", where], check=True)
    return where


def server_tls():
    where = certificates()
    return [
        "--use_tls=true",
        f"--tls_cert_file={where}/server.pem",
        f"--tls_key_file={where}/server.key",
    ]


def client_tls(name="foo.test.google.fr"):
    return [
        "--use_tls=true",
        "--use_test_ca=true",
        f"--ca_file={certificates()}/ca.pem",
        f"--server_host_override={name}",
    ]


class Ours(InteropTest):
    """Our client and our server."""

    def test_all_cases(self):
        server = self.serve_ours()
        cases = PLAIN + CLIENT_COMPRESSED + SERVER_COMPRESSED
        self.run_cases(program("client"), server.port, cases)

    def test_streaming_cases_without_waiting(self):
        server = self.serve_ours()
        self.run_cases(program("client"), server.port, STREAMING, "--async=true")

    def test_tls(self):
        server = self.serve_ours(*server_tls())
        self.run_cases(program("client"), server.port, OVER_TLS, *client_tls())

    def test_tls_finds_another_server_than_it_looks_for(self):
        server = self.serve_ours(*server_tls())
        flags = client_tls("example.org")
        status, said = self.run_case(program("client"), server.port, "empty_unary", *flags)
        self.assertEqual(status, 1)
        self.assertIn("UNAVAILABLE", said)

    def test_unknown_cases_and_flags_are_refused(self):
        status, said = self.run_case(program("client"), 1, "no_such_case")
        self.assertEqual(status, 2)
        self.assertIn("no case no_such_case", said)
        status, said = self.run_case(program("client"), 1, "empty_unary", "--no_such_flag=1")
        self.assertEqual(status, 2)

    def test_a_case_fails_where_nobody_answers(self):
        server = self.serve_ours()
        log, status = server.stop()
        self.assertEqual(status, 0, log)
        status, said = self.run_case(program("client"), server.port, "empty_unary")
        self.assertEqual(status, 1)
        self.assertIn("UNAVAILABLE", said)


class Go(InteropTest):
    """Go's client with our server, and the other way."""

    def test_go_client(self):
        server = self.serve_ours()
        self.run_cases(go_program("client"), server.port, PLAIN)

    def test_go_server(self):
        server = self.serve(go_program("server"), "--port=0")
        self.run_cases(program("client"), server.port, PLAIN)

    def test_go_server_without_waiting(self):
        server = self.serve(go_program("server"), "--port=0")
        self.run_cases(program("client"), server.port, STREAMING, "--async=true")

    def test_go_client_over_tls(self):
        server = self.serve_ours(*server_tls())
        self.run_cases(go_program("client"), server.port, OVER_TLS, *client_tls())

    def test_go_server_over_tls(self):
        server = self.serve(go_program("server"), "--port=0", *server_tls())
        self.run_cases(program("client"), server.port, OVER_TLS, *client_tls())

    def test_the_probe_finds_a_server_that_does_not_look(self):
        """Go's answers a request that should have come compressed and did not."""
        server = self.serve(go_program("server"), "--port=0")
        status, said = self.run_case(program("client"), server.port, "client_compressed_unary")
        self.assertEqual(status, 1)
        self.assertIn("ended with OK: ; expected INVALID_ARGUMENT", said)


@functools.lru_cache(maxsize=None)
def stubs():
    """The modules that protoc makes of the suite's .proto files: messages, empty, calls."""
    from grpc_tools import protoc

    names = [f"src/proto/grpc/testing/{name}.proto" for name in ("empty", "messages", "test")]
    where = tempfile.mkdtemp(prefix="stubs-", dir=os.environ.get("TEST_WORK"))
    try:
        options = [f"--proto_path={HERE}", f"--python_out={where}", f"--grpc_python_out={where}"]
        if protoc.main(["protoc", *options, *names]) != 0:
            raise AssertionError("protoc cannot make Python stubs of the suite")
        sys.path.insert(0, where)
        modules = [
            importlib.import_module(f"src.proto.grpc.testing.{name}")
            for name in ("messages_pb2", "empty_pb2", "test_pb2_grpc")
        ]
        sys.path.remove(where)
    finally:
        shutil.rmtree(where)
    return modules


def python_service():
    """The suite's service, as far as Python's gRPC can play it."""
    messages, empty, calls = stubs()

    def zeros(size):
        return messages.Payload(body=bytes(size))

    def echo(context):
        sent = dict(context.invocation_metadata())
        if "x-grpc-test-echo-initial" in sent:
            header = sent["x-grpc-test-echo-initial"]
            context.send_initial_metadata((("x-grpc-test-echo-initial", header),))
        if "x-grpc-test-echo-trailing-bin" in sent:
            trailer = sent["x-grpc-test-echo-trailing-bin"]
            context.set_trailing_metadata((("x-grpc-test-echo-trailing-bin", trailer),))

    def fail(request, context):
        if request.response_status.code != 0:
            code = next(c for c in grpc.StatusCode if c.value[0] == request.response_status.code)
            context.abort(code, request.response_status.message)

    class Service(calls.TestServiceServicer):
        def EmptyCall(self, request, context):
            return empty.Empty()

        def UnaryCall(self, request, context):
            if request.response_compressed.value:
                context.set_compression(grpc.Compression.Gzip)
            echo(context)
            fail(request, context)
            return messages.SimpleResponse(payload=zeros(request.response_size))

        def StreamingInputCall(self, requests, context):
            size = sum(len(request.payload.body) for request in requests)
            return messages.StreamingInputCallResponse(aggregated_payload_size=size)

        def StreamingOutputCall(self, request, context):
            context.set_compression(grpc.Compression.Gzip)
            for asked in request.response_parameters:
                if not asked.compressed.value:
                    context.disable_next_message_compression()
                yield messages.StreamingOutputCallResponse(payload=zeros(asked.size))

        def FullDuplexCall(self, requests, context):
            echo(context)
            for request in requests:
                fail(request, context)
                for asked in request.response_parameters:
                    yield messages.StreamingOutputCallResponse(payload=zeros(asked.size))

    return Service()


class Python(InteropTest):
    """grpcio's client with our server, and the other way."""

    def serve_python(self):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        stubs()[2].add_TestServiceServicer_to_server(python_service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait(SOON))
        return port

    def connect(self, **options):
        channel = grpc.insecure_channel(f"127.0.0.1:{self.serve_ours().port}", **options)
        self.addCleanup(channel.close)
        return stubs()[2].TestServiceStub(channel)

    def test_python_server(self):
        self.run_cases(program("client"), self.serve_python(), PLAIN)

    def test_python_server_without_waiting(self):
        self.run_cases(program("client"), self.serve_python(), STREAMING, "--async=true")

    def test_python_server_compresses(self):
        self.run_cases(program("client"), self.serve_python(), SERVER_COMPRESSED)

    def test_python_client_unary(self):
        messages, empty, _ = stubs()
        stub = self.connect()
        self.assertEqual(stub.EmptyCall(empty.Empty(), timeout=SOON), empty.Empty())
        request = messages.SimpleRequest(
            response_size=314159, payload=messages.Payload(body=bytes(271828))
        )
        self.assertEqual(stub.UnaryCall(request, timeout=SOON).payload.body, bytes(314159))

    def test_python_client_streams(self):
        messages = stubs()[0]
        stub = self.connect()
        sizes = [31415, 9, 2653, 58979]
        inputs = [
            messages.StreamingInputCallRequest(payload=messages.Payload(body=bytes(size)))
            for size in sizes
        ]
        summed = stub.StreamingInputCall(iter(inputs), timeout=SOON)
        self.assertEqual(summed.aggregated_payload_size, sum(sizes))
        asked = [messages.ResponseParameters(size=size) for size in sizes]
        whole = messages.StreamingOutputCallRequest(response_parameters=asked)
        answers = stub.StreamingOutputCall(whole, timeout=SOON)
        self.assertEqual([len(a.payload.body) for a in answers], sizes)
        each = [messages.StreamingOutputCallRequest(response_parameters=[one]) for one in asked]
        answers = stub.FullDuplexCall(iter(each), timeout=SOON)
        self.assertEqual([len(a.payload.body) for a in answers], sizes)
        answers = stub.HalfDuplexCall(iter(each), timeout=SOON)
        self.assertEqual([len(a.payload.body) for a in answers], sizes)

    def test_python_client_metadata(self):
        messages = stubs()[0]
        sent = (
            ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
            ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab\x00"),
        )
        call = self.connect().UnaryCall.with_call
        _, ended = call(messages.SimpleRequest(), timeout=SOON, metadata=sent)
        self.assertIn(sent[0], ended.initial_metadata())
        self.assertIn(sent[1], ended.trailing_metadata())

    def test_python_client_compresses(self):
        messages = stubs()[0]
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            stub = self.connect(compression=compression)
            request = messages.SimpleRequest(
                expect_compressed=messages.BoolValue(value=True),
                response_compressed=messages.BoolValue(value=True),
                response_size=314159,
                payload=messages.Payload(body=bytes(271828)),
            )
            self.assertEqual(stub.UnaryCall(request, timeout=SOON).payload.body, bytes(314159))
        with self.assertRaises(grpc.RpcError) as refused:
            self.connect().UnaryCall(request, timeout=SOON)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main()
