#!/usr/bin/env python3
"""The real job, through stubs that protoc made from the .proto.

Every regular file under /usr/share/doc and /usr/include is a payload: thousands of real files, from
empty ones to some of megabytes. Several callers append them all; they are read back and compared;
the store is sealed, appended to, and compacted with every third kept while appends and reads go on;
the kept ones are compared through the map, the others are gone and so is the space they took; and
all of that still holds after the server was stopped, and after it was killed.
"""

import concurrent.futures
import os
import signal
import stat
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import grpc  # noqa: E402

from payloadstored import MIB, SOON, ServerTest, report, stubs  # noqa: E402
import unittest  # noqa: E402

PLACES = ("/usr/share/doc", "/usr/include")
CALLERS = 6
SEGMENT_MB = 16
LIVE_REFS_A_MESSAGE = 5000
PREFIX = 4  # bytes of a record before its payload
MESSAGE_LIMIT = MIB  # no streamed message is larger


def regular_files():
    found = []
    for place in PLACES:
        for directory, _, names in os.walk(place):
            for name in names:
                path = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    found.append(path)
    return sorted(found)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def key(ref):
    """What a broker would use as a map key: unique in a store."""
    return ref.file_id, ref.offset


class RealJob(ServerTest):
    maxDiff = 2000

    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]
        self.lines = []
        self.pool = concurrent.futures.ThreadPoolExecutor(CALLERS)
        self.addCleanup(self.pool.shutdown)

    def timed(self, what, function, *arguments):
        start = time.monotonic()
        result = function(*arguments)
        self.lines.append(f"{what:<58} {time.monotonic() - start:6.1f} s")
        return result

    def connect(self):
        """A connection for each caller, as so many brokers would have."""
        self.callers = [self.server.stub() for _ in range(CALLERS)]

    def share_out(self, work, items):
        """work(stub, item) for every item, the callers side by side; the results in order."""

        def one_caller(number):
            return [work(self.callers[number], item) for item in items[number::CALLERS]]

        results = [None] * len(items)
        for number, part in enumerate(self.pool.map(one_caller, range(CALLERS))):
            results[number::CALLERS] = part
        return results

    def append(self, stub, numbered_path):
        number, path = numbered_path
        # One in eight waits for the device; the others are bulk.
        durability = self.pb.DURABILITY_SYNCED if number % 8 == 0 else self.pb.DURABILITY_BUFFERED
        payload = content(path)
        request = self.pb.AppendRequest(payload=payload, durability=durability)
        ref = stub.Append(request, timeout=SOON).ref
        self.assertEqual(ref.length, len(payload), path)
        return ref

    def append_all(self, paths):
        return self.share_out(self.append, list(enumerate(paths)))

    def compare(self, stub, path_and_ref):
        path, ref = path_and_ref
        payload = stub.Read(self.pb.ReadRequest(ref=ref), timeout=SOON).payload
        self.assertTrue(payload == content(path), f"{path} came back different")

    def compare_all(self, paths, refs):
        self.share_out(self.compare, list(zip(paths, refs, strict=True)))

    def assert_gone(self, stub, ref):
        try:
            stub.Read(self.pb.ReadRequest(ref=ref), timeout=SOON)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND, error.details())
        else:
            self.fail(f"a dead ref still reads: {ref}")

    def disk_usage(self):
        """The Stat, whose usage and segments must be what the directory shows."""
        told = self.callers[0].Stat(self.pb.StatRequest(), timeout=SOON)
        sizes = [path.stat().st_size for path in self.server.payload_files()]
        self.assertEqual(told.disk_usage_bytes, sum(sizes))
        self.assertEqual(sum(segment.bytes for segment in told.segments), sum(sizes))
        # None at all where the next append begins a new one.
        active = [segment.file_id for segment in told.segments if segment.active]
        self.assertIn(active, ([], [told.active_id]))
        return told

    def compact(self, seal, live):
        """The map of a compaction and its summary, with the protocol's rules checked on the way."""

        def requests():
            request = self.pb.CompactSealedRequest(seal=seal)
            for start in range(0, len(live), LIVE_REFS_A_MESSAGE):
                request.live.extend(live[start : start + LIVE_REFS_A_MESSAGE])
                yield request
                request = self.pb.CompactSealedRequest()
            request.expected_live.value = len(live)
            request.commit = True
            yield request

        relocations = {}
        summary = None
        for answer in self.callers[0].CompactSealed(requests(), timeout=10 * SOON):
            self.assertIsNone(summary, "something came after the summary")
            self.assertLessEqual(answer.ByteSize(), MESSAGE_LIMIT)
            self.assertFalse(answer.damaged)
            if answer.HasField("progress"):
                self.assertFalse(relocations, "progress came after the commit")
                self.assertLessEqual(answer.progress.records_done, answer.progress.records_total)
                self.assertLessEqual(answer.progress.bytes_done, answer.progress.bytes_total)
            for relocation in answer.relocations:
                self.assertNotIn(key(relocation.old_ref), relocations, "told twice")
                relocations[key(relocation.old_ref)] = relocation.new_ref
            if answer.HasField("summary"):
                summary = answer.summary
        self.assertIsNotNone(summary, "the stream ended without a summary")
        return relocations, summary

    def test_the_real_job(self):
        paths = regular_files()
        sizes = [os.path.getsize(path) for path in paths]
        self.assertGreater(len(paths), 1000, f"{PLACES} should hold thousands of files")
        self.server = self.serve("--segment-max-mb", str(SEGMENT_MB))
        self.connect()

        refs = self.timed(
            f"append {len(paths)} files, {sum(sizes) / MIB:.0f} MiB, {CALLERS} callers",
            self.append_all,
            paths,
        )
        empty = self.callers[0].Append(self.pb.AppendRequest(), timeout=SOON).ref
        self.assertEqual(empty.length, 0)
        paths.append(os.devnull)
        refs.append(empty)
        self.assertEqual(len({key(ref) for ref in refs}), len(refs), "a ref was given out twice")

        self.timed("read them all back and compare", self.compare_all, paths, refs)
        filled = self.disk_usage()
        self.assertEqual(filled.disk_usage_bytes, sum(PREFIX + ref.length for ref in refs))
        self.assertEqual(filled.records, len(refs))
        # A segment overshoots by one record at most, and the largest file is not that large.
        least = filled.disk_usage_bytes // (SEGMENT_MB * MIB + max(sizes) + PREFIX)
        self.assertGreaterEqual(len(filled.segments), least)
        self.assertGreater(len(filled.segments), 3)

        seal = self.callers[0].Seal(self.pb.SealRequest(), timeout=SOON).seal
        self.assertGreaterEqual(seal.sealed_id, max(ref.file_id for ref in refs))
        self.assertEqual(seal.compaction_id, seal.sealed_id + 1)

        later_paths = paths[::5]
        later = self.timed("seal, append every fifth again", self.append_all, later_paths)
        self.assertGreater(min(ref.file_id for ref in later), seal.compaction_id)

        # Appends and reads go on while the store is compacted.
        done = threading.Event()

        def meanwhile(stub):
            appended = []
            turn = 0
            while not done.is_set():
                path = paths[turn % len(paths)]
                appended.append((path, self.append(stub, (turn, path))))
                self.compare(stub, (later_paths[turn % len(later)], later[turn % len(later)]))
                turn += 1
            return appended

        kept = range(0, len(refs), 3)
        # Some given twice, and some that lie beyond the seal: each is good for one mistake.
        live = [refs[i] for i in kept] + [refs[i] for i in kept[:100]] + later[:100]
        busy = self.pool.submit(meanwhile, self.callers[1])
        try:
            relocations, summary = self.timed(
                "compact with every third kept, under load", self.compact, seal, live
            )
        finally:
            done.set()
        during = busy.result()
        later_paths = later_paths + [path for path, _ in during]
        later = later + [ref for _, ref in during]

        self.assertFalse(
            [old for old in relocations if old[0] > seal.sealed_id],
            "a ref beyond the seal was moved",
        )
        self.assertLessEqual(set(relocations), {key(refs[i]) for i in kept}, "a dead ref was moved")
        self.assertEqual(summary.live_records, len(kept))
        self.assertEqual(summary.relocated_records, len(kept))
        self.assertFalse(summary.dry_run)
        self.assertFalse(summary.short_of_room)

        kept_paths = [paths[i] for i in kept]
        # One that is not in the map is valid as it was.
        moved = [relocations.get(key(refs[i]), refs[i]) for i in kept]
        self.assertEqual([ref.length for ref in moved], [refs[i].length for i in kept])
        self.assertEqual([ref.crc32c for ref in moved], [refs[i].crc32c for i in kept])
        self.timed("compare the kept ones through the map", self.compare_all, kept_paths, moved)
        self.compare_all(later_paths, later)
        dead = [ref for i, ref in enumerate(refs) if i % 3 != 0]
        self.timed(f"find {len(dead)} dead ones gone", self.share_out, self.assert_gone, dead)

        compacted = self.disk_usage()
        expected = sum(PREFIX + ref.length for ref in moved + later)
        self.assertEqual(compacted.disk_usage_bytes, expected)
        self.assertEqual(compacted.records, len(moved) + len(later))
        self.assertEqual(
            summary.reclaimed_bytes,
            filled.disk_usage_bytes - sum(PREFIX + ref.length for ref in moved),
        )
        self.lines.append(
            f"disk usage: {filled.disk_usage_bytes / MIB:.0f} MiB in {len(filled.segments)} segments,"
            f" sealed; {summary.reclaimed_bytes / MIB:.0f} MiB of it given back,"
            f" {summary.deleted_segments} segments deleted"
        )

        self.assertEqual(self.server.stop(), 0)
        self.timed("stop and start the server", self.server.start)
        self.connect()
        self.assertEqual(self.disk_usage().disk_usage_bytes, expected)
        self.timed("compare again", self.compare_all, kept_paths + later_paths, moved + later)

        self.server.stop(signal.SIGKILL)
        self.timed("kill and start the server", self.server.start)
        self.connect()
        self.assertEqual(self.disk_usage().records, len(moved) + len(later))
        self.timed("compare again", self.compare_all, kept_paths + later_paths, moved + later)
        self.share_out(self.assert_gone, dead[::50])
        report(*self.lines)


if __name__ == "__main__":
    unittest.main(verbosity=2)
