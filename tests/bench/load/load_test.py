#!/usr/bin/env python3
"""The load generator: every call of a real server's is right, and what a server does wrong is noticed."""

import json
import os
import subprocess
import sys
import unittest
from concurrent import futures

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "lib"))

import grpc  # noqa: E402
from payloadstored import SERVICE, SOON, ServerTest, poll, stubs  # noqa: E402

METHODS = ("append", "read", "append-stream", "read-stream")


def load(address, method, *flags):
    return subprocess.run(
        [os.environ["TEST_LOAD"], "--address", address, "--method", method, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=4 * SOON,
    )


class LoadTest(ServerTest):
    def run_load(self, server, method, *flags):
        done = load(server.address, method, "--json", *flags)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        result = json.loads(done.stdout)
        self.assertEqual(result["wrong"], 0)
        return result

    def test_calls_of_every_kind(self):
        server = self.serve()
        pid = str(server.process.pid)
        for method in METHODS:
            result = self.run_load(
                server, method, "--calls", "300", "--refs", "200", "--server-pid", pid
            )
            self.assertEqual(result["calls"], 300)
            self.assertEqual(result["payloads"], 300 * (64 if "stream" in method else 1))
            self.assertGreater(result["server_cpu_us"], 0)
            self.assertGreater(result["own_cpu_us"], 0)
            self.assertLessEqual(result["latency_us"]["p50"], result["latency_us"]["max"])

    def test_sizes_from_nothing_to_more_than_a_window(self):
        server = self.serve()
        for method in METHODS:
            for size in ("0", "5", "16384", "300000"):
                result = self.run_load(
                    server, method, "--bytes", size, "--calls", "20", "--refs", "40", "--batch", "3"
                )
                self.assertEqual(result["calls"], 20)

    def test_many_connections_or_more_of_them_than_calls_in_flight(self):
        server = self.serve()
        for method in METHODS:
            for connections, in_flight in ((8, 64), (8, 1), (3, 7)):
                result = self.run_load(
                    server,
                    *(method, "--calls", "200", "--connections", str(connections)),
                    *("--in-flight", str(in_flight), "--refs", "200", "--batch", "5"),
                )
                self.assertEqual(result["calls"], 200)
                self.assertEqual(result["in_flight"], in_flight)

    def test_synced_appends_over_a_unix_socket(self):
        server = self.serve(listen=(f"unix:/tmp/load-test-{os.getpid()}.sock",))
        self.run_load(server, "append", "--calls", "100", "--durability", "synced")

    def test_what_is_appended_can_be_read(self):
        server = self.serve()
        self.run_load(server, "append", "--calls", "100", "--store", "kept")
        stat = server.stub().Stat(stubs()[0].StatRequest(store="kept"), timeout=SOON)
        self.assertEqual(stat.records, 200)  # the warm-up's too

    def test_an_open_loop_counts_from_when_a_call_was_due(self):
        server = self.serve()
        result = self.run_load(server, "append", "--rate", "500", "--calls", "100")
        self.assertEqual(result["calls"], 100)
        self.assertGreaterEqual(result["seconds"], 0.198)  # the last one is due after 99 intervals
        # Far more than can be answered, one at a time: the last one waits for all before it.
        result = self.run_load(server, "append", "--rate", "1e9", "--calls", "500", "--in-flight", "1")
        self.assertGreater(result["latency_us"]["max"], 0.9e6 * result["seconds"])
        self.assertGreater(result["latency_us"]["p50"], 0.1 * result["latency_us"]["max"])

    def test_a_store_deleted_while_it_is_read(self):
        server = self.serve()
        reading = subprocess.Popen(
            [os.environ["TEST_LOAD"], "--address", server.address, "--method", "read"]
            + ["--store", "gone", "--seconds", str(SOON)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(reading.kill)
        pb, stub = stubs()[0], server.stub()
        poll("the refs are there", lambda: self.records(stub, pb) == 4096)
        stub.DeleteStore(pb.DeleteStoreRequest(store="gone"), timeout=SOON)
        _, said = reading.communicate(timeout=2 * SOON)
        self.assertEqual(reading.returncode, 1, said)
        self.assertIn("(gRPC status 5)", said)

    @staticmethod
    def records(stub, pb):
        try:
            return stub.Stat(pb.StatRequest(store="gone"), timeout=SOON).records
        except grpc.RpcError:
            return 0

    def test_wrong_options_are_refused(self):
        for flags in (["--calls", "x"], ["--in-flight", "0"], ["--durability", "none"], ["rest"]):
            self.assertEqual(load("127.0.0.1:1", "append", *flags).returncode, 2, flags)
        self.assertEqual(load("127.0.0.1:1", "push").returncode, 2)
        self.assertEqual(load("127.0.0.1:1", "append").returncode, 2, "nobody listens there")


class WrongServer:
    """The contract in memory, and one thing of it wrong, by name."""

    def __init__(self, wrong, after=50):
        self.wrong, self.after = wrong, after
        self.pb = stubs()[0]
        self.payloads = []
        self.answers = 0
        calls = {
            "Append": (grpc.unary_unary_rpc_method_handler, self.append, "Append"),
            "Read": (grpc.unary_unary_rpc_method_handler, self.read, "Read"),
            "AppendStream": (
                grpc.stream_stream_rpc_method_handler, self.append_stream, "AppendStream"),
            "ReadStream": (grpc.stream_stream_rpc_method_handler, self.read_stream, "ReadStream"),
        }
        handlers = {
            name: kind(
                handler,
                request_deserializer=getattr(self.pb, f"{message}Request").FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (kind, handler, message) in calls.items()
        }
        # One thread, so that the answers come in order and the same one is wrong every time.
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def is_now(self, wrong):
        return self.wrong == wrong and self.answers > self.after

    def keep(self, payload):
        offset = len(self.payloads)
        self.payloads.append(payload)
        crc = crc32c(payload)
        if self.is_now("checksum"):
            crc ^= 1
        length = len(payload) + (1 if self.is_now("length") else 0)
        return self.pb.PayloadRef(offset=offset, length=length, crc32c=crc)

    def give(self, ref):
        if self.is_now("another"):
            return self.payloads[ref.offset - 1]
        payload = self.payloads[ref.offset]
        if self.is_now("flipped"):
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        if self.is_now("cut"):
            payload = payload[:-1]
        return payload

    def unary(self, context):
        self.answers += 1
        if self.is_now("status"):
            context.abort(grpc.StatusCode.DATA_LOSS, "this one is gone")
        if self.is_now("going away"):
            self.server.stop(None)

    def append(self, request, context):
        if self.wrong in ("checksum", "length"):
            self.unary(context)
        return self.pb.AppendResponse(ref=self.keep(request.payload))

    def read(self, request, context):
        self.unary(context)
        if self.is_now("status after"):
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("or is it")
        return self.pb.ReadResponse(payload=self.give(request.ref))

    def batches(self, requests, context):
        for request in requests:
            self.answers += 1
            if self.is_now("ended"):
                return
            if self.is_now("status"):
                context.abort(grpc.StatusCode.DATA_LOSS, "this one is gone")
            yield request

    def append_stream(self, requests, context):
        for request in self.batches(requests, context):
            answer = self.pb.AppendStreamResponse(refs=[self.keep(p) for p in request.payloads])
            if self.is_now("missing"):
                del answer.refs[-1]
            if self.is_now("failure"):
                del answer.refs[:]
                answer.failure.code = 8
            yield answer

    def read_stream(self, requests, context):
        for request in self.batches(requests, context):
            results = [self.pb.ReadResult(payload=self.give(ref)) for ref in request.refs]
            if self.is_now("failure"):
                results[1] = self.pb.ReadResult(failure=self.pb.Failure(code=5))
            yield self.pb.ReadStreamResponse(results=results[:1])
            yield self.pb.ReadStreamResponse(results=results[1:])


def make_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = make_table()


def crc32c(data):
    state = 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


class WrongAnswersTest(unittest.TestCase):
    def against(self, wrong, method):
        server = WrongServer(wrong)
        self.addCleanup(server.server.stop, None)
        return load(
            f"127.0.0.1:{server.port}",
            *(method, "--bytes", "100", "--calls", "100", "--refs", "30", "--batch", "4", "--json"),
        )

    def test_a_server_that_does_right_has_nothing_held_against_it(self):
        for method in METHODS:
            done = self.against("nothing", method)
            self.assertEqual((done.returncode, done.stderr), (0, ""), method)

    def test_every_wrong_answer_is_noticed(self):
        for wrong, method, words in (
            ("status", "read", "this one is gone (gRPC status 15)"),
            ("status after", "read", "or is it (gRPC status 15)"),
            ("flipped", "read", "another payload"),
            ("cut", "read", "another payload"),
            ("another", "read", "another payload"),
            ("going away", "read", ""),
            ("checksum", "append", "another checksum"),
            ("length", "append", "another length"),
            ("status", "append-stream", "this one is gone (gRPC status 15)"),
            ("checksum", "append-stream", "another checksum"),
            ("missing", "append-stream", "not as many refs"),
            ("failure", "append-stream", "a Failure"),
            ("ended", "append-stream", "ended before its end"),
            ("status", "read-stream", "this one is gone (gRPC status 15)"),
            ("flipped", "read-stream", "another payload"),
            ("failure", "read-stream", "a Failure"),
            ("ended", "read-stream", "ended before its end"),
        ):
            with self.subTest(wrong=wrong, method=method):
                done = self.against(wrong, method)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(words, done.stderr)
                self.assertNotIn("no answer within", done.stderr)
                self.assertRegex(done.stderr, r"(?m)^load: \d+ answers were wrong$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
