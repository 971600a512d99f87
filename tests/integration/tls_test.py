#!/usr/bin/env python3
"""TLS and mutual TLS on a real server, by grpcio, grpcurl and Python's own TLS: who is taken, what
becomes of certificates that are replaced under load, and what is said of files that are wrong."""

import functools
import json
import os
import pathlib
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import grpc  # noqa: E402

from payloadstored import (  # noqa: E402
    SERVICE,
    SOON,
    ServerTest,
    clean_environment,
    credentials,
    make_certificates,
    poll,
    server_binary,
    stubs,
    tool,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@functools.lru_cache(maxsize=None)
def certificates():
    where = tempfile.mkdtemp(prefix="certificates-", dir=os.environ.get("TEST_WORK"))
    unittest.addModuleCleanup(shutil.rmtree, where)
    return make_certificates(where)


class TlsTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]
        self.certificates = certificates()

    def flags(self, *, cert="server", key=None, client_ca=None, where=None):
        where = where or self.certificates
        found = [f"--tls-cert={where / cert}.pem", f"--tls-key={where / (key or cert)}.key"]
        return found + ([f"--tls-client-ca={where / client_ca}.pem"] if client_ca else [])

    def known(self, certificate="client", ca="ca"):
        return credentials(self.certificates, ca, certificate)

    def serve_mutual(self, **options):
        return self.serve(*self.flags(client_ca="ca"), secure=self.known(), **options)

    def append(self, stub, payload):
        return stub.Append(self.pb.AppendRequest(payload=payload), timeout=SOON).ref

    def assert_works(self, stub):
        ref = self.append(stub, b"abc")
        self.assertEqual(stub.Read(self.pb.ReadRequest(ref=ref), timeout=SOON).payload, b"abc")

    def assert_not_taken(self, stub):
        self.assert_refused(UNAVAILABLE, stub.Append, self.pb.AppendRequest(payload=b"abc"))

    # -- who is taken -----------------------------------------------------------------------------

    def test_a_client_that_knows_the_authority_is_served(self):
        server = self.serve(*self.flags(), secure=self.known(None))
        self.assert_works(server.stub())
        self.assert_works(server.stub(secure=self.known()))  # nobody asked for a certificate
        self.assert_not_taken(server.stub(secure=self.known(None, ca="other-ca")))
        with grpc.insecure_channel(server.address) as plain:
            self.assert_not_taken(stubs()[1].PayloadStoreStub(plain))

    def test_mutual_tls_takes_only_whom_the_authority_has_signed(self):
        server = self.serve_mutual()
        self.assert_works(server.stub())
        for stranger in (None, "stranger", "expired"):
            with self.subTest(stranger):
                self.assert_not_taken(server.stub(secure=self.known(stranger)))
        with grpc.insecure_channel(server.address) as plain:
            self.assert_not_taken(stubs()[1].PayloadStoreStub(plain))
        self.assert_works(server.stub())

    def test_every_port_is_tls_and_a_socket_is_plaintext(self):
        with tempfile.TemporaryDirectory(prefix="sock-") as directory:
            path = f"unix:{directory}/s"
            server = self.serve_mutual(listen=["127.0.0.1:0", "127.0.0.1:0", path])
            ports = server.addresses[:2]
            for address in ports:
                self.assert_works(server.stub(address))
                self.assert_not_taken(server.stub(address, secure=self.known(None)))
            self.assert_works(server.stub(path))
            said = [e["security"] for e in server.events() if e["event"] == "listening"]
            self.assertEqual(said, ["mutual-tls", "mutual-tls", "plaintext"])
            server.stop()

    def test_the_files_come_from_variables(self):
        where = self.certificates
        environment = clean_environment(
            PAYLOADSTORE_TLS_CERT=str(where / "server.pem"),
            PAYLOADSTORE_TLS_KEY=str(where / "server.key"),
            PAYLOADSTORE_TLS_CLIENT_CA=str(where / "ca.pem"),
        )
        server = self.serve(secure=self.known(), environment=environment)
        self.assert_works(server.stub())
        self.assert_not_taken(server.stub(secure=self.known(None)))

    # -- grpcurl ----------------------------------------------------------------------------------

    def grpcurl(self, server, *arguments, cert="client"):
        where = self.certificates
        flags = ["-cacert", where / "ca.pem"]
        if cert:
            flags += ["-cert", where / f"{cert}.pem", "-key", where / f"{cert}.key"]
        return subprocess.run(
            [tool("grpcurl"), "-max-time", str(SOON), *flags, *arguments[:-1], server.address,
             arguments[-1]],
            capture_output=True,
            text=True,
            timeout=2 * SOON,
        )

    def test_grpcurl_with_a_certificate_finds_all_there_is(self):
        server = self.serve_mutual()
        listed = self.grpcurl(server, "list")
        self.assertIn(SERVICE, listed.stdout, listed.stderr)
        health = self.grpcurl(server, "grpc.health.v1.Health/Check")
        self.assertEqual(json.loads(health.stdout), {"status": "SERVING"})
        done = self.grpcurl(server, "-d", '{"payload": "YWJj"}', f"{SERVICE}/Append")
        self.assertEqual(json.loads(done.stdout)["ref"]["length"], 3, done.stderr)
        for cert in (None, "stranger"):
            refused = self.grpcurl(server, "-connect-timeout", "2", "list", cert=cert)
            self.assertNotEqual(refused.returncode, 0, refused.stdout)

    # -- certificates that are replaced -----------------------------------------------------------

    def live(self):
        """A directory with files to be replaced."""
        where = self.work / "live"
        where.mkdir()
        for name in ("server.pem", "server.key"):
            shutil.copy(self.certificates / name, where / name)
        return where

    def replace(self, where, name, by):
        """In one step, as whoever renews certificates should."""
        shutil.copy(self.certificates / by, where / "new")
        os.rename(where / "new", where / name)

    def shown(self, server):
        """The name of the certificate that a new connection is shown."""
        context = ssl.create_default_context(cafile=self.certificates / "ca.pem")
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", server.port), SOON) as raw:
            with context.wrap_socket(raw) as connection:
                return dict(pair[0] for pair in connection.getpeercert()["subject"])["commonName"]

    def reports(self, server):
        found = [e for e in server.events() if e.get("event") == "certificates"]
        return [(e["level"], e["in_use"], pathlib.Path(e.get("cause", "")).name) for e in found]

    def test_replaced_certificates_are_shown_and_streams_go_on(self):
        where = self.live()
        server = self.serve(*self.flags(where=where), secure=self.known(None))
        batches = queue.Queue()
        self.addCleanup(batches.put, None)
        answers = server.stub().AppendStream(iter(batches.get, None))

        def one_more(number):
            payloads = [b"%d" % number]
            batches.put(self.pb.AppendStreamRequest(payloads=payloads))
            self.assertEqual(next(answers).refs[0].length, len(payloads[0]))

        one_more(1)
        self.assertEqual(self.shown(server), "server")
        self.replace(where, "server.pem", "renewed.pem")
        # Half replaced: the certificate is new, the key is not.
        self.assertEqual([self.shown(server) for _ in range(3)], ["server"] * 3)
        one_more(22)
        self.replace(where, "server.key", "renewed.key")
        self.assertEqual([self.shown(server) for _ in range(3)], ["renewed"] * 3)
        one_more(333)
        self.assertEqual(
            self.reports(server), [("warning", "old", "server.pem"), ("info", "new", "")]
        )
        os.unlink(where / "server.key")
        self.assertEqual(self.shown(server), "renewed")
        (where / "server.key").write_text("-----BEGIN PRIVATE KEY-----\nhalf of")
        self.assertEqual(self.shown(server), "renewed")
        one_more(4444)
        said = self.reports(server)[2:]
        self.assertEqual(
            said,
            [
                ("warning", "old", "server.key: No such file or directory"),
                ("warning", "old", "server.key: holds no private key, or one with a passphrase"),
            ],
        )
        batches.put(None)
        self.assertEqual(list(answers), [])

    def test_no_connection_fails_while_certificates_are_replaced(self):
        where = self.live()
        server = self.serve(*self.flags(where=where), secure=self.known(None))
        over = threading.Event()
        shown, failures = set(), []

        def connect():
            while not over.is_set():
                try:
                    shown.add(self.shown(server))
                except (OSError, ssl.SSLError) as error:
                    failures.append(error)

        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                for name in ("renewed", "server"):
                    self.replace(where, "server.pem", f"{name}.pem")
                    self.replace(where, "server.key", f"{name}.key")
                    poll(f"{name} is shown", lambda name=name: self.shown(server) == name)
        finally:
            over.set()
            for thread in threads:
                thread.join(SOON)
        self.assertEqual(failures, [])
        self.assertEqual(shown, {"server", "renewed"})
        self.assert_works(server.stub())

    # -- files that are wrong ---------------------------------------------------------------------

    def assert_will_not_start(self, *flags, words, status=1):
        done = subprocess.run(
            [server_binary(), "--listen=127.0.0.1:0", "--data-dir=payloads", *flags],
            capture_output=True,
            text=True,
            timeout=SOON,
            cwd=self.work,
            env=clean_environment(),
        )
        self.assertEqual(done.returncode, status, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertNotIn("Sanitizer", done.stderr)
        return done

    def test_what_is_wrong_with_a_file_is_said_at_start(self):
        where = self.certificates
        for flags, words in [
            (self.flags(key="missing"), ["missing.key: No such file or directory"]),
            (self.flags(cert="missing", key="server"), ["missing.pem: No such file"]),
            (self.flags(client_ca="missing"), ["missing.pem: No such file"]),
            (self.flags(key="client"), ["client.key: not the key to the certificate in", "server.pem"]),
            (self.flags(key="locked"), ["locked.key: holds no private key", "passphrase"]),
            ([f"--tls-cert={where}", f"--tls-key={where}/server.key"], [f"{where}: not a file"]),
            ([f"--tls-cert={where}/server.pem", f"--tls-key={where}"], [f"{where}: not a file"]),
            ([f"--tls-cert={where}/server.key", f"--tls-key={where}/server.key"],
             ["server.key: holds no certificate"]),
            ([*self.flags(), f"--tls-client-ca={where}/server.key"],
             ["server.key: holds no certificate"]),
        ]:  # fmt: skip
            with self.subTest(flags=flags):
                self.assert_will_not_start(*flags, words=["127.0.0.1:0", *words])

    def test_a_key_that_may_not_be_read_is_named(self):
        where = self.live()
        (where / "server.key").chmod(0)
        if os.access(where / "server.key", os.R_OK):
            self.skipTest("this user may read everything")
        self.assert_will_not_start(
            *self.flags(where=where), words=["server.key: Permission denied"]
        )

    def test_half_of_a_pair_is_refused_before_anything_is_made(self):
        cert, key = self.flags()
        self.assert_will_not_start(cert, words=["--tls-key is not set"], status=2)
        self.assert_will_not_start(key, words=["--tls-cert is not set"], status=2)
        ca = f"--tls-client-ca={self.certificates}/ca.pem"
        self.assert_will_not_start(ca, words=["--tls-client-ca", "--tls-cert"], status=2)
        self.assertFalse((self.work / "payloads").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
