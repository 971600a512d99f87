#!/usr/bin/env python3
"""The service as grpcurl sees it, which knows of it only what reflection tells: what there is, what
each method takes and answers, and with what status and reason each refusal comes."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from google.protobuf import json_format  # noqa: E402

from payloadstored import MIB, SERVICE, SOON, ServerTest, poll, stubs, tool  # noqa: E402

# grpcurl ends with 64 and the status code.
STATUS = {
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "DATA_LOSS": 15,
}
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVICE,
]
HELLO = base64.b64encode(b"hello world").decode()


def crc32c(data):
    """CRC-32C bit by bit, from its definition, so as not to trust the server's library."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


HELLO_CRC = crc32c(b"hello world")


class Refused(Exception):
    def __init__(self, status):
        super().__init__(json.dumps(status))
        self.code = status["code"]
        self.message = status.get("message", "")
        self.info = next(
            (d for d in status.get("details", []) if d["@type"].endswith("google.rpc.ErrorInfo")),
            None,
        )


class GrpcurlTest(ServerTest):
    """Each test has a store of its own on one server, but for those that need other flags."""

    @classmethod
    def setUpClass(cls):
        assert crc32c(b"123456789") == 0xE3069283

    def setUp(self):
        super().setUp()
        self.server = self.serve("--segment-max-mb", "1", "--max-payload-mb", "2")

    # -- grpcurl ---------------------------------------------------------------------------------

    def command(self, *arguments):
        return [tool("grpcurl"), "-plaintext", *arguments]

    def run_grpcurl(self, *arguments, stdin=""):
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=SOON
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, *arguments):
        status, said, complaint = self.run_grpcurl(*arguments)
        self.assertEqual(status, 0, complaint)
        return said

    def stream(self, method, *messages):
        """The messages that answer; a Refused where the call fails."""
        service = "" if "/" in method else f"{SERVICE}/"
        status, said, complaint = self.run_grpcurl(
            *["-format-error", "-d", "@", self.server.address, service + method],
            stdin="\n".join(json.dumps(message) for message in messages),
        )
        if status > 64:
            refusal = json.loads(complaint)
            self.assertEqual(status, 64 + refusal["code"])
            raise Refused(refusal)
        self.assertEqual(status, 0, complaint)
        answers = []
        decoder = json.JSONDecoder()
        said = said.lstrip()
        while said:
            answer, end = decoder.raw_decode(said)
            answers.append(answer)
            said = said[end:].lstrip()
        return answers

    def call(self, method, message=None):
        answers = self.stream(method, message or {})
        self.assertEqual(len(answers), 1)
        return answers[0]

    def refused(self, status, method, *messages, reason=None, names=()):
        """The call fails with the status; with the reason, where the contract has one; and with a
        message that names what it is about."""
        with self.assertRaises(Refused, msg=f"{method} {messages}"[:400]) as caught:
            self.stream(method, *(messages or ({},)))
        refusal = caught.exception
        self.assertEqual(refusal.code, STATUS[status], refusal)
        self.assertNotEqual(refusal.message, "")
        for name in names:
            self.assertIn(str(name), refusal.message)
        if reason:
            self.assertIsNotNone(refusal.info, f"no ErrorInfo: {refusal}")
            self.assertEqual(refusal.info["reason"], reason)
            self.assertEqual(refusal.info["domain"], "payloadstore")
        return refusal

    # -- short forms ------------------------------------------------------------------------------

    def append(self, payload, store="s", **more):
        encoded = base64.b64encode(payload).decode()
        return self.call("Append", {"store": store, "payload": encoded, **more})["ref"]

    def read(self, ref, store="s"):
        answer = self.call("Read", {"store": store, "ref": ref})
        return base64.b64decode(answer.get("payload", ""))

    def seal(self, store="s", **more):
        return self.call("Seal", {"store": store, **more})["seal"]

    def claim(self, store="s", **more):
        return int(self.call("Claim", {"store": store, **more})["epoch"])

    def writer(self, store="s"):
        """The epoch and the owner that Stat tells."""
        stat = self.call("Stat", {"store": store})
        return int(stat.get("epoch", 0)), stat.get("owner", "")

    def serve_again(self):
        """The same data, after a restart."""
        self.assertEqual(self.server.stop(), 0)
        self.server.start()

    def compact(self, seal, live, store="s", **options):
        """The map, as pairs, and the summary."""
        answers = self.stream(
            "CompactSealed",
            {"store": store, "seal": seal, **options},
            *({"live": [ref]} for ref in live),
            {"commit": True},
        )
        self.assertIn("summary", answers[-1])
        pairs = [
            (relocation["oldRef"], relocation["newRef"])
            for answer in answers
            for relocation in answer.get("relocations", [])
        ]
        return pairs, answers[-1]["summary"]

    def usage(self, store="s"):
        return int(self.call("Stat", {"store": store}).get("diskUsageBytes", 0))

    # -- what there is ----------------------------------------------------------------------------

    def test_list_shows_the_services(self):
        self.assertEqual(self.ask(self.server.address, "list").split(), SERVICES)

    def test_list_shows_the_methods(self):
        methods = self.ask(self.server.address, "list", SERVICE).split()
        service = stubs()[0].DESCRIPTOR.services_by_name["PayloadStore"]
        self.assertEqual(methods, sorted(method.full_name for method in service.methods))
        self.assertEqual(len(methods), 11)

    def test_both_versions_of_reflection_list_the_services(self):
        for version in ("v1", "v1alpha"):
            method = f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            answer = self.stream(method, {"list_services": "*"})[0]
            listed = answer["listServicesResponse"]["service"]
            self.assertEqual(sorted(service["name"] for service in listed), SERVICES)
            for symbol in (SERVICE, f"{SERVICE}.Append", "payloadstore.v1.PayloadRef.crc32c"):
                answer = self.stream(method, {"file_containing_symbol": symbol})[0]
                self.assertTrue(answer["fileDescriptorResponse"]["fileDescriptorProto"])
            answer = self.stream(method, {"file_containing_symbol": "no.Such"})[0]
            self.assertEqual(answer["errorResponse"]["errorCode"], STATUS["NOT_FOUND"])

    def test_describe_explains_every_element(self):
        file = stubs()[0].DESCRIPTOR
        names = [SERVICE]
        names += [message.full_name for message in file.message_types_by_name.values()]
        names += [enum.full_name for enum in file.enum_types_by_name.values()]
        self.assertGreater(len(names), 30)
        element = re.compile(r"^\s*((repeated |stream |rpc )?[\w.]+ )?\w+ ?(=|\().*;$")
        described = 0
        for name in names:
            said = self.ask(self.server.address, "describe", name)
            above = ""
            for line in said.splitlines()[1:]:
                starts = re.match(r"\s*(service|message|enum|rpc) ", line)
                if starts or element.match(line):
                    described += 1
                    explained = re.match(r"\s*//", above) or above.rstrip().endswith("*/")
                    self.assertTrue(explained, f"no comment above: {line}\n{said}")
                above = line
        self.assertGreater(described, 150)

    def test_the_health_service_answers_for_load_balancers(self):
        for service in ("", SERVICE):
            answer = self.call("grpc.health.v1.Health/Check", {"service": service})
            self.assertEqual(answer["status"], "SERVING")
        self.refused("NOT_FOUND", "grpc.health.v1.Health/Check", {"service": "no.Such"})

    # -- every method -----------------------------------------------------------------------------

    def test_append_and_read(self):
        first = self.call("Append", {"payload": HELLO})
        # Zeros are not printed in JSON: segment 0, offset 0.
        self.assertEqual(first, {"ref": {"length": 11, "crc32c": HELLO_CRC}})
        self.assertEqual(self.call("Read", first), {"payload": HELLO})

    def test_offsets_follow_the_records(self):
        refs = [self.append(payload) for payload in (b"abc", b"def", b"ghi", b"")]
        self.assertEqual([ref.get("offset", "0") for ref in refs], ["0", "7", "14", "21"])
        self.assertEqual([ref.get("fileId", 0) for ref in refs], [0] * 4)
        self.assertEqual([self.read(ref) for ref in refs], [b"abc", b"def", b"ghi", b""])

    def test_a_ref_without_its_checksum_reads(self):
        ref = self.append(b"abc")
        del ref["crc32c"]
        self.assertEqual(self.read(ref), b"abc")

    def test_each_durability_is_taken(self):
        for durability in ("DURABILITY_BUFFERED", "DURABILITY_SYNCED", "DURABILITY_UNSPECIFIED"):
            self.assertEqual(self.read(self.append(b"abc", durability=durability)), b"abc")

    def test_seal_leaves_room_for_the_compaction(self):
        self.append(b"abc")
        seal = self.seal()
        self.assertEqual(seal, {"compactionId": 1})
        self.assertEqual(self.seal(), seal)
        self.assertEqual(self.append(b"def")["fileId"], 2)
        self.assertEqual(self.seal(), {"sealedId": 2, "compactionId": 3})

    def test_seal_makes_a_store(self):
        self.seal("fresh")
        self.assertIn("fresh", self.call("ListStores")["stores"])

    def test_compact_keeps_what_lives(self):
        refs = [self.append(b"%04d" % number) for number in range(10)]
        seal = self.seal()
        later = self.append(b"later")
        pairs, summary = self.compact(seal, refs[::3] + [later])
        self.assertEqual([old for old, _ in pairs], refs[::3])
        self.assertEqual([self.read(new) for _, new in pairs], [b"0000", b"0003", b"0006", b"0009"])
        self.assertEqual(self.read(later), b"later")
        self.assertEqual(summary["liveRecords"], "4")
        self.assertEqual(summary["relocatedRecords"], "4")
        self.assertEqual(summary["deletedSegments"], "1")
        self.assertEqual(summary["reclaimedBytes"], str(6 * 8))
        self.assertEqual(self.usage(), 4 * 8 + 9)
        self.refused("NOT_FOUND", "Read", {"store": "s", "ref": refs[1]}, names=["s"])

    def test_compact_with_nothing_alive_gives_all_back(self):
        ref = self.append(b"abc")
        pairs, summary = self.compact(self.seal(), [])
        self.assertEqual((pairs, summary["deletedSegments"]), ([], "1"))
        self.assertEqual(self.usage(), 0)
        self.refused("NOT_FOUND", "Read", {"store": "s", "ref": ref})

    def test_compact_takes_everything_in_one_message(self):
        ref = self.append(b"abc")
        request = {"store": "s", "seal": self.seal(), "live": [ref], "commit": True}
        answers = self.stream("CompactSealed", request)
        self.assertEqual(answers[-1]["summary"]["relocatedRecords"], "1")

    def test_a_dry_run_changes_nothing(self):
        refs = [self.append(b"abc"), self.append(b"def")]
        seal = self.seal()
        pairs, summary = self.compact(seal, refs[:1], dry_run=True)
        self.assertEqual((pairs, summary["dryRun"], summary["liveRecords"]), ([], True, "1"))
        self.assertEqual([self.read(ref) for ref in refs], [b"abc", b"def"])
        self.assertEqual(len(self.compact(seal, refs[:1])[0]), 1)

    def test_segments_with_little_garbage_stay_where_that_is_wanted(self):
        # Two segments of 1.2 MiB, the first all alive, the second half dead.
        refs = [self.append(bytes([number]) * 600000) for number in range(4)]
        self.assertEqual([ref.get("fileId", 0) for ref in refs], [0, 0, 1, 1])
        pairs, summary = self.compact(self.seal(), refs[:3], min_garbage_percent=30)
        self.assertEqual([old for old, _ in pairs], refs[2:3])
        self.assertEqual(summary["keptSegments"], "1")
        self.assertEqual(summary["deletedSegments"], "1")
        self.assertEqual(self.read(refs[0]), bytes([0]) * 600000)
        self.assertEqual(self.read(pairs[0][1]), bytes([2]) * 600000)

    def test_stat(self):
        self.append(b"1234")
        stat = self.call("Stat", {"store": "s"})
        self.assertEqual(stat["store"], "s")
        self.assertEqual(stat["diskUsageBytes"], "8")
        self.assertEqual(stat["records"], "1")
        self.assertEqual(stat["segments"], [{"bytes": "8", "records": "1", "active": True}])
        self.assertEqual(stat["maxPayloadBytes"], str(2 * MIB))
        self.assertGreater(int(stat["freeBytes"]), 0)
        self.assertNotEqual(stat["incarnation"], "")
        self.assertNotIn("lastSeal", stat)
        seal = self.seal()
        stat = self.call("Stat", {"store": "s"})
        self.assertEqual(stat["lastSeal"], seal)
        self.assertEqual(stat["activeId"], 2)

    def test_no_store_named_means_default(self):
        ref = self.append(b"abc", store="")
        self.assertEqual(self.read(ref, store="default"), b"abc")
        self.assertEqual(self.call("Stat")["store"], "default")
        self.assertEqual(self.call("ListStores"), {"stores": ["default"]})

    def test_list_stores_pages_in_byte_order(self):
        names = ["Zebra", "a", "a-b", "a.b", "aa", "b"]
        for name in reversed(names):
            self.append(b"", store=name)
        self.assertEqual(self.call("ListStores")["stores"], names)
        listed, request = [], {"page_size": 4}
        while True:
            answer = self.call("ListStores", request)
            listed.append(answer["stores"])
            if not answer.get("nextPageToken"):
                break
            request["page_token"] = answer["nextPageToken"]
        self.assertEqual(listed, [names[:4], names[4:]])

    def test_a_deleted_store_stays_deleted(self):
        old = self.append(b"old")
        incarnation = self.call("Stat", {"store": "s"})["incarnation"]
        self.append(b"abc", store="t")
        self.assertEqual(self.call("DeleteStore", {"store": "s", "incarnation": incarnation}), {})
        self.assertEqual(self.call("ListStores"), {"stores": ["t"]})
        self.refused("NOT_FOUND", "Read", {"store": "s", "ref": old}, names=["s"])
        self.refused("NOT_FOUND", "DeleteStore", {"store": "s"}, names=["s"])
        # A store made again by the same name never meets the old one's refs.
        new = self.append(b"new")
        self.assertGreater(new.get("fileId", 0), old.get("fileId", 0))
        self.refused("NOT_FOUND", "Read", {"store": "s", "ref": old})
        self.assertNotEqual(self.call("Stat", {"store": "s"})["incarnation"], incarnation)
        again = {"store": "s", "incarnation": incarnation}
        self.refused("FAILED_PRECONDITION", "DeleteStore", again, names=["s"])
        self.assertEqual(self.read(new), b"new")

    def test_a_claim_gives_the_next_epoch(self):
        self.append(b"abc")
        self.assertEqual(self.writer(), (0, ""))
        self.assertEqual(self.claim(owner="broker one"), 1)
        self.assertEqual(self.writer(), (1, "broker one"))
        self.append(b"def", epoch=1)
        self.serve_again()
        self.assertEqual(self.writer(), (1, "broker one"))
        self.assertEqual(self.claim(owner="zwei \u00e4"), 2)
        self.assertEqual(self.writer(), (2, "zwei \u00e4"))
        self.assertEqual(self.usage(), 14)

    def test_a_claim_makes_a_store(self):
        self.assertEqual(self.claim("fresh"), 1)
        self.assertEqual(self.claim(""), 1)
        self.assertEqual(self.call("ListStores")["stores"], ["default", "fresh"])

    def test_the_claimer_writes(self):
        epoch = self.claim()
        refs = [self.append(b"abc", epoch=epoch), self.append(b"def", epoch=epoch)]
        seal = self.seal(epoch=epoch)
        pairs, _ = self.compact(seal, refs[:1], epoch=epoch)
        self.assertEqual(self.read(pairs[0][1]), b"abc")
        self.assertEqual(self.call("DeleteStore", {"store": "s", "epoch": epoch}), {})

    def test_an_epoch_outlives_its_store(self):
        epoch = self.claim(owner="me")
        self.call("DeleteStore", {"store": "s", "epoch": epoch})
        for _ in range(2):
            for method, message in [("Append", {"payload": HELLO}), ("Seal", {})]:
                self.refused(
                    "FAILED_PRECONDITION", method, {"store": "s", **message}, reason="EPOCH_STALE"
                )
            self.refused("FAILED_PRECONDITION", "Claim", {"store": "s", "if_epoch": "0"})
            self.assertEqual(self.call("ListStores"), {})
            self.serve_again()
        self.append(b"abc", epoch=epoch)
        self.assertEqual(self.writer(), (epoch, ""))
        self.call("DeleteStore", {"store": "s", "epoch": epoch})
        self.assertEqual(self.claim(), epoch + 1)

    # -- streams ----------------------------------------------------------------------------------

    def test_append_stream_answers_each_request_in_order(self):
        answers = self.stream(
            "AppendStream",
            {"store": "s", "payloads": [HELLO, ""]},
            {},
            {"payloads": [base64.b64encode(bytes(2 * MIB + 1)).decode()]},
            {"store": "s", "payloads": [HELLO]},
        )
        self.assertEqual(len(answers), 4)
        hello = {"length": 11, "crc32c": HELLO_CRC}
        self.assertEqual(answers[0], {"refs": [hello, {"offset": "15"}]})
        self.assertEqual(answers[1], {})
        failure = answers[2]["failure"]
        self.assertEqual(failure["code"], STATUS["RESOURCE_EXHAUSTED"])
        self.assertEqual(failure["reason"], "REASON_PAYLOAD_TOO_LARGE")
        self.assertIn('"s"', failure["message"])
        self.assertEqual(answers[3], {"refs": [{"offset": "19", **hello}]})
        self.assertEqual(self.read(answers[3]["refs"][0]), b"hello world")

    def test_read_stream_answers_good_and_bad_refs_in_order(self):
        refs = [self.append(payload) for payload in (b"abc", b"", b"def")]
        bad = {"offset": "1", "length": 3}
        never = {"offset": str(1 << 63), "length": 3}
        damaged = {**refs[2], "crc32c": 1}
        answers = self.stream(
            "ReadStream",
            {"store": "s", "refs": [refs[0], bad, refs[1], never, damaged]},
            {"refs": [refs[2]]},
        )
        results = [result for answer in answers for result in answer["results"]]
        self.assertEqual(results[0], {"payload": base64.b64encode(b"abc").decode()})
        self.assertEqual(results[2], {"payload": ""})
        self.assertEqual(results[5], {"payload": base64.b64encode(b"def").decode()})
        codes = ("NOT_FOUND", "INVALID_ARGUMENT", "DATA_LOSS")
        for result, code in zip((results[1], results[3], results[4]), codes, strict=True):
            self.assertEqual(result["failure"]["code"], STATUS[code])
            self.assertIn("ref 0:", result["failure"]["message"])
        self.assertEqual(len(results), 6)

    def test_streams_hold_to_their_first_message(self):
        first = {"store": "s", "payloads": [HELLO]}
        for more in ({"store": "t"}, {"epoch": "1"}, {"durability": "DURABILITY_SYNCED"}):
            with self.subTest(**more):
                self.refused("INVALID_ARGUMENT", "AppendStream", first, {**first, **more})
        self.refused("INVALID_ARGUMENT", "ReadStream", {"store": "s"}, {"store": "t"})

    # -- refusals ---------------------------------------------------------------------------------

    def test_a_bad_name_is_refused_by_every_method(self):
        ref = {"length": 3}
        seal = {"compactionId": 1}
        for name in ("../x", "a/b", ".hidden", "-a", "_a", "a b", "a\nb", "a\0b", "\u00e4", "a" * 129):
            for method, message in [
                ("Append", {"payload": HELLO}),
                ("Read", {"ref": ref}),
                ("Seal", {}),
                ("CompactSealed", {"seal": seal, "commit": True}),
                ("Claim", {}),
                ("Stat", {}),
                ("Verify", {}),
                ("DeleteStore", {}),
                ("AppendStream", {"payloads": [HELLO]}),
                ("ReadStream", {"refs": [ref]}),
            ]:
                with self.subTest(name=name, method=method):
                    self.refused("INVALID_ARGUMENT", method, {"store": name, **message})
        self.assertEqual(self.call("ListStores"), {})
        self.assertEqual(self.read(self.append(b"abc", store="a" * 128), store="a" * 128), b"abc")

    def test_an_unknown_store_is_not_found(self):
        for method, message in [
            ("Read", {"ref": {"length": 3}}),
            ("CompactSealed", {"seal": {"compactionId": 1}, "commit": True}),
            ("Stat", {}),
            ("Verify", {}),
            ("DeleteStore", {}),
            ("ReadStream", {}),
        ]:
            with self.subTest(method=method):
                self.refused("NOT_FOUND", method, {"store": "ghost", **message}, names=["ghost"])
        self.assertEqual(self.call("ListStores"), {})

    def test_a_ref_to_no_record_is_not_found(self):
        self.append(b"abc")
        middle = self.append(b"defghi")
        last = self.append(b"jkl")
        past = int(last["offset"]) + 7
        for what, ref in [
            ("at the end", {"offset": past, "length": 3}),
            ("far past the end", {"offset": 1 << 40, "length": 3}),
            ("in the middle of a record", {"offset": int(middle["offset"]) + 1, "length": 2}),
            ("too short", {"offset": middle["offset"], "length": 5}),
            ("too long", {"offset": middle["offset"], "length": 7}),
            ("a segment that never was", {"fileId": 77, "length": 3}),
            ("over the end", {"offset": last["offset"], "length": 1 << 20}),
        ]:
            with self.subTest(what):
                names = ["s", ref.get("fileId", 0), ref.get("offset", 0)]
                self.refused("NOT_FOUND", "Read", {"store": "s", "ref": ref}, names=names)
                # A checksum in it makes no difference.
                ref = {**ref, "crc32c": 12345}
                self.refused("NOT_FOUND", "Read", {"store": "s", "ref": ref})

    def test_what_could_never_have_been_a_ref_is_invalid(self):
        self.append(b"abc")
        for ref in (
            {"length": 0xFFFFFFFF},
            {"length": 0x80000000},
            {"offset": str((1 << 64) - 1), "length": 3},
            {"offset": str((1 << 63)), "length": 3},
        ):
            with self.subTest(ref=ref):
                self.refused("INVALID_ARGUMENT", "Read", {"store": "s", "ref": ref})
        self.refused("INVALID_ARGUMENT", "Read", {"store": "s"})

    def test_a_checksum_that_differs_is_data_loss(self):
        ref = self.append(b"abc")
        wrong = {**ref, "crc32c": ref["crc32c"] ^ 1}
        self.refused("DATA_LOSS", "Read", {"store": "s", "ref": wrong}, names=["s"])
        self.assertEqual(self.read(ref), b"abc")

    def damage(self, store, offset):
        path = self.server.payload_files(store)[0]
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))

    def test_a_damaged_record_is_data_loss_and_its_neighbours_read(self):
        refs = [self.append(payload) for payload in (b"abc", b"def", b"ghi")]
        self.damage("s", int(refs[1]["offset"]) + 4)
        self.refused("DATA_LOSS", "Read", {"store": "s", "ref": refs[1]}, names=["s"])
        self.assertEqual([self.read(refs[0]), self.read(refs[2])], [b"abc", b"ghi"])

    def verify(self, **options):
        """The damaged refs, and the counts of the last response."""
        answers = self.stream("Verify", {"store": "s", **options})
        damaged = [entry for answer in answers for entry in answer.pop("damaged", [])]
        return damaged, answers[-1]

    def test_verify_counts_a_store_that_is_whole(self):
        self.call("Seal", {"store": "s"})
        self.assertEqual(self.verify(), ([], {}))
        for number in range(10):
            self.append(b"%04d" % number)
        self.append(bytes(1500000))  # read in pieces
        size = str(self.usage())
        counts = {"recordsChecked": "11", "bytesChecked": size, "bytesTotal": size}
        self.assertEqual(self.verify(), ([], counts))
        self.assertEqual(self.verify(bytes_per_second=64 * MIB), ([], counts))
        self.server.stop()
        self.server.start()
        self.assertEqual(self.verify(), ([], counts))

    def test_verify_tells_which_records_are_damaged(self):
        refs = [self.append(payload) for payload in (b"abc", b"defghi", b"jkl", b"mno")]
        self.damage("s", int(refs[1]["offset"]) + 4)
        self.damage("s", int(refs[3]["offset"]) + 6)
        damaged, counts = self.verify()
        self.assertEqual([entry["ref"] for entry in damaged], [refs[1], refs[3]])
        self.assertEqual({entry["code"] for entry in damaged}, {STATUS["DATA_LOSS"]})
        self.assertEqual({bool(entry["message"]) for entry in damaged}, {True})
        self.assertEqual(counts["recordsChecked"], "4")
        self.assertEqual(counts["bytesChecked"], str(self.usage()))
        # It has changed nothing.
        self.refused("DATA_LOSS", "Read", {"store": "s", "ref": refs[1]}, names=["s"])
        self.assertEqual([self.read(refs[0]), self.read(refs[2])], [b"abc", b"jkl"])

    def test_verify_tells_where_whole_records_end(self):
        refs = [self.append(payload) for payload in (b"abc", b"def")]
        self.server.stop()
        with open(self.server.payload_files("s")[0], "ab") as file:
            file.write(b"\x07\x00\x00\x00torn")
        self.server.start()
        damaged, counts = self.verify()
        self.assertEqual([entry["ref"] for entry in damaged], [{"offset": "14", "length": 8}])
        self.assertEqual(damaged[0]["code"], STATUS["NOT_FOUND"])
        self.assertEqual((counts["recordsChecked"], counts["bytesChecked"]), ("2", "14"))
        self.assertEqual([self.read(ref) for ref in refs], [b"abc", b"def"])

    def test_a_payload_above_the_maximum_is_refused(self):
        whole = self.append(b"x" * 2 * MIB)
        self.assertEqual(whole["length"], 2 * MIB)
        above = base64.b64encode(b"x" * (2 * MIB + 1)).decode()
        self.refused(
            "RESOURCE_EXHAUSTED",
            "Append",
            {"store": "s", "payload": above},
            reason="PAYLOAD_TOO_LARGE",
        )
        # Far above it gRPC itself refuses the message.
        far_above = base64.b64encode(b"x" * (3 * MIB)).decode()
        self.refused("RESOURCE_EXHAUSTED", "Append", {"store": "s", "payload": far_above})
        # No store is made for it.
        self.refused(
            "RESOURCE_EXHAUSTED",
            "Append",
            {"store": "t", "payload": above},
            reason="PAYLOAD_TOO_LARGE",
        )
        self.assertEqual(self.call("ListStores"), {"stores": ["s"]})
        self.assertEqual(self.usage(), 2 * MIB + 4)

    def test_a_seal_that_was_never_given_is_refused(self):
        ref = self.append(b"abc")
        never = {"sealedId": 5, "compactionId": 6}
        for handle in (never, {"compactionId": 1}):
            self.refused(
                "FAILED_PRECONDITION",
                "CompactSealed",
                {"store": "s", "seal": handle, "live": [ref], "commit": True},
                reason="HANDLE_UNKNOWN",
                names=["s"],
            )
        seal = self.seal()
        forged = {**seal, "compactionId": seal["compactionId"] + 1}
        for handle in (never, forged):
            self.refused(
                "FAILED_PRECONDITION",
                "CompactSealed",
                {"store": "s", "seal": handle, "commit": True},
                reason="HANDLE_UNKNOWN",
            )
        # Another store's is not this one's.
        self.append(b"abc", store="t")
        self.refused(
            "FAILED_PRECONDITION",
            "CompactSealed",
            {"store": "t", "seal": seal, "commit": True},
            reason="HANDLE_UNKNOWN",
        )
        self.assertEqual(self.read(ref), b"abc")

    def test_a_seal_older_than_a_compaction_is_refused(self):
        first = self.append(b"abc")
        old = self.seal()
        second = self.append(b"def")
        pairs, _ = self.compact(self.seal(), [first, second])
        self.refused(
            "FAILED_PRECONDITION",
            "CompactSealed",
            {"store": "s", "seal": old, "live": [], "commit": True},
            reason="HANDLE_SUPERSEDED",
        )
        self.assertEqual([self.read(new) for _, new in pairs], [b"abc", b"def"])

    def test_a_stream_without_commit_changes_nothing(self):
        ref = self.append(b"abc")
        seal = self.seal()
        request = {"store": "s", "seal": seal}
        for stream in ([request], [request, {"live": [ref]}], [{**request, "live": [ref]}]):
            self.refused("INVALID_ARGUMENT", "CompactSealed", *stream, reason="NOT_COMMITTED")
        self.assertEqual(self.read(ref), b"abc")
        self.assertEqual(len(self.compact(seal, [ref])[0]), 1)

    def test_a_count_of_live_refs_that_differs_changes_nothing(self):
        refs = [self.append(b"abc"), self.append(b"def")]
        seal = self.seal()
        for expected in (0, 1, 3):
            request = {"store": "s", "seal": seal, "live": refs, "expected_live": expected}
            self.refused(
                "FAILED_PRECONDITION",
                "CompactSealed",
                request,
                {"commit": True},
                reason="EXPECTED_LIVE_DIFFERS",
            )
        self.assertEqual([self.read(ref) for ref in refs], [b"abc", b"def"])
        # Duplicates count.
        pairs, summary = self.compact(seal, refs + refs, expected_live=4)
        self.assertEqual((len(pairs), summary["liveRecords"]), (2, "2"))

    def test_a_live_ref_to_no_record_changes_nothing(self):
        ref = self.append(b"abc")
        self.append(b"def")
        seal = self.seal()
        for bad in ({"offset": 1, "length": 3}, {"length": 4}, {"offset": 14, "length": 3}):
            refusal = self.refused(
                "NOT_FOUND",
                "CompactSealed",
                {"store": "s", "seal": seal, "live": [ref, bad], "commit": True},
                reason="LIVE_REF_UNREADABLE",
                names=["s", bad.get("offset", 0)],
            )
            self.assertNotIn("panic", refusal.message)
        self.assertEqual(self.read(ref), b"abc")
        self.assertEqual(self.usage(), 14)

    def test_a_damaged_live_ref_changes_nothing(self):
        refs = [self.append(b"abc"), self.append(b"def")]
        seal = self.seal()
        self.damage("s", 4)
        self.refused(
            "DATA_LOSS",
            "CompactSealed",
            {"store": "s", "seal": seal, "live": refs, "commit": True},
            reason="LIVE_REF_UNREADABLE",
            names=["s"],
        )
        self.assertEqual(self.read(refs[1]), b"def")
        # Where it was not alive, its damage is nobody's loss.
        self.assertEqual(len(self.compact(seal, refs[1:])[0]), 1)

    def test_a_damaged_live_ref_can_be_kept(self):
        refs = [self.append(bytes([number]) * 600000) for number in range(4)]
        seal = self.seal()
        self.damage("s", 4)
        answers = self.stream(
            "CompactSealed",
            {"store": "s", "seal": seal, "live": refs, "keep_damaged": True, "commit": True},
        )
        damaged = [entry for answer in answers for entry in answer.get("damaged", [])]
        self.assertEqual(len(damaged), 1)
        self.assertEqual(damaged[0]["ref"].get("fileId", 0), 0)
        self.assertEqual(damaged[0]["ref"].get("offset", "0"), "0")
        self.assertEqual(damaged[0]["ref"]["length"], 600000)
        self.assertEqual(damaged[0]["code"], STATUS["DATA_LOSS"])
        # Its segment stays, and with it what else lies there; the other one is compacted.
        self.assertEqual(self.read(refs[1]), bytes([1]) * 600000)
        self.assertEqual(answers[-1]["summary"]["keptSegments"], "1")
        self.assertEqual(answers[-1]["summary"]["deletedSegments"], "1")

    def test_a_share_of_garbage_above_100_percent_is_invalid(self):
        self.append(b"abc")
        request = {"store": "s", "seal": self.seal(), "min_garbage_percent": 101, "commit": True}
        self.refused("INVALID_ARGUMENT", "CompactSealed", request)

    def test_another_writer_s_epoch_is_stale(self):
        ref = self.append(b"abc")
        seal = self.seal()
        for method, message in [
            ("Append", {"payload": HELLO}),
            ("Seal", {}),
            ("CompactSealed", {"seal": seal, "live": [ref], "commit": True}),
            ("DeleteStore", {}),
        ]:
            with self.subTest(method=method):
                self.refused(
                    "FAILED_PRECONDITION",
                    method,
                    {"store": "s", "epoch": 7, **message},
                    reason="EPOCH_STALE",
                    names=["s"],
                )
        self.assertEqual(self.read(ref), b"abc")
        self.assertEqual(self.usage(), 7)

    def test_who_wrote_before_a_claim_is_stale(self):
        ref = self.append(b"abc")
        seal = self.seal()
        self.claim(owner="me")
        for method, message in [
            ("Append", {"payload": HELLO}),
            ("Seal", {}),
            ("CompactSealed", {"seal": seal, "live": [ref], "commit": True}),
            ("DeleteStore", {}),
        ]:
            with self.subTest(method=method):
                self.refused(
                    "FAILED_PRECONDITION",
                    method,
                    {"store": "s", **message},
                    reason="EPOCH_STALE",
                    names=["s"],
                )
        self.assertEqual(self.read(ref), b"abc")
        self.assertEqual(self.usage(), 7)

    def test_a_stale_writer_makes_no_store(self):
        for method, message in [("Append", {"payload": HELLO}), ("Seal", {})]:
            self.refused(
                "FAILED_PRECONDITION",
                method,
                {"store": "ghost", "epoch": 1, **message},
                reason="EPOCH_STALE",
                names=["ghost"],
            )
        self.assertEqual(self.call("ListStores"), {})
        self.assertFalse((self.server.data_dir / "ghost").exists())

    def test_a_claim_on_a_condition_takes_no_other_epoch(self):
        for if_epoch, epoch in (("0", 1), ("1", 2)):
            for wrong in (7, 18446744073709551615):
                request = {"store": "s", "owner": "x", "if_epoch": str(wrong)}
                self.refused("FAILED_PRECONDITION", "Claim", request, names=["s"])
            self.assertEqual(self.claim(owner="me", if_epoch=if_epoch), epoch)
            self.assertEqual(self.writer(), (epoch, "me"))
        self.refused("FAILED_PRECONDITION", "Claim", {"store": "s", "if_epoch": "0"})

    def test_an_owner_above_255_bytes_is_invalid(self):
        for owner in ("x" * 256, "\u00e4" * 128):
            self.refused("INVALID_ARGUMENT", "Claim", {"store": "s", "owner": owner}, names=["s"])
        self.assertEqual(self.call("ListStores"), {})
        self.assertEqual(self.claim(owner="\u00e4" * 127), 1)

    def test_no_store_is_deleted_by_an_empty_name(self):
        ref = self.append(b"abc", store="")
        self.refused("INVALID_ARGUMENT", "DeleteStore", {})
        self.refused("INVALID_ARGUMENT", "DeleteStore", {"store": ""})
        self.assertEqual(self.read(ref, store=""), b"abc")
        self.assertEqual(self.call("DeleteStore", {"store": "default"}), {})

    def test_a_second_compaction_at_a_time_is_aborted(self):
        ref = self.append(b"abc")
        other = self.append(b"abc", store="t")
        seal = self.seal()
        request = {"store": "s", "seal": seal, "live": [ref]}
        second = {**request, "dry_run": True, "commit": True}
        # grpcurl does not end before its input does; a caller that can be seen to end is needed.
        pb = stubs()[0]
        stub = self.server.stub()
        silent = threading.Event()
        self.addCleanup(silent.set)

        def takes_its_time():
            yield json_format.ParseDict(request, pb.CompactSealedRequest())
            silent.wait(2 * SOON)

        first = stub.CompactSealed(takes_its_time())

        def is_aborted():
            nonlocal first
            # It may itself have come while a look at it was running.
            if not first.is_active():
                first = stub.CompactSealed(takes_its_time())
            return look()

        def look():
            try:
                self.stream("CompactSealed", second)
            except Refused as refusal:
                return refusal if refusal.code == STATUS["ABORTED"] else None
            return None

        refusal = poll("the first compaction runs", is_aborted)
        self.assertEqual(refusal.info["reason"], "COMPACTION_RUNNING")
        # It is in nobody else's way.
        self.assertEqual(len(self.compact(self.seal("t"), [other], store="t")[0]), 1)
        self.assertEqual(self.read(self.append(b"def")), b"def")

        # A caller that gives up before the commit leaves the store as it was, and free.
        first.cancel()
        self.assertEqual(self.read(ref), b"abc")
        poll("the cancelled compaction has ended", lambda: not look())
        self.assertEqual(len(self.compact(seal, [ref])[0]), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
