#!/usr/bin/env python3
"""The life of a real server process: how it is set up, what it says when it cannot serve, and what
it leaves behind when it is told to stop, or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import grpc  # noqa: E402

from payloadstored import (  # noqa: E402
    MIB,
    SERVICE,
    SOON,
    ServerTest,
    clean_environment,
    poll,
    server_binary,
    stubs,
)

FLAGS = [
    "listen",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "data-dir",
    "segment-max-mb",
    "max-payload-mb",
    "durability",
    "reserve-mb",
    "compaction-max-mb-per-second",
    "threads",
    "drain-seconds",
    "log-level",
    "log-format",
]


def variable(flag):
    return "PAYLOADSTORE_" + flag.upper().replace("-", "_")


class LifecycleTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]

    def run_server(self, *flags, environment=None):
        """Runs one that is expected to end by itself."""
        return subprocess.run(
            [server_binary(), *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SOON,
            cwd=self.work,
            env=environment or clean_environment(),
        )

    def assert_will_not_start(self, *flags, words=(), environment=None):
        done = self.run_server(*flags, environment=environment)
        self.assertGreater(done.returncode, 0, done.stderr)  # and not by a signal
        for word in words:
            self.assertIn(str(word), done.stderr)
        self.assertNotIn("Sanitizer", done.stderr)
        self.assertLess(len(done.stderr.splitlines()), 12, done.stderr)
        return done

    def append(self, stub, payload, **more):
        return stub.Append(self.pb.AppendRequest(payload=payload, **more), timeout=SOON).ref

    def read(self, stub, ref):
        return stub.Read(self.pb.ReadRequest(ref=ref), timeout=SOON).payload

    # -- settings ---------------------------------------------------------------------------------

    def test_help_names_every_flag_and_its_variable(self):
        done = self.run_server("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for flag in FLAGS:
            self.assertIn(f"--{flag}", done.stdout)
            self.assertIn(variable(flag), done.stdout)
        for word in ("--version", "127.0.0.1:50051", "./payloads", "256", "64", "unix:"):
            self.assertIn(word, done.stdout)
        self.assertIn("QRUSTY_SEGMENT_MAX_MB", done.stdout)

    def test_version(self):
        done = self.run_server("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^payloadstored \d+\.\d+\.\d+\n$")

    def test_wrong_flags_are_named(self):
        for flags in (["--no-such-flag"], ["--listne", "x"], ["stray"], ["-x"]):
            with self.subTest(flags=flags):
                self.assert_will_not_start(*flags, words=[flags[0].lstrip("-"), "--help"])
        self.assert_will_not_start("--data-dir", words=["data-dir"])

    def test_wrong_values_are_named_with_their_flag(self):
        absurd = ["-1", "abc", "1e99", "99999999999999999999", "", " ", "1 2", "0x10", "1.5"]
        for flag, values in [
            ("listen", ["127.0.0.1", "127.0.0.1:", ":50051", "127.0.0.1:99999", "127.0.0.1:-1"]),
            ("listen", ["127.0.0.1:http", "unix:", "", "unix:/" + "x" * 200]),
            ("segment-max-mb", ["0", *absurd]),
            ("max-payload-mb", ["0", "2048", "4096", *absurd]),
            ("durability", ["fsync", "SYNCED", ""]),
            ("reserve-mb", ["none", "1048577", *absurd]),
            ("compaction-max-mb-per-second", ["1048577", *absurd]),
            ("threads", ["0", "-3", *absurd]),
            ("drain-seconds", absurd),
            ("log-level", ["loud", "", "0"]),
            ("log-format", ["xml", "", "JSON,"]),
            ("data-dir", [""]),
            ("tls-cert", [""]),
        ]:
            for value in values:
                with self.subTest(flag=flag, value=value):
                    self.assert_will_not_start(f"--{flag}={value}", words=[f"--{flag}"])
                # An empty variable is as good as none.
                if value:
                    with self.subTest(variable=variable(flag), value=value):
                        environment = clean_environment(**{variable(flag): value})
                        self.assert_will_not_start(
                            environment=environment, words=[variable(flag)]
                        )
        self.assertFalse((self.work / "payloads").exists(), "made before the flags were read")

    def segment_of_the_third(self, server):
        """In which segment the third of three payloads of 600,000 bytes lands: in 1 where the
        maximum is 1 MiB, in 0 where it is larger."""
        stub = server.stub()
        refs = [self.append(stub, bytes(600000)) for _ in range(3)]
        self.assertEqual([ref.file_id for ref in refs[:2]], [0, 0])
        return refs[2].file_id

    def test_variables_do_what_flags_do(self):
        data = self.work / "by variable"
        environment = clean_environment(
            PAYLOADSTORE_LISTEN="127.0.0.1:0,127.0.0.1:0",
            PAYLOADSTORE_DATA_DIR=str(data),
            PAYLOADSTORE_SEGMENT_MAX_MB="1",
            PAYLOADSTORE_MAX_PAYLOAD_MB="3",
            PAYLOADSTORE_THREADS="1",
            PAYLOADSTORE_LOG_LEVEL="debug",
            PAYLOADSTORE_DRAIN_SECONDS="3",
        )
        process_flags = {"listen": (), "environment": environment}
        server = self.serve("--data-dir=" + str(data), **process_flags)
        self.assertEqual(len(server.addresses), 2)
        self.assertEqual(self.segment_of_the_third(server), 1)
        stat = server.stub().Stat(self.pb.StatRequest(), timeout=SOON)
        self.assertEqual(stat.max_payload_bytes, 3 * MIB)
        self.assertTrue((data / "default/payload_0000.dat").exists())

    def test_the_data_directory_comes_from_its_variable(self):
        data = self.work / "by variable"
        environment = clean_environment(PAYLOADSTORE_DATA_DIR=str(data))
        blocker = self.serve(data_dir=data)
        done = self.assert_will_not_start("--listen=127.0.0.1:0", environment=environment)
        self.assertIn(str(blocker.process.pid), done.stderr)

    def test_the_data_directory_is_payloads_where_the_server_was_started(self):
        blocker = self.serve(data_dir=self.work / "payloads")
        done = self.assert_will_not_start("--listen=127.0.0.1:0")
        self.assertIn(str(blocker.process.pid), done.stderr)

    def test_a_flag_wins_over_its_variable(self):
        environment = clean_environment(
            PAYLOADSTORE_LISTEN="127.0.0.1:1",
            PAYLOADSTORE_DATA_DIR="/proc/nowhere",
            PAYLOADSTORE_SEGMENT_MAX_MB="512",
            PAYLOADSTORE_LOG_FORMAT="text",
        )
        server = self.serve("--segment-max-mb", "1", environment=environment)
        self.assertEqual(len(server.addresses), 1)
        self.assertEqual(self.segment_of_the_third(server), 1)

    def test_the_older_broker_s_segment_variable_counts_where_ours_is_unset(self):
        old = {"QRUSTY_SEGMENT_MAX_MB": "1"}
        for number, (expected, flags, environment) in enumerate(
            [
                (0, [], {}),
                (1, [], old),
                (0, [], {**old, "PAYLOADSTORE_SEGMENT_MAX_MB": "2"}),
                (1, [], {**old, "PAYLOADSTORE_SEGMENT_MAX_MB": ""}),
                (0, ["--segment-max-mb", "2"], old),
            ]
        ):
            with self.subTest(flags=flags, environment=environment):
                server = self.serve(
                    *flags,
                    data_dir=self.work / str(number),
                    environment=clean_environment(**environment),
                )
                self.assertEqual(self.segment_of_the_third(server), expected)
        environment = clean_environment(QRUSTY_SEGMENT_MAX_MB="many")
        self.assert_will_not_start(environment=environment, words=["QRUSTY_SEGMENT_MAX_MB"])

    # -- listeners --------------------------------------------------------------------------------

    def socket_path(self):
        # A socket's path is short; the work directory's may be long.
        directory = tempfile.TemporaryDirectory(prefix="sock-")
        self.addCleanup(directory.cleanup)
        return os.path.join(directory.name, "s")

    def test_serves_on_a_unix_socket(self):
        path = self.socket_path()
        server = self.serve(listen=[f"unix:{path}"])
        stub = server.stub(f"unix:{path}")
        self.assertEqual(self.read(stub, self.append(stub, b"abc")), b"abc")

    def test_serves_on_several_addresses_at_once(self):
        path = self.socket_path()
        server = self.serve(listen=["127.0.0.1:0", f"unix:{path}", "[::1]:0"])
        self.assertEqual(len(set(server.addresses)), 3)
        ref = self.append(server.stub(server.addresses[0]), b"abc")
        for address in server.addresses:
            self.assertEqual(self.read(server.stub(address), ref), b"abc")

    def test_a_dead_server_s_socket_is_taken_over(self):
        path = self.socket_path()
        server = self.serve(listen=[f"unix:{path}"])
        server.stop(signal.SIGKILL)
        self.assertTrue(os.path.exists(path))
        server.start()
        self.append(server.stub(), b"abc")

    def test_a_live_server_s_socket_is_not(self):
        path = self.socket_path()
        server = self.serve(listen=[f"unix:{path}"])
        self.assert_will_not_start(f"--listen=unix:{path}", "--data-dir=other", words=[path])
        self.append(server.stub(), b"abc")

    def test_a_port_in_use_is_refused(self):
        server = self.serve()
        self.assert_will_not_start(
            f"--listen={server.address}", "--data-dir=other", words=[server.port]
        )
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            self.assert_will_not_start(
                f"--listen=127.0.0.1:{port}", "--data-dir=other", words=[port]
            )
        self.append(server.stub(), b"abc")

    def test_an_address_that_is_not_this_machine_s_is_refused(self):
        # 192.0.2.0/24 is for documentation.
        self.assert_will_not_start("--listen=192.0.2.1:50051", words=["192.0.2.1"])
        self.assert_will_not_start("--listen=no-such-host.invalid:50051", words=["no-such-host"])

    # -- data directories -------------------------------------------------------------------------

    def test_a_directory_that_cannot_be_one_is_named(self):
        file = self.work / "file"
        file.write_text("not a directory")
        for path in (file, file / "below", "/proc/payloads"):
            with self.subTest(path=str(path)):
                self.assert_will_not_start(
                    "--listen=127.0.0.1:0", f"--data-dir={path}", words=[path]
                )
        self.assertEqual(file.read_text(), "not a directory")

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_directory_that_is_not_writable_is_named(self):
        closed = self.work / "closed"
        closed.mkdir(mode=0o500)
        self.assert_will_not_start(
            "--listen=127.0.0.1:0", f"--data-dir={closed}", words=[closed]
        )

    def test_a_directory_has_one_server(self):
        server = self.serve()
        ref = self.append(server.stub(), b"abc")
        self.assert_will_not_start(
            "--listen=127.0.0.1:0",
            f"--data-dir={server.data_dir}",
            words=[server.data_dir, server.process.pid],
        )
        self.assertEqual(self.read(server.stub(), ref), b"abc")
        server.stop(signal.SIGKILL)
        # The lock goes with its holder, however that ended.
        server.start()
        self.assertEqual(self.read(server.stub(), ref), b"abc")

    # -- logs -------------------------------------------------------------------------------------

    def test_json_logs_are_json_to_the_last_line(self):
        server = self.serve("--log-level", "debug")
        stub = server.stub()
        ref = self.append(stub, b"abc", store="s")
        with self.assertRaises(grpc.RpcError):
            stub.Read(self.pb.ReadRequest(store='no "such"\n{store}', ref=ref), timeout=SOON)
        # Not HTTP/2: core has something to say about that.
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger.recv(1000)
        self.assertEqual(server.stop(), 0)
        events = server.events()
        self.assertTrue(server.log().endswith("\n"))
        for event in events:
            self.assertNotIn("not json", event)
            for field in ("time", "level", "event"):
                self.assertIn(field, event)
        self.assertIn("listening", [event["event"] for event in events])

    def test_the_log_s_format_comes_from_its_variable(self):
        environment = clean_environment(PAYLOADSTORE_LOG_FORMAT="json")
        done = self.assert_will_not_start("--data-dir=/proc/payloads", environment=environment)
        for line in done.stderr.splitlines():
            json.loads(line)

    def test_text_logs_are_one_line_an_event(self):
        output = tempfile.TemporaryFile()
        self.addCleanup(output.close)
        process = subprocess.Popen(
            [server_binary(), "--listen=127.0.0.1:0", f"--data-dir={self.work / 'payloads'}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=clean_environment(),
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def lines():
            return os.pread(output.fileno(), 1 << 20, 0).decode().splitlines()

        poll("the server listens", lambda: [line for line in lines() if "listening" in line])
        process.terminate()
        self.assertEqual(process.wait(SOON), 0)
        for line in lines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z (debug|info|warn|error)")

    # -- unknown calls ----------------------------------------------------------------------------

    def test_an_unknown_method_is_unimplemented(self):
        server = self.serve()
        for method in (f"/{SERVICE}/Nope", "/no.Such/Append", "/x", f"/{SERVICE}/append"):
            call = server.channel().unary_unary(
                method, request_serializer=bytes, response_deserializer=bytes
            )
            self.assert_refused(grpc.StatusCode.UNIMPLEMENTED, call, b"")

    def test_bytes_that_are_no_message_are_refused(self):
        server = self.serve()
        for payload in (b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f" + b"x"):
            call = server.channel().unary_unary(
                f"/{SERVICE}/Append", request_serializer=bytes, response_deserializer=bytes
            )
            with self.assertRaises(grpc.RpcError) as caught:
                call(payload, timeout=SOON)
            self.assertIn(
                caught.exception.code(),
                (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL),
            )
        self.append(server.stub(), b"abc")

    # -- stopping ---------------------------------------------------------------------------------

    def load(self, server, durability):
        """Callers that append until the server is gone. Gives a function that waits for them, and
        returns what was answered and the codes of what was not."""
        answered, codes = [], []
        enough = threading.Event()
        lock = threading.Lock()

        def caller(number):
            stub = server.stub()
            count = 0
            while True:
                payload = f"{number}-{count}-".encode() * (1 + count % 500)
                try:
                    ref = self.append(stub, payload, durability=durability)
                except grpc.RpcError as error:
                    with lock:
                        codes.append(error.code())
                    return
                with lock:
                    answered.append((ref, payload))
                    if len(answered) > 500:
                        enough.set()
                count += 1

        threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        self.assertTrue(enough.wait(SOON), "the callers get no answers")

        def finish():
            for thread in threads:
                thread.join(SOON)
                self.assertFalse(thread.is_alive(), "a call hangs")
            return answered, codes

        return finish

    def assert_all_read(self, server, answered):
        stub = server.stub()
        for ref, payload in answered:
            self.assertEqual(self.read(stub, ref), payload)
        places = {(ref.file_id, ref.offset) for ref, _ in answered}
        self.assertEqual(len(places), len(answered), "a ref was given out twice")

    def test_told_to_stop_under_load_it_finishes_what_runs(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(how):
                server = self.serve(data_dir=self.work / how.name)
                finish = self.load(server, self.pb.DURABILITY_SYNCED)
                server.process.send_signal(how)
                answered, codes = finish()
                self.assertEqual(server.wait(), 0)
                # What was taken was answered. What came too late was not taken: a new connection
                # is refused, and core cancels what still comes on an old one.
                late = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
                self.assertLessEqual(set(codes), late)
                server.start()
                self.assert_all_read(server, answered)
                self.assertEqual(server.stop(), 0)

    def test_killed_under_load_it_loses_nothing_that_was_answered(self):
        server = self.serve("--segment-max-mb", "1")
        for _ in range(3):
            finish = self.load(server, self.pb.DURABILITY_BUFFERED)
            server.process.kill()
            answered, _ = finish()
            server.wait()
            server.start()
            self.assert_all_read(server, answered)

    def test_after_a_clean_stop_the_last_segment_goes_on(self):
        server = self.serve()
        first = self.append(server.stub(), b"abc")
        self.assertEqual(server.stop(), 0)
        server.start()
        second = self.append(server.stub(), b"def")
        self.assertEqual((second.file_id, second.offset), (first.file_id, first.offset + 7))

    def test_after_a_crash_appends_start_in_a_new_segment(self):
        server = self.serve()
        first = self.append(server.stub(), b"abc")
        server.stop(signal.SIGKILL)
        # Half a record at the end, as a crash of another program would leave.
        with open(server.payload_files()[-1], "ab") as file:
            file.write(b"\x64\0\0\0half")
        size = server.payload_files()[0].stat().st_size
        server.start()
        stub = server.stub()
        second = self.append(stub, b"def")
        self.assertGreater(second.file_id, first.file_id)
        self.assertEqual(server.payload_files()[0].stat().st_size, size, "cut at open")
        self.assertEqual([self.read(stub, ref) for ref in (first, second)], [b"abc", b"def"])
        tail = self.pb.PayloadRef(file_id=0, offset=7, length=4)
        self.assert_refused(
            grpc.StatusCode.NOT_FOUND, stub.Read, self.pb.ReadRequest(ref=tail)
        )

    def test_idle_clients_do_not_hold_it_up(self):
        # This client looks at an idle connection every five seconds only, and hears late that the
        # server is going. A server that waited for it would be here until the drain's end.
        server = self.serve("--drain-seconds", "600")
        for stub in [server.stub() for _ in range(20)]:
            self.append(stub, b"abc")
        server.process.terminate()
        self.assertEqual(server.wait(seconds=15), 0)

    def test_streams_that_only_the_server_can_end_do_not_hold_it_up(self):
        server = self.serve("--drain-seconds", "50")
        # As a load balancer would.
        watch = server.channel().unary_stream(
            "/grpc.health.v1.Health/Watch", request_serializer=bytes, response_deserializer=bytes
        )(b"")
        self.assertEqual(next(watch), b"\x08\x01")
        start = time.monotonic()
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        self.assertLess(time.monotonic() - start, 25)
        with self.assertRaises(grpc.RpcError):
            list(watch)

    def test_a_caller_that_never_ends_is_cut_off_after_the_drain(self):
        server = self.serve("--drain-seconds", "1")
        stub = server.stub()
        ref = self.append(stub, b"abc")
        dead = self.append(stub, b"def")
        seal = stub.Seal(self.pb.SealRequest(), timeout=SOON).seal
        silent = threading.Event()
        self.addCleanup(silent.set)

        def requests():
            yield self.pb.CompactSealedRequest(seal=seal, live=[ref])
            silent.wait(2 * SOON)

        answers = stub.CompactSealed(requests())

        def is_running():
            nonlocal answers
            # It may itself have come while a look at it was running.
            if not answers.is_active():
                answers = stub.CompactSealed(requests())
            commit = [self.pb.CompactSealedRequest(seal=seal, dry_run=True, commit=True)]
            try:
                list(stub.CompactSealed(iter(commit), timeout=SOON))
            except grpc.RpcError as error:
                return error.code() == grpc.StatusCode.ABORTED
            return False

        poll("the compaction runs", is_running)
        start = time.monotonic()
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        self.assertLess(time.monotonic() - start, 20)
        with self.assertRaises(grpc.RpcError):
            list(answers)
        silent.set()
        # What was not committed has not happened.
        server.start()
        stub = server.stub()
        self.assertEqual([self.read(stub, old) for old in (ref, dead)], [b"abc", b"def"])

    def test_a_second_signal_changes_nothing(self):
        server = self.serve()
        ref = self.append(server.stub(), b"abc")
        for _ in range(5):
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(), 0)
        server.start()
        self.assertEqual(self.read(server.stub(), ref), b"abc")

    def test_a_deadline_is_kept(self):
        server = self.serve()
        stub = server.stub()
        ref = self.append(stub, b"abc")
        seal = stub.Seal(self.pb.SealRequest(), timeout=SOON).seal
        forever = threading.Event()
        self.addCleanup(forever.set)

        def requests():
            yield self.pb.CompactSealedRequest(seal=seal, live=[ref])
            forever.wait(2 * SOON)

        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.CompactSealed(requests(), timeout=0.5))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        forever.set()
        self.assertEqual(self.read(stub, ref), b"abc")


if __name__ == "__main__":
    unittest.main(verbosity=2)
