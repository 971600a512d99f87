#!/usr/bin/env python3
"""Appends that flow while the store is sealed and compacted, over and over.

A caller may hear of an append only after it has listed its live references: the record lies in a
sealed segment and is not listed. carry_recent_ms, as old as the oldest append that was unanswered
then, must keep it. Every answered append is read back after each round and at the end, by the name
it was answered with or the one a map gave it since.
"""

import math
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from payloadstored import SOON, ServerTest, report, stubs  # noqa: E402
import unittest  # noqa: E402

CALLERS = 6
ROUNDS = 30
APPENDS_A_ROUND = 60  # at least, by all callers together
LARGEST = 2000
SEGMENT_MB = 1


class Broker:
    """What a broker keeps: where each payload lies that it was answered, and what is unanswered."""

    def __init__(self):
        self.lock = threading.Lock()
        self.refs = {}  # by payload number
        self.sent = {}  # when, by the number of an unanswered append
        self.appended = 0

    def begin(self):
        with self.lock:
            number = self.appended
            self.appended += 1
            self.sent[number] = time.monotonic()
            return number

    def answered(self, number, ref):
        with self.lock:
            self.refs[number] = ref
            del self.sent[number]

    def list_live(self):
        """The references by now, the unanswered numbers, and the age of the oldest in ms."""
        with self.lock:
            oldest = min(self.sent.values(), default=time.monotonic())
            age = math.ceil((time.monotonic() - oldest) * 1000)
            return dict(self.refs), set(self.sent), age

    def forget_half_of(self, numbers):
        with self.lock:
            for number in numbers:
                if random.random() < 0.5:
                    del self.refs[number]


def payload(number):
    return random.Random(number).randbytes(8 + number % LARGEST)


class CarryTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]
        self.server = self.serve("--segment-max-mb", str(SEGMENT_MB))
        self.broker = Broker()
        self.stop = threading.Event()
        self.failures = []
        self.bytes = 0

    def append_until_stopped(self):
        stub = self.server.stub()
        try:
            while not self.stop.is_set():
                number = self.broker.begin()
                request = self.pb.AppendRequest(payload=payload(number))
                request.durability = 1 + number % 2
                self.broker.answered(number, stub.Append(request, timeout=SOON).ref)
        except Exception as error:  # noqa: BLE001 (reported by the test's own thread)
            self.failures.append(error)

    def wait_for_appends(self, more):
        target = self.broker.appended + more
        deadline = time.monotonic() + SOON
        while self.broker.appended < target and not self.failures:
            self.assertLess(time.monotonic(), deadline, "appends do not get on")
            self.stop.wait(0.001)

    def compact(self, stub, seal, live, carry_recent_ms):
        request = self.pb.CompactSealedRequest(
            seal=seal, live=live.values(), carry_recent_ms=carry_recent_ms, commit=True
        )
        request.expected_live.value = len(live)
        new_refs = {}
        summary = None
        for answer in stub.CompactSealed(iter([request]), timeout=SOON):
            for move in answer.relocations:
                new_refs[move.old_ref.file_id, move.old_ref.offset] = move.new_ref
            if answer.HasField("summary"):
                summary = answer.summary
        with self.broker.lock:
            for number, ref in live.items():
                new = new_refs.pop((ref.file_id, ref.offset), None)
                if new is not None:
                    self.broker.refs[number] = new
        self.assertFalse(new_refs, "the map has what was not given")
        return summary

    def assert_all_read(self, stub, numbers):
        for number in numbers:
            request = self.pb.ReadRequest(ref=self.broker.refs[number])
            self.assertEqual(stub.Read(request, timeout=SOON).payload, payload(number))

    def one_round(self, stub):
        """How many answered appends were carried, having been unanswered as the list was made."""
        self.wait_for_appends(APPENDS_A_ROUND)
        seal = stub.Seal(self.pb.SealRequest(), timeout=SOON).seal
        live, unanswered, age = self.broker.list_live()
        within = int(os.environ.get("CARRY_RECENT_MS", max(age, 1)))
        summary = self.compact(stub, seal, live, within)
        self.assertLessEqual(summary.live_records, len(live))
        self.wait_for_appends(CALLERS)
        known = self.broker.list_live()[0]
        late = [n for n in unanswered if n in known and known[n].file_id <= seal.sealed_id]
        self.assert_all_read(stub, late)
        self.assert_all_read(stub, random.sample(sorted(live), min(len(live), 20)))
        self.broker.forget_half_of(live)
        return len(late)

    def test_no_answered_append_is_lost(self):
        threads = [threading.Thread(target=self.append_until_stopped) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        stub = self.server.stub()
        late = 0
        rounds = 0
        try:
            # At least one must have been late, or this has tested nothing.
            while rounds < ROUNDS or (late == 0 and rounds < 20 * ROUNDS):
                late += self.one_round(stub)
                rounds += 1
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(self.failures, [])
        self.assertGreater(late, 0, "no append was answered late")
        self.assert_all_read(stub, self.broker.refs)
        # Garbage has not been carried for ever.
        stat = stub.Stat(self.pb.StatRequest(), timeout=SOON)
        appended = sum(len(payload(n)) for n in range(self.broker.appended))
        self.assertLess(stat.disk_usage_bytes, appended / 2)
        report(f"{rounds} compactions under {self.broker.appended} appends, {late} answered late")


if __name__ == "__main__":
    unittest.main()
