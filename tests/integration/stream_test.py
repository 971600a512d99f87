#!/usr/bin/env python3
"""AppendStream and ReadStream of a real server: thousands of batches, readers that do not read and
what the server keeps for them, and streams across a kill, a stop, a claim and a deletion."""

import concurrent.futures
import os
import queue
import random
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import grpc  # noqa: E402

from payloadstored import MIB, SOON, ServerTest, poll, stubs  # noqa: E402
import unittest  # noqa: E402

CODE = {code.name: code.value[0] for code in grpc.StatusCode}
MESSAGE_LIMIT = MIB

# A server keeps a few MiB; a sanitizer 256 MiB of what was freed, besides.
KEPT_AT_MOST = 300 * MIB


class Stream:
    """A stream whose requests are sent as they are put."""

    def __init__(self, method):
        self._requests = queue.Queue()
        self.call = method(iter(self._requests.get, None), timeout=4 * SOON)

    def put(self, request):
        self._requests.put(request)

    def half_close(self):
        self._requests.put(None)

    def get(self):
        return next(self.call)

    def rest(self):
        return list(self.call)

    def code(self):
        return self.call.code()


def payload_of(batch, number):
    """Of 0 to 700 bytes, different for each."""
    seed = f"{batch}:{number};".encode()
    return (seed * 80)[: (batch * 31 + number * 57) % 700]


class StreamTest(ServerTest):
    maxDiff = 2000

    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]

    def start(self, *flags):
        self.server = self.serve("--segment-max-mb", "4", "--max-payload-mb", "8", *flags)
        self.stub = self.server.stub()
        return self.server

    def batch(self, payloads, **settings):
        settings.setdefault("durability", self.pb.DURABILITY_BUFFERED)
        return self.pb.AppendStreamRequest(payloads=payloads, **settings)

    def append(self, payloads, store="s", **settings):
        (answer,) = self.stub.AppendStream(
            iter([self.batch(payloads, store=store, **settings)]), timeout=SOON
        )
        self.assertFalse(answer.HasField("failure"), answer)
        return list(answer.refs)

    def read_results(self, refs, store="s"):
        results = []
        request = self.pb.ReadStreamRequest(store=store, refs=refs)
        for answer in self.stub.ReadStream(iter([request]), timeout=SOON):
            self.assertTrue(answer.ByteSize() <= MESSAGE_LIMIT or len(answer.results) == 1)
            results += answer.results
        return results

    def read(self, refs, store="s"):
        results = self.read_results(refs, store)
        for result in results:
            self.assertEqual(result.WhichOneof("outcome"), "payload", result)
        return [result.payload for result in results]

    def assert_ended(self, stream, code):
        with self.assertRaises(grpc.RpcError) as caught:
            stream.rest()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())

    def resident(self):
        with open(f"/proc/{self.server.process.pid}/status") as file:
            (line,) = [line for line in file if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    # -- much of it -------------------------------------------------------------------------------

    def test_thousands_of_batches_side_by_side_come_back_in_order(self):
        self.start()
        streams, batches = 4, 1000
        settings = {"store": "s", "durability": self.pb.DURABILITY_BUFFERED}

        def run(number):
            stub = self.server.stub()
            first = number * batches
            sent = [[payload_of(b, i) for i in range(b % 40)] for b in range(first, first + batches)]
            requests = (
                self.pb.AppendStreamRequest(payloads=payloads, **(settings if i == 0 else {}))
                for i, payloads in enumerate(sent)
            )
            answers = list(stub.AppendStream(requests, timeout=4 * SOON))
            self.assertEqual([len(a.refs) for a in answers], [len(p) for p in sent])
            asked = (self.pb.ReadStreamRequest(store="s", refs=answer.refs) for answer in answers)
            got = [
                result.payload
                for answer in stub.ReadStream(asked, timeout=4 * SOON)
                for result in answer.results
            ]
            self.assertEqual(got, [payload for payloads in sent for payload in payloads])
            return [ref for answer in answers for ref in answer.refs]

        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
            refs = [ref for part in pool.map(run, range(streams)) for ref in part]
        self.assertEqual(len({(ref.file_id, ref.offset) for ref in refs}), len(refs))
        # Nothing lies between the records, and no segment has more than one record too much.
        records = sum(4 + ref.length for ref in refs)
        sizes = [path.stat().st_size for path in self.server.payload_files("s")]
        self.assertEqual(sum(sizes), records)
        self.assertLessEqual(max(sizes), 4 * MIB + 704)

    def test_good_and_bad_refs_come_back_in_their_places(self):
        self.start()
        refs = self.append([payload_of(1, i) for i in range(2000)])
        shuffled = random.Random(5)
        asked, expected = [], []
        for i, ref in enumerate(refs):
            kind = shuffled.choice(["good", "good", "good", "none", "never", "damaged"])
            copy = self.pb.PayloadRef()
            copy.CopyFrom(ref)
            if kind == "none":
                copy.offset += 1
            elif kind == "never":
                copy.length = 0xFFFFFFFF
            elif kind == "damaged":
                copy.crc32c ^= 1 << 7
            asked.append(copy)
            expected.append((kind, payload_of(1, i), copy.crc32c))
        codes = {"none": "NOT_FOUND", "never": "INVALID_ARGUMENT", "damaged": "DATA_LOSS"}
        results = self.read_results(asked)
        self.assertEqual(len(results), len(asked))
        for result, (kind, payload, crc) in zip(results, expected, strict=True):
            if kind == "good" or crc == 0:  # 0: not given
                self.assertEqual(result.payload, payload)
            else:
                self.assertEqual(result.failure.code, CODE[codes[kind]], result)

    def test_payloads_larger_than_a_message_come_alone(self):
        self.start()
        sizes = [0, 100, 3 * MIB, 7, 8 * MIB, 8 * MIB, 1, MIB - 1, MIB]
        refs = [self.append([bytes([i]) * size])[0] for i, size in enumerate(sizes)]
        got = self.read(refs)
        self.assertEqual([len(payload) for payload in got], sizes)
        for i, payload in enumerate(got):
            self.assertEqual(payload, bytes([i]) * sizes[i])

    # -- back-pressure ----------------------------------------------------------------------------

    def test_readers_that_do_not_read_cost_no_memory_and_nobody_else(self):
        self.start()
        # Ten of them ask for 640 MiB in all; the server keeps a few MiB for each.
        payload = os.urandom(64 << 10)
        refs = [ref for _ in range(20) for ref in self.append([payload] * 50)]
        before = self.resident()
        asked = self.pb.ReadStreamRequest(store="s", refs=refs)
        slow = []
        for _ in range(10):
            stub = self.server.stub()
            stream = Stream(stub.ReadStream)
            stream.put(asked)
            stream.get()
            slow.append(stream)
        for _ in range(3):
            self.assertEqual(self.read(refs), [payload] * len(refs))
        self.assertLess(self.resident() - before, KEPT_AT_MOST)
        for stream in slow[:2]:  # and go on where they were
            stream.half_close()
            results = [r for answer in stream.rest() for r in answer.results]
            self.assertTrue(all(result.payload == payload for result in results))
            self.assertEqual(stream.code(), grpc.StatusCode.OK)
        for stream in slow[2:]:
            stream.call.cancel()

    def test_a_writer_that_reads_no_answers_is_stopped(self):
        self.start()
        self.append([b"first"])
        before = self.resident()
        sent = [0]
        done = threading.Event()
        # The answers alone would be hundreds of MiB.
        request = self.batch([b""] * 32000, store="s")

        def requests():
            while not done.is_set() and sent[0] < 1000:
                sent[0] += 1
                yield request

        call = self.stub.AppendStream(requests(), timeout=4 * SOON)

        looks = []

        def has_stopped():
            """Nothing came for many looks, while another stream was served between them."""
            records = self.stub.Stat(self.pb.StatRequest(store="s"), timeout=SOON).records
            looks.append((records, sent[0]))
            self.append([b"x"] * 500, store="other")
            return records > 1 and len(looks) > 30 and len(set(looks[-30:])) == 1

        poll("the server reads no further", has_stopped)
        self.assertLess(sent[0], 1000)
        self.assertLess(self.resident() - before, KEPT_AT_MOST)
        done.set()
        answers = list(call)
        self.assertEqual(len(answers), sent[0])
        self.assertTrue(all(len(answer.refs) == 32000 for answer in answers))

    # -- ends -------------------------------------------------------------------------------------

    def test_an_answered_batch_outlives_kill_9_whole(self):
        self.start()
        for round_number in range(3):
            answered = []
            stream = Stream(self.stub.AppendStream)
            for b in range(400):
                settings = {"store": "s"} if b == 0 else {}
                durability = self.pb.DURABILITY_BUFFERED if b == 0 else 0
                payloads = [payload_of(b, i) for i in range(150)]
                stream.put(self.batch(payloads, durability=durability, **settings))
            for _ in range(5 + 20 * round_number):
                answered.append(list(stream.get().refs))
            self.server.process.kill()
            try:
                for answer in stream.call:  # what was on its way
                    answered.append(list(answer.refs))
            except grpc.RpcError:
                pass
            stream.half_close()
            self.server.kill()
            self.server.start()
            self.stub = self.server.stub()
            for b, refs in enumerate(answered):
                self.assertEqual(self.read(refs), [payload_of(b, i) for i in range(150)])
        # What there is of batches without an answer is whole records, or found and left alone.
        self.assertEqual(self.read(self.append([b"still"])), [b"still"])

    def test_a_cancelled_stream_harms_nothing(self):
        self.start()
        refs = self.append([payload_of(3, i) for i in range(300)])
        for i in range(60):
            writer, reader = Stream(self.stub.AppendStream), Stream(self.stub.ReadStream)
            for _ in range(20):
                writer.put(self.batch([b"x" * 3000] * 20, store="s"))
                reader.put(self.pb.ReadStreamRequest(store="s", refs=refs))
            if i % 3 == 0:
                self.assertEqual(len(writer.get().refs), 20)
            if i % 3 == 1:
                reader.get()
            writer.call.cancel()
            reader.call.cancel()
            writer.half_close()
            reader.half_close()
        self.assertEqual(self.read(refs), [payload_of(3, i) for i in range(300)])

    def test_a_deadline_ends_a_stream(self):
        self.start()
        self.append([b"abc"])
        for method in (self.stub.AppendStream, self.stub.ReadStream):
            never = queue.Queue()
            call = method(iter(never.get, None), timeout=0.2)
            with self.assertRaises(grpc.RpcError) as caught:
                list(call)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            never.put(None)

    def test_a_stop_does_not_wait_for_silent_streams(self):
        self.start("--drain-seconds", "3000")
        writer, reader = Stream(self.stub.AppendStream), Stream(self.stub.ReadStream)
        writer.put(self.batch([b"abc"], store="s"))
        refs = writer.get().refs
        reader.put(self.pb.ReadStreamRequest(store="s", refs=refs))
        self.assertEqual(reader.get().results[0].payload, b"abc")
        self.server.process.send_signal(signal.SIGTERM)
        self.assert_ended(writer, grpc.StatusCode.UNAVAILABLE)
        self.assert_ended(reader, grpc.StatusCode.UNAVAILABLE)
        writer.half_close()
        reader.half_close()
        self.assertEqual(self.server.wait(), 0)

    def test_a_stop_loses_nothing_that_was_answered(self):
        self.start()
        stream = Stream(self.stub.AppendStream)
        for b in range(300):
            stream.put(
                self.pb.AppendStreamRequest(
                    store="s",
                    payloads=[payload_of(b, i) for i in range(50)],
                    durability=self.pb.DURABILITY_SYNCED,
                )
            )
        answered = [list(stream.get().refs)]
        self.server.process.send_signal(signal.SIGTERM)
        try:
            for answer in stream.call:
                answered.append(list(answer.refs))
            self.assertEqual(len(answered), 300)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        stream.half_close()
        self.assertEqual(self.server.wait(), 0)
        self.server.start()
        self.stub = self.server.stub()
        for b, refs in enumerate(answered):
            self.assertEqual(self.read(refs), [payload_of(b, i) for i in range(50)])

    def test_a_claim_fences_the_batches_of_open_streams(self):
        self.start()
        stream = Stream(self.stub.AppendStream)
        stream.put(self.batch([b"abc"], store="s"))
        stream.get()
        epoch = self.stub.Claim(self.pb.ClaimRequest(store="s"), timeout=SOON).epoch
        before = self.stub.Stat(self.pb.StatRequest(store="s"), timeout=SOON).records
        for _ in range(3):
            stream.put(self.batch([b"late"]))
            failure = stream.get().failure
            self.assertEqual(failure.code, CODE["FAILED_PRECONDITION"])
            self.assertEqual(failure.reason, self.pb.REASON_EPOCH_STALE)
        after = self.stub.Stat(self.pb.StatRequest(store="s"), timeout=SOON).records
        self.assertEqual(after, before)
        stream.half_close()
        self.assertEqual(stream.rest(), [])
        self.append([b"new"], epoch=epoch)

    def test_streams_end_with_their_store(self):
        self.start()
        writer, reader = Stream(self.stub.AppendStream), Stream(self.stub.ReadStream)
        writer.put(self.batch([b"abc"], store="s"))
        reader.put(self.pb.ReadStreamRequest(store="s", refs=writer.get().refs))
        reader.get()
        self.stub.DeleteStore(self.pb.DeleteStoreRequest(store="s"), timeout=SOON)
        self.assert_ended(writer, grpc.StatusCode.NOT_FOUND)
        self.assert_ended(reader, grpc.StatusCode.NOT_FOUND)
        writer.half_close()
        reader.half_close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
