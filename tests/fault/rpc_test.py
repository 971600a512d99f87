#!/usr/bin/env python3
"""Calls that come twice, late, half, or from the wrong broker, over gRPC, against a real server.

Readers run all the time and never see NOT_FOUND for a live ref. What is answered has happened, what
is not may have: either way the broker's old refs read, and asking again gives the one answer.

    FAULT_SEED     the first seed; printed, and random without it
    FAULT_MINUTES  goes on with fresh seeds for so long; once without it
"""

import concurrent.futures
import os
import random
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import grpc  # noqa: E402

from brokers import LIVE_A_MESSAGE, Broker, Link, Traffic, key  # noqa: E402
from payloadstored import SOON, ServerTest, poll, report, stubs  # noqa: E402

OK = grpc.StatusCode.OK
ABORTED = grpc.StatusCode.ABORTED
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND

MANY = 9000  # more than a message of the map takes
FEW = 1200
SOME = 150
CANCEL_ROUNDS = 6
DEADLINE_ROUNDS = 4
KILL_ROUNDS = 12
CLAIM_ROUNDS = 6
COLLISION_ROUNDS = 4
CALLERS = 4

seed = 0  # of this pass
counts = {}  # what was met, for the report


def met(what):
    counts[what] = counts.get(what, 0) + 1


class RpcTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]
        self.rng = random.Random(f"{seed} {self.id()}")
        self.pool = concurrent.futures.ThreadPoolExecutor(2 * CALLERS)
        self.addCleanup(self.pool.shutdown)
        # Small segments: a compaction of many makes, renames and deletes several files.
        self.server = self.serve("--segment-max-mb", "1")
        self.link = Link(self.server)

    def broker(self, store="queue", epoch=0):
        return Broker(self.link, store, self.rng.random(), epoch)

    def files(self, store="queue"):
        """What lies in a store's directory, by name, with sizes; not those of indexes, which are
        written behind."""
        found = {}
        for path in (self.server.data_dir / store).iterdir():
            try:
                found[path.name] = None if path.suffix == ".idx" else path.stat().st_size
            except FileNotFoundError:
                pass  # gone since
        return found

    def unfinished(self):
        """What only a running compaction may have."""
        return [
            name
            for name in self.files()
            if name.startswith("compact_") or name == "relocations.tmp"
        ]

    def segments(self, store="queue"):
        return {name: size for name, size in self.files(store).items() if "payload_" in name}

    def assert_answer(self, outcome, expected, what):
        """It went well, and as an earlier call for the same compaction was told."""
        self.assertEqual(outcome.code(), OK, f"{what}: {outcome.reason}")
        if expected:
            self.assertEqual(outcome.summary, expected.summary, what)
            self.assertEqual(outcome.relocations, expected.relocations, what)

    def settle(self, broker, seal, live, dead, partial, what):
        """After a call that came to no good end: nothing is lost, and the next one succeeds."""
        broker.check_some(live, f"{what}, the old names")
        poll(f"{what}: what was not finished goes", lambda: not self.unfinished())
        outcome = broker.compact_until_done(seal, live)
        self.assert_answer(outcome, None, what)
        for old, new in partial.relocations.items():
            self.assertEqual(outcome.relocations.get(old), new, f"{what}: another map")
        broker.check_some(live, f"{what}, the old names after the commit")
        broker.check_some(broker.moved(live, outcome), f"{what}, the new names")
        broker.check_gone(dead, what)
        self.assert_answer(broker.compact(seal, live), outcome, f"{what}, once more")
        # Every other time the map is lost on its way into the broker's own files: the old names
        # stay live, and the next compaction forwards them.
        if self.rng.random() < 0.5:
            broker.adopt(live, outcome)
        else:
            met("maps never stored")

    # -- twice ---------------------------------------------------------------------------------

    def is_running(self, broker, seal):
        """Whether a compaction keeps others out. Begins one, and leaves it without commit."""
        outcome = broker.compact(seal, {}, commit=False)
        self.assertIn(outcome.reason, ("COMPACTION_RUNNING", "NOT_COMMITTED"))
        return outcome.reason == "COMPACTION_RUNNING"

    def test_a_second_one_is_aborted_at_once_and_touches_nothing(self):
        broker = self.broker()
        broker.append(FEW)
        dead = broker.consume(0.5)
        with Traffic(broker):
            seal, live = broker.seal_and_list()
            may_end = threading.Event()

            def gather(n, of):
                if n == of - 1:
                    self.assertTrue(may_end.wait(SOON))

            # Held in the gathering; it has begun when nobody else can. (It may come upon one of
            # those who look, and try again.)
            first = self.pool.submit(broker.compact_until_done, seal, live, before=gather)
            try:
                poll("the first one runs", lambda: self.is_running(broker, seal))
                before = self.segments()
                for _ in range(3):
                    second = broker.compact(seal, live)
                    self.assertEqual(
                        (second.code(), second.reason), (ABORTED, "COMPACTION_RUNNING")
                    )
                    self.assertFalse(second.relocations)
                self.assertLessEqual(set(before), set(self.segments()))
            finally:
                may_end.set()
            outcome = first.result(SOON)
            self.assert_answer(outcome, None, "the first one")
            self.assert_answer(broker.compact(seal, live), outcome, "after the commit")
            self.assert_answer(broker.compact(seal, {}, map_only=True, commit=False), outcome, "map")
            broker.adopt(live, outcome)
            broker.check(broker.live_now(), "the map of the first one")
            broker.check_gone(dead, "the dead")

    def test_the_same_one_many_times_at_once(self):
        broker = self.broker()
        broker.append(FEW)
        with Traffic(broker):
            for turn in range(COLLISION_ROUNDS):
                broker.append(SOME)
                dead = broker.consume(0.3)
                seal, live = broker.seal_and_list()
                start = threading.Barrier(CALLERS)

                def call():
                    start.wait(SOON)
                    return broker.compact(seal, live)

                calls = [self.pool.submit(call) for _ in range(CALLERS)]
                outcomes = [call.result(SOON) for call in calls]
                done = [outcome for outcome in outcomes if outcome.code() == OK]
                self.assertTrue(done, f"turn {turn}: none went through")
                for outcome in outcomes:
                    if outcome.code() == OK:
                        self.assert_answer(outcome, done[0], f"turn {turn}")
                    else:
                        self.assertEqual(
                            (outcome.code(), outcome.reason), (ABORTED, "COMPACTION_RUNNING")
                        )
                        met("ABORTED, of those at once")
                self.assert_answer(broker.compact(seal, live), done[0], f"turn {turn}, once more")
                broker.adopt(live, done[0])
                broker.check(broker.live_now(), f"turn {turn}")
                broker.check_gone(dead, f"turn {turn}")

    def test_seals_at_once_give_one_handle(self):
        broker = self.broker()
        broker.append(10)
        for _ in range(10):
            broker.append(1)
            start = threading.Barrier(CALLERS)

            def call():
                start.wait(SOON)
                return broker.seal()

            calls = [self.pool.submit(call) for _ in range(CALLERS)]
            seals = {call.result(SOON).sealed_id for call in calls}
            self.assertEqual(len(seals), 1, "nothing was appended between them")

    # -- half ----------------------------------------------------------------------------------

    def test_a_stream_that_ends_without_commit_changes_nothing(self):
        broker = self.broker()
        broker.append(FEW)
        broker.consume(0.5)
        with Traffic(broker, appender=False):
            seal, live = broker.seal_and_list()
            before = self.files()
            for some in ({}, dict(list(live.items())[: LIVE_A_MESSAGE // 2]), live):
                outcome = broker.compact(seal, some, commit=False)
                self.assertEqual(
                    (outcome.code(), outcome.reason), (INVALID_ARGUMENT, "NOT_COMMITTED")
                )
                self.assertIsNone(outcome.summary)
                self.assertEqual(self.files(), before)
            broker.check(live, "half of a call")
            self.assert_answer(broker.compact(seal, live), None, "the handle is still good")
            broker.check(live, "after it")

    def cancel_at(self, moment, broker, seal, live):
        """One compaction, cancelled where the moment says, or a little too late for it."""
        call = concurrent.futures.Future()  # its requests may be taken before it is returned
        cut = self.rng.randrange(max(1, len(live) // LIVE_A_MESSAGE))

        def gathering(n, _):
            if n == cut:
                call.result().cancel()

        def streaming(outcome):
            if outcome.relocations:
                call.result().cancel()

        def rewriting(n, of):
            if n == of - 1:
                # A moment like any other while the server is at work; nobody waits for it.
                timer = threading.Timer(self.rng.uniform(0, self.usual_seconds), call.result().cancel)
                timer.daemon = True
                timer.start()

        hooks = {
            "gathering": {"before": gathering},
            "rewriting": {"before": rewriting},
            "streaming": {"on_answer": streaming},
        }[moment]
        return broker.compact(seal, live, on_call=call.set_result, **hooks)

    def test_cancelled_half_way_and_retried(self):
        broker = self.broker()
        broker.append(MANY)
        self.time_one(broker)
        with Traffic(broker):
            for turn in range(CANCEL_ROUNDS):
                broker.append(SOME)
                dead = broker.consume(0.05)
                seal, live = broker.seal_and_list()
                moment = ("gathering", "rewriting", "streaming")[turn % 3]
                outcome = self.cancel_at(moment, broker, seal, live)
                self.assertIn(outcome.code(), (OK, CANCELLED), outcome.reason)
                met(f"cancelled while {moment}: {outcome.code().name}")
                self.settle(broker, seal, live, dead, outcome, f"turn {turn}, {moment}")
            broker.check(broker.live_now(), "at the end")

    def time_one(self, broker):
        """How long a compaction of all there is takes here, from which delays are drawn."""
        seal, live = broker.seal_and_list()
        start = time.monotonic()
        self.assert_answer(broker.compact(seal, live), None, "the one that is timed")
        self.usual_seconds = time.monotonic() - start

    def test_a_deadline_in_the_middle(self):
        broker = self.broker()
        broker.append(FEW)
        self.time_one(broker)
        with Traffic(broker):
            for turn in range(DEADLINE_ROUNDS):
                broker.append(SOME)
                dead = broker.consume(0.1)
                seal, live = broker.seal_and_list()
                seconds = self.rng.uniform(0.01, self.usual_seconds)
                outcome = broker.compact(seal, live, seconds=seconds)
                self.assertIn(outcome.code(), (OK, DEADLINE_EXCEEDED), outcome.reason)
                met(f"deadline: {outcome.code().name}")
                self.settle(broker, seal, live, dead, outcome, f"turn {turn}")

    # -- killed --------------------------------------------------------------------------------

    def table(self):
        """What tells one relocation table from the next."""
        try:
            told = (self.server.data_dir / "queue" / "relocations.tab").stat()
        except FileNotFoundError:
            return None
        return told.st_ino, told.st_mtime_ns

    def kill_moment(self, moment, seal, had_table):
        """True once the directory shows that a compaction has come so far."""
        directory = self.server.data_dir / "queue"
        return {
            "outputs": (directory / f"compact_{seal.compaction_id:04}.tmp").exists,
            "table": (directory / "relocations.tmp").exists,
            "commit": lambda: self.table() != had_table,
            "renames": (directory / f"payload_{seal.compaction_id:04}.dat").exists,
        }[moment]

    def what_the_kill_left(self, sources, had_table):
        files = set(self.files())
        outputs = any(name.startswith("compact_") for name in files)
        if self.table() == had_table:
            table = "relocations.tmp" in files
            return "before the commit, " + ("table" if table else "outputs" if outputs else "nothing")
        if outputs:
            return "committed, outputs not all renamed"
        return "committed, sources left" if sources & files else "committed, all done"

    def kill_somewhere(self, broker, seal, live, moment, had_table):
        """A compaction, and the server killed in the middle of it, or a little too late."""
        answered = threading.Event()
        started = threading.Event()

        def before(n, of):
            if n == of - 1 or (moment == "gathering" and self.rng.random() < 0.5):
                started.set()

        def on_answer(outcome):
            if outcome.relocations:
                answered.set()

        call = self.pool.submit(broker.compact, seal, live, before=before, on_answer=on_answer)
        self.assertTrue(started.wait(SOON))
        if moment == "any":
            concurrent.futures.wait([call], self.rng.uniform(0, self.usual_seconds))
        elif moment == "streaming":
            while not call.done() and not answered.is_set():
                answered.wait(0.001)
        elif moment != "gathering":
            come = self.kill_moment(moment, seal, had_table)
            while not call.done() and not come():
                pass  # looks again at once: some of these moments are short
        self.link.kill()
        return call.result(SOON)

    def test_retried_after_kill_9(self):
        broker = self.broker(epoch=1)
        claim = self.pb.ClaimRequest(store="queue", owner="the broker")
        self.assertEqual(broker.stub.Claim(claim, timeout=SOON).epoch, 1)
        broker.append(FEW)
        self.time_one(broker)
        moments = ("any", "outputs", "table", "commit", "renames", "streaming", "any", "gathering")
        with Traffic(broker):
            for turn in range(KILL_ROUNDS):
                broker.append(SOME)
                dead = broker.consume(0.2)
                seal, live = broker.seal_and_list()
                sources = {name for name in self.segments() if name <= self.last_name(seal)}
                moment = moments[turn % len(moments)]
                had_table = self.table()
                outcome = self.kill_somewhere(broker, seal, live, moment, had_table)
                met(f"killed {self.what_the_kill_left(sources, had_table)}")
                self.link.restart()
                broker.check(broker.live_now(), f"turn {turn}, {moment}, all that was answered")
                self.settle(broker, seal, live, dead, outcome, f"turn {turn}, {moment}")
        told = broker.stub.Stat(self.pb.StatRequest(store="queue"), timeout=SOON)
        self.assertEqual((told.epoch, told.owner), (1, "the broker"))

    @staticmethod
    def last_name(seal):
        return f"payload_{seal.sealed_id:04}.dat"

    # -- two brokers ---------------------------------------------------------------------------

    def claim(self, owner, **more):
        request = self.pb.ClaimRequest(store="queue", owner=owner, **more)
        return self.link.stub.Claim(request, timeout=SOON).epoch

    def refused_as_stale(self, zombie, seal, live):
        stub = zombie.stub
        stale = {"reason": "EPOCH_STALE"}
        epoch = zombie.epoch
        append = self.pb.AppendRequest(store="queue", epoch=epoch, payload=b"zombie")
        self.assert_refused(FAILED_PRECONDITION, stub.Append, append, **stale)
        seal_request = self.pb.SealRequest(store="queue", epoch=epoch)
        self.assert_refused(FAILED_PRECONDITION, stub.Seal, seal_request, **stale)
        compaction = zombie.requests(seal, live)
        self.assert_refused(FAILED_PRECONDITION, stub.CompactSealed, compaction, **stale)
        delete = self.pb.DeleteStoreRequest(store="queue", epoch=epoch)
        self.assert_refused(FAILED_PRECONDITION, stub.DeleteStore, delete, **stale)

    def test_a_zombie_writes_nothing(self):
        """The same queue, a broker declared dead and its successor: Claim comes between."""
        old = self.broker(epoch=self.claim("broker 1"))
        old.append(FEW)
        self.usual_seconds = 0
        for turn in range(CLAIM_ROUNDS):
            old.append(SOME)
            dead = old.consume(0.1)
            seal, live = old.seal_and_list()
            if turn == 0:
                self.time_one(old)
                seal, live = old.seal_and_list()
            with Traffic(old, appender=False):
                zombie = self.pool.submit(old.compact, seal, live)
                concurrent.futures.wait([zombie], self.rng.uniform(0, 2 * self.usual_seconds))
                new = self.broker(epoch=self.claim(f"broker {turn + 2}", if_epoch={"value": old.epoch}))
                # Nothing older takes effect from here on: not even its clearing up is under way.
                answered = self.segments()
                outcome = zombie.result(SOON)
                met(f"claimed in a compaction: {outcome.code().name}")
                if outcome.code() != OK:
                    self.assertEqual(
                        (outcome.code(), outcome.reason), (FAILED_PRECONDITION, "EPOCH_STALE")
                    )
                self.refused_as_stale(old, seal, live)
                self.assertEqual(self.segments(), answered, f"turn {turn}: the zombie did something")
                new.live, new.next = old.live_now(), old.next
                new.check(live, f"turn {turn}, the old names")
            with Traffic(new):
                seal, live = new.seal_and_list()
                outcome = new.compact(seal, live)
                self.assert_answer(outcome, None, f"turn {turn}, the new one's")
                new.adopt(live, outcome)
                new.check(new.live_now(), f"turn {turn}")
                new.check_gone(dead, f"turn {turn}")
            old = new
        # Kept over the death of the server too.
        self.link.kill()
        self.link.restart()
        old.epoch -= 1
        self.refused_as_stale(old, seal, live)
        old.epoch += 1
        old.append(1)
        old.check(old.live_now(), "after a kill")

    def test_of_many_claims_on_one_condition_one_succeeds(self):
        for epoch in range(5):
            start = threading.Barrier(CALLERS)

            def call():
                start.wait(SOON)
                try:
                    return self.claim("somebody", if_epoch={"value": epoch})
                except grpc.RpcError as error:
                    return error.code()

            calls = [self.pool.submit(call) for _ in range(CALLERS)]
            results = [call.result(SOON) for call in calls]
            self.assertEqual(results.count(epoch + 1), 1, results)
            self.assertEqual(results.count(FAILED_PRECONDITION), CALLERS - 1, results)

    # -- late ----------------------------------------------------------------------------------

    def test_a_delete_that_comes_late_meets_another_incarnation(self):
        first = self.broker()
        first.append(100)
        seal, live = first.seal_and_list()
        incarnation = self.stat().incarnation
        delete = self.pb.DeleteStoreRequest(store="queue", incarnation=incarnation)
        self.link.stub.DeleteStore(delete, timeout=SOON)
        # Its duplicate, before there is another, and after.
        self.assert_refused(NOT_FOUND, self.link.stub.DeleteStore, delete)
        second = self.broker()
        second.next = first.next
        second.append(100)
        for kill in (False, True):
            if kill:
                self.link.kill()
                self.link.restart()
            with Traffic(second, appender=False):
                self.assertNotEqual(self.stat().incarnation, incarnation)
                self.assert_refused(FAILED_PRECONDITION, self.link.stub.DeleteStore, delete)
                first.check_gone(live, "the deleted store's refs")
                late = first.compact(seal, {})
                self.assertEqual(
                    (late.code(), late.reason), (FAILED_PRECONDITION, "HANDLE_UNKNOWN")
                )
                second.check(second.live_now(), "the second of the name")
        self.assertFalse({key(ref) for ref in live.values()} & set(map(key, second.live.values())))

    def stat(self):
        return self.link.stub.Stat(self.pb.StatRequest(store="queue"), timeout=SOON)

    def test_a_handle_that_comes_late_is_superseded(self):
        broker = self.broker()
        broker.append(1000)
        with Traffic(broker):
            early, early_live = broker.seal_and_list()
            broker.append(1000)
            later, live = broker.seal_and_list()
            outcome = broker.compact(later, live)
            self.assert_answer(outcome, None, "the later one")
            for kill in (False, True):
                if kill:
                    self.link.kill()
                    self.link.restart()
                late = broker.compact(early, early_live)
                self.assertEqual(
                    (late.code(), late.reason), (FAILED_PRECONDITION, "HANDLE_SUPERSEDED")
                )
                # The commit's own duplicate, late, is answered; it deletes nothing.
                self.assert_answer(broker.compact(later, live), outcome, "a late duplicate")
                broker.check(live, "the old names")
            broker.adopt(live, outcome)
            broker.append(10)
            third, live = broker.seal_and_list()
            self.assert_answer(broker.compact(third, live), None, "the third one")
            late = broker.compact(later, live)
            self.assertEqual((late.code(), late.reason), (FAILED_PRECONDITION, "HANDLE_SUPERSEDED"))
            never = self.pb.SealHandle(sealed_id=9999, compaction_id=10000)
            forged = broker.compact(never, {})
            self.assertEqual((forged.code(), forged.reason), (FAILED_PRECONDITION, "HANDLE_UNKNOWN"))
            broker.check(live, "all the while")


def main():
    global seed
    seed = int(os.environ.get("FAULT_SEED") or random.randrange(1 << 31))
    end = time.monotonic() + 60 * float(os.environ.get("FAULT_MINUTES") or 0)
    passes = 0
    while True:
        print(f"FAULT_SEED={seed}", flush=True)
        program = unittest.main(verbosity=2, exit=False)
        passes += 1
        lines = [f"{passes} passes", *(f"{n:6} {what}" for what, n in sorted(counts.items()))]
        if not program.result.wasSuccessful():
            report(*lines)
            sys.exit(f"failed with FAULT_SEED={seed}")
        if time.monotonic() >= end:
            break
        seed += 1
    report(*lines)


if __name__ == "__main__":
    main()
