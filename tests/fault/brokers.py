"""Brokers for the fault tests: each keeps its refs as a queue broker would, and knows every byte.

A broker appends payloads that can be made again from their numbers, keeps number -> ref, and calls
the server as often, as late and as much at once as it is told to. Traffic reads its live refs, and
appends, all the time: a live ref that is NOT_FOUND for a moment, or gives other bytes, is a failure.
"""

import hashlib
import random
import sys
import threading

import grpc

from payloadstored import SOON, error_info, stubs

NOT_FOUND = grpc.StatusCode.NOT_FOUND
DATA_LOSS = grpc.StatusCode.DATA_LOSS

LIVE_A_MESSAGE = 500
IN_FLIGHT = 250


def key(ref):
    return ref.file_id, ref.offset


def in_flight(method, requests, refusals=()):
    """The answers in order, many calls under way at a time; of those refused so, the status."""
    answers = []
    for at in range(0, len(requests), IN_FLIGHT):
        calls = [method.future(r, timeout=SOON) for r in requests[at : at + IN_FLIGHT]]
        for call in calls:
            try:
                answers.append(call.result())
            except grpc.RpcError as error:
                if error.code() not in refusals:
                    raise
                answers.append(error.code())
    return answers


class Link:
    """The way to a server that may be killed and started again under everybody's hands."""

    def __init__(self, server):
        self.server = server
        self.generation = 0  # one more with each kill
        self._up = threading.Event()
        self._connect()

    def _connect(self):
        self.stub = self.server.stub()
        self._up.set()

    def kill(self):
        self._up.clear()
        self.generation += 1
        self.server.kill()

    def restart(self):
        self.server.start()
        self._connect()

    def wait_up(self):
        return self._up.wait(SOON)


class Outcome:
    """How a CompactSealed ended, and what it had said until then."""

    def __init__(self):
        self.relocations = {}  # (file_id, offset) -> new ref
        self.summary = None
        self.error = None
        self.reason = None

    def take(self, answer):
        for relocation in answer.relocations:
            assert key(relocation.old_ref) not in self.relocations, "told twice"
            self.relocations[key(relocation.old_ref)] = relocation.new_ref
        if answer.HasField("summary"):
            self.summary = answer.summary

    def ended_with(self, error):
        info = error_info(error)
        self.error = error.code()
        self.reason = info.reason if info else None

    def code(self):
        return grpc.StatusCode.OK if self.error is None else self.error


class Broker:
    def __init__(self, link, store, seed, epoch=0):
        self.pb = stubs()[0]
        self.link = link
        self.store = store
        self.epoch = epoch
        self.rng = random.Random(seed)
        self.lock = threading.Lock()  # guards live and next
        self.appending = threading.Lock()  # held while an append is out: Seal waits for its answer
        self.live = {}  # number -> ref
        self.next = 0

    @property
    def stub(self):
        return self.link.stub

    # -- payloads ------------------------------------------------------------------------------

    def payload(self, number):
        digest = hashlib.sha256(f"{self.store} {number}".encode()).digest()
        # Mostly small ones; some of up to 255 KiB, which make the copying take its time.
        length = digest[0] % 64 if number % 16 else digest[0] * 1024
        return (digest * (length // len(digest) + 1))[:length]

    def _append_request(self, number):
        return self.pb.AppendRequest(
            store=self.store,
            epoch=self.epoch,
            # Is to survive the death of the process.
            durability=self.pb.DURABILITY_BUFFERED,
            payload=self.payload(number),
        )

    def append(self, count):
        """Appends as many, which has to succeed."""
        with self.appending:
            numbers = range(self.next, self.next + count)
            self.next += count
            requests = [self._append_request(number) for number in numbers]
            answers = in_flight(self.stub.Append, requests)
            with self.lock:
                for number, answer in zip(numbers, answers, strict=True):
                    self.live[number] = answer.ref

    def append_one(self):
        """One append, which may fail with its answer or with the server."""
        with self.appending:
            number = self.next
            self.next += 1
            ref = self.stub.Append(self._append_request(number), timeout=SOON).ref
            with self.lock:
                self.live[number] = ref

    def consume(self, share):
        """Lets a share of the live ones die; they may read on until a compaction."""
        with self.lock:
            dead = self.rng.sample(sorted(self.live), int(len(self.live) * share))
            return {number: self.live.pop(number) for number in dead}

    def live_now(self):
        with self.lock:
            return dict(self.live)

    # -- reads ---------------------------------------------------------------------------------

    def read_many(self, refs):
        """What each gives: its bytes, or a status."""
        requests = [self.pb.ReadRequest(store=self.store, ref=ref) for ref in refs]
        results = in_flight(self.stub.Read, requests, refusals=(NOT_FOUND, DATA_LOSS))
        return [r if isinstance(r, grpc.StatusCode) else r.payload for r in results]

    def check(self, live, what):
        """Every one of {number: ref} reads, and gives its bytes."""
        numbers = list(live)
        results = self.read_many([live[number] for number in numbers])
        for number, result in zip(numbers, results, strict=True):
            place = f"{what}: {number} at {key(live[number])}"
            assert not isinstance(result, grpc.StatusCode), f"{place}: {result}"
            assert result == self.payload(number), f"{place}: other bytes"

    def check_some(self, live, what, most=250):
        some = self.rng.sample(sorted(live), min(len(live), most))
        self.check({number: live[number] for number in some}, what)

    def check_gone(self, dead, what, most=100):
        some = self.rng.sample(sorted(dead), min(len(dead), most))
        for number, result in zip(
            some, self.read_many([dead[number] for number in some]), strict=True
        ):
            assert result == NOT_FOUND, f"{what}: {number} at {key(dead[number])}: {result}"

    # -- seal and compaction -------------------------------------------------------------------

    def seal(self):
        request = self.pb.SealRequest(store=self.store, epoch=self.epoch)
        return self.stub.Seal(request, timeout=SOON).seal

    def seal_and_list(self):
        """A handle, and what is live once it was given: no append is out meanwhile."""
        with self.appending:
            return self.seal(), self.live_now()

    def requests(self, seal, live, before=None, commit=True, **options):
        """The messages of a CompactSealed; before(n, of) is called as the n-th of them is taken."""
        refs = list(live.values())
        random.Random(len(refs)).shuffle(refs)
        starts = range(0, max(len(refs), 1), LIVE_A_MESSAGE)
        for n, at in enumerate(starts):
            request = self.pb.CompactSealedRequest(live=refs[at : at + LIVE_A_MESSAGE])
            if n == 0:
                request.store = self.store
                request.epoch = self.epoch
                request.seal.CopyFrom(seal)
                for name, value in options.items():
                    setattr(request, name, value)
            if n == len(starts) - 1 and commit:
                request.expected_live.value = len(refs)
                request.commit = True
            if before:
                before(n, len(starts))
            yield request

    def compact(self, seal, live, before=None, on_call=None, on_answer=None, seconds=SOON, **more):
        """A whole CompactSealed. on_call gets the call; on_answer is called after each message."""
        outcome = Outcome()
        call = self.stub.CompactSealed(
            self.requests(seal, live, before=before, **more), timeout=seconds
        )
        if on_call:
            on_call(call)
        try:
            for answer in call:
                outcome.take(answer)
                if on_answer:
                    on_answer(outcome)
        except grpc.RpcError as error:
            outcome.ended_with(error)
        return outcome

    def compact_until_done(self, seal, live, **more):
        """As a broker does it: again while another one, perhaps its own earlier call, runs."""
        while True:
            outcome = self.compact(seal, live, **more)
            if outcome.reason != "COMPACTION_RUNNING":
                return outcome

    def moved(self, live, outcome):
        """{number: ref} by the names that the map gives; what is not in it is valid as it was."""
        return {number: outcome.relocations.get(key(ref), ref) for number, ref in live.items()}

    def adopt(self, listed, outcome):
        """Stores the map. What has died or come meanwhile stays so."""
        for number, ref in self.moved(listed, outcome).items():
            with self.lock:
                if number in self.live:
                    self.live[number] = ref


class Traffic:
    """Readers of a broker's live refs, and where wanted an appender, until the block ends."""

    def __init__(self, broker, readers=1, appender=True):
        self.broker = broker
        self.reads = 0
        self.appends = 0
        self._stop = threading.Event()
        self._failures = []
        works = [self._read_some] * readers + [self._append_one] * appender
        self._threads = [
            threading.Thread(target=self._run, args=(work, n)) for n, work in enumerate(works)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            if raised[0] is None:
                raise failure
            sys.stderr.write(f"and meanwhile: {failure}\n")

    def _run(self, work, n):
        rng = random.Random(n)
        try:
            while not self._stop.is_set():
                generation = self.broker.link.generation
                assert self.broker.link.wait_up(), "the server did not come back"
                try:
                    work(rng)
                except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
                    # The latter two: the channel was closed under the call.
                    if generation == self.broker.link.generation:
                        raise AssertionError(f"{work.__name__}: {error}") from error
        except AssertionError as failure:
            self._failures.append(failure)

    def _read_some(self, rng):
        live = self.broker.live_now()
        if not live:
            return
        numbers = rng.sample(list(live), min(len(live), 20))
        results = self.broker.read_many([live[number] for number in numbers])
        for number, result in zip(numbers, results, strict=True):
            if result == NOT_FOUND:
                # Died, or got another name, while it was asked for: then the old one may be gone.
                with self.broker.lock:
                    now = self.broker.live.get(number)
                assert now is None or key(now) != key(live[number]), (
                    f"live ref {key(live[number])} of {number} is NOT_FOUND"
                )
            else:
                assert result == self.broker.payload(number), (
                    f"{number} at {key(live[number])}: other bytes than were appended, or {result}"
                )
        self.reads += len(numbers)

    def _append_one(self, _):
        self.broker.append_one()
        self.appends += 1
