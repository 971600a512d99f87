"""A real full disk: a small file system of its own, filled to the end under load by several clients,
then beyond the reserve by another program, emptied by compaction, and used again.

The file system is memory, mounted in a namespace of this process, for which it needs root or user
namespaces: without either it says SKIP. Nothing of it is seen outside, and it goes with the process.
"""

import contextlib
import ctypes
import os
import pathlib
import random
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from payloadstored import (  # noqa: E402
    MIB,
    SOON,
    ServerTest,
    error_info,
    grpc,
    report,
    stubs,
)

SKIPPED = 77  # ctest's SKIP_RETURN_CODE
INSIDE = "FULL_DISK_TEST_INSIDE"  # set in the namespace

DISK = 48 * MIB
RESERVE_MB = 6
SEGMENT_MB = 2
CLIENTS = 6
STORES = ["default", "orders", "events"]
LARGEST = 96 << 10


def enter_namespace():
    """Starts this program once more where it may mount; returns only where that cannot be."""
    for way in (["unshare", "-m"], ["unshare", "-Urm"]):
        probe = [*way, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/"]
        with contextlib.suppress(OSError):
            if subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
                os.environ[INSIDE] = "1"
                os.execvp(way[0], [*way, sys.executable, "-B", *sys.argv])


def mount(where):
    """A tmpfs of DISK bytes, seen by this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={DISK}".encode()
    if libc.mount(b"none", str(where).encode(), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mounting a tmpfs")


def unmount(where):
    ctypes.CDLL(None).umount2(str(where).encode(), 2)  # MNT_DETACH: whatever still holds it


def payload_of(number):
    """Bytes of any length up to LARGEST, the same ones for a number whenever it is asked."""
    generator = random.Random(number)
    length = generator.choice([0, 1, generator.randrange(2000), generator.randrange(LARGEST)])
    return generator.randbytes(length)


class FullDiskTest(ServerTest):
    def setUp(self):
        super().setUp()
        self.pb = stubs()[0]
        self.disk = self.work / "disk"
        self.disk.mkdir()
        mount(self.disk)
        self.addCleanup(unmount, self.disk)
        self.answered = {store: {} for store in STORES}  # number of a payload, by its ref
        self.next_number = 0
        self.lock = threading.Lock()

    def serve_on_disk(self, reserve_mb):
        self.server = self.serve(
            f"--reserve-mb={reserve_mb}",
            f"--segment-max-mb={SEGMENT_MB}",
            "--durability=buffered",
            data_dir=self.disk / "payloads",
        )
        self.stub = self.server.stub()

    # -- calls ------------------------------------------------------------------------------------

    def key(self, ref):
        return (ref.file_id, ref.offset, ref.length, ref.crc32c)

    def ref(self, key):
        file_id, offset, length, crc32c = key
        return self.pb.PayloadRef(file_id=file_id, offset=offset, length=length, crc32c=crc32c)

    def append(self, store, number):
        request = self.pb.AppendRequest(store=store, payload=payload_of(number))
        return self.stub.Append(request, timeout=SOON).ref

    def stat(self, store="default"):
        return self.stub.Stat(self.pb.StatRequest(store=store), timeout=SOON)

    def seal(self, store):
        return self.stub.Seal(self.pb.SealRequest(store=store), timeout=SOON).seal

    def compact(self, store, seal, keys, **options):
        """The summary, and the relocations by old ref."""

        def requests():
            yield self.pb.CompactSealedRequest(store=store, seal=seal, **options)
            keys_left = list(keys)
            while keys_left:
                part, keys_left = keys_left[:5000], keys_left[5000:]
                yield self.pb.CompactSealedRequest(live=[self.ref(key) for key in part])
            yield self.pb.CompactSealedRequest(commit=True)

        moved = {}
        summary = None
        for answer in self.stub.CompactSealed(requests(), timeout=SOON):
            for relocation in answer.relocations:
                moved[self.key(relocation.old_ref)] = self.key(relocation.new_ref)
            if answer.HasField("summary"):
                summary = answer.summary
        return summary, moved

    def events(self, name):
        return [event for event in self.server.events() if event.get("event") == name]

    def free(self):
        room = os.statvfs(self.disk)
        return room.f_bavail * room.f_frsize

    # -- steps ------------------------------------------------------------------------------------

    def fill(self, word):
        """Appends from CLIENTS threads until the disk refuses each of them, even one byte."""
        refused = []
        broken = []

        def client(which):
            store = STORES[which % len(STORES)]
            try:
                while True:
                    with self.lock:
                        number = self.next_number
                        self.next_number += 1
                    try:
                        ref = self.append(store, number)
                    except grpc.RpcError as error:
                        refused.append(error)
                        # Another one may have been as large as the rest of the disk.
                        if not self.stat(store).appends_stopped:
                            continue
                        return
                    with self.lock:
                        self.answered[store][self.key(ref)] = number
            except BaseException as error:  # of a thread nobody would hear otherwise
                broken.append(error)

        threads = [threading.Thread(target=client, args=(which,)) for which in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(broken, [])
        self.assertGreaterEqual(len(refused), CLIENTS)
        for error in refused:
            self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, error.details())
            info = error_info(error)
            self.assertEqual((info.reason, info.domain), ("DISK_RESERVE", "payloadstore"))
            self.assertIn(word, error.details())

    def fill_beyond_the_reserve(self):
        """Another program takes what is left, to the last byte."""
        filler = self.disk / "filler"
        with open(filler, "wb", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    self.assertEqual(error.errno, 28)
        self.assertEqual(self.free(), 0)
        return filler

    def assert_all_there(self):
        """Everything answered reads back with its bytes."""
        for store, answered in self.answered.items():
            for key, number in answered.items():
                request = self.pb.ReadRequest(store=store, ref=self.ref(key))
                self.assertEqual(
                    self.stub.Read(request, timeout=SOON).payload, payload_of(number), (store, key)
                )

    def assert_no_partial_record(self):
        """The files hold the answered records, and nothing else."""
        for store, answered in self.answered.items():
            expected = sum(4 + length for _, _, length, _ in answered)
            files = self.server.payload_files(store)
            self.assertEqual(sum(file.stat().st_size for file in files), expected, store)
            self.assertEqual(self.stat(store).records, len(answered), store)
            for file in files:
                data, at = file.read_bytes(), 0
                while at < len(data):
                    at += 4 + int.from_bytes(data[at : at + 4], "little")
                self.assertEqual(at, len(data), file)

    def assert_stopped(self):
        for store in STORES:
            stat = self.stat(store)
            self.assertEqual((stat.appends_stopped, stat.free_bytes), (True, 0), store)
            self.assert_refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                self.stub.Append,
                self.pb.AppendRequest(store=store, payload=b"one more"),
                reason="DISK_RESERVE",
                words=["reserve", store],
            )

    def restart(self, *how):
        if how:
            self.server.stop(*how)
        else:
            self.server.kill()
        self.server.start()
        self.stub = self.server.stub()

    def keep(self, store, share):
        """Forgets some of what was answered; what is left is live."""
        chosen = random.Random(share)
        self.answered[store] = {
            key: number
            for key, number in self.answered[store].items()
            if chosen.random() < share
        }

    def empty(self, store):
        """Seals and compacts until nothing is short of room; how many rounds that took."""
        rounds = 0
        summary = None
        while summary is None or summary.short_of_room:
            self.assertLess(rounds, 50, "it goes on without an end")
            summary, moved = self.compact(store, self.seal(store), self.answered[store])
            self.answered[store] = {
                moved.get(key, key): number for key, number in self.answered[store].items()
            }
            rounds += 1
        return rounds

    # -- the tests --------------------------------------------------------------------------------

    def test_a_disk_filled_under_load_loses_nothing_and_can_be_emptied(self):
        self.serve_on_disk(RESERVE_MB)
        self.fill("reserve")
        # To the end, and the reserve is whole but for the pages that segments end in.
        self.assertLess(self.free(), RESERVE_MB * MIB + LARGEST)
        self.assertGreater(self.free(), RESERVE_MB * MIB - CLIENTS * LARGEST)
        self.assertEqual(len(self.events("appends_stopped")), 1, self.server.log())
        self.assertEqual(self.events("appends_go_on"), [])
        self.assert_stopped()
        self.assert_no_partial_record()
        self.assert_all_there()
        filled = sum(map(len, self.answered.values()))

        # Another program does not care for our reserve.
        filler = self.fill_beyond_the_reserve()
        self.assert_stopped()
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        for store in STORES:
            for call, request in (
                (self.stub.Seal, self.pb.SealRequest(store=store)),
                (self.stub.Claim, self.pb.ClaimRequest(store=store, owner="me")),
                (self.stub.Claim, self.pb.ClaimRequest(store=f"{store}.new", owner="me")),
            ):
                self.assert_refused(exhausted, call, request, words=["No space left", store])
        self.assert_no_partial_record()
        self.assert_all_there()
        self.restart()
        self.assert_stopped()
        self.assert_all_there()
        self.assertEqual([self.stat(store).epoch for store in STORES], [0] * len(STORES))

        # The reserve is there again: it takes seals, claims and a compaction, and no append.
        filler.unlink()
        self.assert_stopped()
        self.stub.Claim(self.pb.ClaimRequest(store="new", owner="me"), timeout=SOON)
        self.stub.Seal(self.pb.SealRequest(store="new.too"), timeout=SOON)
        for store in STORES:
            self.keep(store, 0.7)
        rounds = {store: self.empty(store) for store in STORES}
        self.assertGreater(max(rounds.values()), 1, "it was never short of room")
        self.assert_all_there()

        # And appends go on, without anybody being told to.
        self.assertFalse(self.stat().appends_stopped)
        self.assertGreater(self.stat().free_bytes, 0)
        before = sum(map(len, self.answered.values()))
        self.fill("reserve")
        self.assertEqual(len(self.events("appends_go_on")), 1, self.server.log())
        self.assertGreater(sum(map(len, self.answered.values())), before)
        self.assert_all_there()
        for store in STORES:
            self.keep(store, 0.3)
            self.empty(store)
        self.restart(15)
        self.assert_all_there()
        report(
            f"{filled} payloads filled {DISK // MIB} MiB, {RESERVE_MB} of them reserved",
            f"compactions until there was room for all: {rounds}",
        )

    def test_without_a_reserve_no_write_leaves_a_part_of_a_record(self):
        self.serve_on_disk(0)
        ballast = [self.disk / "ballast", self.disk / "more ballast"]
        for file in ballast:
            file.write_bytes(bytes(MIB))
        self.fill("full")
        self.assertEqual(self.free(), 0)
        self.assert_no_partial_record()
        self.assert_all_there()
        self.restart()
        self.assertTrue(self.stat().appends_stopped)
        self.assert_all_there()
        ballast[0].unlink()
        self.fill("full")
        self.assert_no_partial_record()
        self.assert_all_there()
        ballast[1].unlink()  # to note the clean close takes a page


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_namespace()
        print("SKIP: neither root nor a user namespace lets this test mount a file system")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
