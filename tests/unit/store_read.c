/* Reading: every ref that is not the ref of a record is refused, each with its own reason. */
#include "store_fixture.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend.h"
#include "ring.h"
#include "sys.h"

static void a_ref_past_the_end_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    ref.offset = 11;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.offset = 1u << 30;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.crc32c = 0;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

static void a_ref_into_the_middle_of_a_record_is_no_record(void **state)
{
    struct fixture *fx = *state;
    /* The payload looks like a record itself. */
    struct pls_ref ref = put(fx->store, "\3\0\0\0abc", 7);
    struct pls_ref inner = {.offset = ref.offset + 4, .length = 3};
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
    fx_reopen(fx);
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
    inner.offset = 2;
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
}

static void a_ref_with_the_wrong_length_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    put_text(fx->store, "another");
    const uint32_t lengths[] = {0, 6, 8, 18, PLS_PAYLOAD_LIMIT};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        ref.length = lengths[i];
        assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    }
}

static void a_ref_to_a_segment_that_never_was_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    ref.file_id = 1;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.file_id = UINT32_MAX;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

static void numbers_that_could_never_have_been_a_ref_are_invalid(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    const struct pls_ref impossible[] = {
        {.offset = UINT64_MAX, .length = 7},
        {.offset = UINT64_MAX - 10, .length = 7},
        {.offset = 1ull << 63, .length = 0},
        {.offset = 1ull << 62, .length = 7},
        {.offset = 0, .length = PLS_PAYLOAD_LIMIT + 1u},
        {.offset = 0, .length = UINT32_MAX},
        {.file_id = 9, .offset = UINT64_MAX, .length = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        assert_unreadable(fx->store, &impossible[i], PLS_INVALID_REF);
    }
    assert_text(fx->store, &ref, "payload");
}

static void a_checksum_that_differs_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_ref other = ref;
    other.crc32c++;
    assert_unreadable(fx->store, &other, PLS_DAMAGED);
    fx_reopen(fx);
    assert_unreadable(fx->store, &other, PLS_DAMAGED);
    assert_text(fx->store, &ref, "payload");
}

static void changed_bytes_are_damage_to_that_record_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref before = put_text(fx->store, "before");
    struct pls_ref hit = put_text(fx->store, "payload");
    struct pls_ref after = put_text(fx->store, "after");
    struct pls_ref bare = hit;
    bare.crc32c = 0;
    file_flip(fx, "s/payload_0000.dat", hit.offset + 4);
    assert_unreadable(fx->store, &hit, PLS_DAMAGED);
    assert_unreadable(fx->store, &bare, PLS_DAMAGED); /* the index knows it, too */
    assert_text(fx->store, &before, "before");
    assert_text(fx->store, &after, "after");
}

static void a_changed_length_prefix_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_ref after = put_text(fx->store, "after");
    file_flip(fx, "s/payload_0000.dat", 0);
    assert_unreadable(fx->store, &ref, PLS_DAMAGED);
    assert_text(fx->store, &after, "after");
}

static void a_file_cut_short_under_us_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref first = put_text(fx->store, "first");
    struct pls_ref second = put_text(fx->store, "second");
    file_cut(fx, "s/payload_0000.dat", second.offset + 5);
    assert_unreadable(fx->store, &second, PLS_DAMAGED);
    assert_text(fx->store, &first, "first");
}

static void a_view_outlives_its_store(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_view view;
    assert_int_equal(try_read(fx->store, &ref, &view), PLS_OK);
    fx_reopen(fx);
    assert_memory_equal(view.data, "payload", 7);
    pls_view_release(&view);
    assert_null(view.data);
    pls_view_release(&view); /* zeroed: nothing happens */
}

static void a_large_payload_reads_back(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 20 * MIB, 1);
    assert_filled(fx->store, &ref, 1);
}

/* -- batches ----------------------------------------------------------------------------------- */

#define BATCH 200u

static void assert_like_single(pls_store *store, const struct pls_ref *refs, size_t n)
{
    struct pls_view views[BATCH], single;
    enum pls_code codes[BATCH];
    try_read_batch(store, refs, n, views, codes);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(codes[i], try_read(store, &refs[i], &single));
        assert_int_equal(views[i].length, single.length);
        if (codes[i] == PLS_OK) {
            assert_memory_equal(views[i].data, single.data, single.length);
        } else {
            assert_null(views[i].owner);
        }
        pls_view_release(&single);
        pls_view_release(&views[i]); /* those behind it stay as they are */
    }
}

static void put_batch(pls_store *store, struct pls_ref *refs, uint32_t seed)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        refs[i] = put_filled(store, i * 37 % 150, seed + i);
    }
}

/* Every third from the other end. */
static void mix(const struct pls_ref *refs, struct pls_ref *mixed)
{
    for (size_t i = 0; i < BATCH; i++) {
        mixed[i] = refs[i % 3 == 0 ? BATCH - 1 - i : i];
    }
}

static void a_batch_reads_each_record_as_if_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[BATCH], mixed[BATCH];
    put_batch(fx->store, refs, 1);
    assert_like_single(fx->store, refs, BATCH);
    mix(refs, mixed);
    assert_like_single(fx->store, mixed, BATCH);
    seal(fx->store);
    put_batch(fx->store, mixed, 1000);
    memcpy(mixed, refs, BATCH / 2 * sizeof *refs); /* two segments' */
    assert_like_single(fx->store, mixed, BATCH);
    fx_reopen(fx);
    assert_like_single(fx->store, mixed, BATCH);
    assert_like_single(fx->store, mixed, 0);
}

static void what_is_wrong_with_one_of_a_batch_harms_no_other(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[BATCH];
    put_batch(fx->store, refs, 1);
    file_flip(fx, "s/payload_0000.dat", refs[10].offset + 4); /* a payload */
    file_flip(fx, "s/payload_0000.dat", refs[20].offset);     /* a prefix */
    assert_like_single(fx->store, refs, BATCH);
    refs[30].crc32c++;
    refs[40].crc32c = 0;
    refs[50].length++; /* the next one does not lie behind it any more */
    refs[90].file_id = 7;
    refs[100].offset = UINT64_MAX;
    refs[110].length = UINT32_MAX;
    refs[199].offset += 1;
    assert_like_single(fx->store, refs, BATCH);
    file_cut(fx, "s/payload_0000.dat", refs[150].offset + 2);
    assert_like_single(fx->store, refs, BATCH);
}

static long calls_to_read(pls_store *store, const struct pls_ref *refs, size_t n)
{
    struct pls_view views[BATCH];
    enum pls_code codes[BATCH];
    plsi_sys_fail_at(0, 0); /* counts from here */
    try_read_batch(store, refs, n, views, codes);
    long calls = plsi_sys_calls();
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(codes[i], PLS_OK);
        pls_view_release(&views[i]);
    }
    return calls;
}

static void records_side_by_side_are_read_at_once(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[BATCH], backwards[BATCH];
    put_batch(fx->store, refs, 1);
    for (size_t i = 0; i < BATCH; i++) {
        backwards[i] = refs[BATCH - 1 - i];
    }
    if (calls_to_read(fx->store, refs, 1) != 1) {
        skip(); /* here a read has to wait for the disk: each by itself */
    }
    assert_in_range(calls_to_read(fx->store, refs, BATCH), 1, BATCH / 20);
    /* One by one, or so many at once as a ring has, once it is made. */
    calls_to_read(fx->store, backwards, BATCH);
    long calls = calls_to_read(fx->store, backwards, BATCH);
    assert_true(calls == BATCH || calls == (BATCH + PLSI_PIECES - 1) / PLSI_PIECES);
}

/* Whatever fails of a ring's making and use: the records are read all the same. */
static void a_batch_is_read_without_a_ring_too(void **state)
{
    static const int errors[] = {0, EAGAIN, EPERM, ENOSYS, ENOMEM};
    struct fixture *fx = *state;
    struct pls_ref refs[BATCH];
    struct pls_view views[BATCH];
    enum pls_code codes[BATCH];
    put_batch(fx->store, refs, 1);
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
        for (long countdown = 1; countdown <= 10; countdown++) {
            fx_reopen(fx);
            plsi_sys_fail_at(countdown, errors[e]);
            for (size_t i = 0; i < BATCH; i += BATCH / 2) { /* the second one by what is left */
                try_read_batch(fx->store, &refs[i], BATCH / 2, &views[i], &codes[i]);
            }
            plsi_sys_fail_at(0, 0);
            for (size_t i = 0; i < BATCH; i++) {
                assert_int_equal(codes[i], PLS_OK);
                pls_view_release(&views[i]);
            }
            assert_like_single(fx->store, refs, BATCH);
        }
    }
}

/* -- into the caller's memory ------------------------------------------------------------------ */

struct rooms {
    struct pls_read reads[BATCH];
    enum pls_code codes[BATCH];
    atomic_uint done;
};

static void room_is_read(struct pls_read *read, enum pls_code code)
{
    struct rooms *rooms = read->data;
    rooms->codes[read - rooms->reads] = code;
    atomic_fetch_add(&rooms->done, 1);
}

/* Each in memory of its own size, so that ASan sees a byte too many. */
static void read_into_rooms(pls_store *store, const struct pls_ref *refs, size_t n, bool batch,
                            struct rooms *rooms)
{
    *rooms = (struct rooms){.done = 0};
    for (size_t i = 0; i < n; i++) {
        rooms->reads[i] = (struct pls_read){.ref = refs[i],
                                            .room = malloc(PLS_ROOM(refs[i].length)),
                                            .done = room_is_read,
                                            .data = rooms};
        assert_non_null(rooms->reads[i].room);
        if (!batch) {
            pls_read(store, &rooms->reads[i]);
        }
    }
    if (batch) {
        pls_read_batch(store, rooms->reads, n);
    }
    while (atomic_load(&rooms->done) < n) {
        sched_yield();
    }
}

static void assert_rooms(pls_store *store, const struct rooms *rooms, size_t n)
{
    struct pls_view single;
    for (size_t i = 0; i < n; i++) {
        const struct pls_read *read = &rooms->reads[i];
        assert_int_equal(rooms->codes[i], try_read(store, &read->ref, &single));
        assert_null(read->view.owner);
        assert_int_equal(read->view.length, single.length);
        if (rooms->codes[i] == PLS_OK) {
            assert_ptr_equal(read->view.data, read->room + PLS_ROOM(0));
            assert_memory_equal(read->view.data, single.data, single.length);
        } else {
            assert_null(read->view.data);
        }
        pls_view_release(&single);
        free(read->room);
    }
}

/* As if nothing were in memory, nor could be read. */
static void fail_all_reads(void)
{
    struct stat st;
    plsi_sys_fail_from(1, EAGAIN);
    (void)plsi_sys_fstat(-1, &st); /* the first call, which would do half */
}

static void assert_reads_into_rooms(pls_store *store, const struct pls_ref *refs, size_t n)
{
    struct rooms rooms;
    for (int batch = 0; batch < 2; batch++) {
        read_into_rooms(store, refs, n, batch, &rooms);
        assert_rooms(store, &rooms, n);
        fail_all_reads();
        read_into_rooms(store, refs, n, batch, &rooms);
        plsi_sys_fail_at(0, 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_not_equal(rooms.codes[i], PLS_OK);
            free(rooms.reads[i].room);
        }
    }
}

static void records_are_read_into_the_callers_memory(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[BATCH], mixed[BATCH];
    put_batch(fx->store, refs, 1);
    assert_reads_into_rooms(fx->store, refs, BATCH);
    mix(refs, mixed);
    assert_reads_into_rooms(fx->store, mixed, BATCH);
    seal(fx->store);
    put_batch(fx->store, mixed, 1000);
    memcpy(mixed, refs, BATCH / 2 * sizeof *refs);
    file_flip(fx, "s/payload_0000.dat", refs[10].offset + 4);
    file_flip(fx, "s/payload_0000.dat", refs[20].offset);
    mixed[30].crc32c++;
    mixed[50].length++;
    mixed[90].file_id = 7;
    mixed[100].offset = UINT64_MAX;
    assert_reads_into_rooms(fx->store, mixed, BATCH);
}

/* What is not in memory is read by another thread, into the same place. */
static void what_has_to_wait_is_read_into_the_callers_memory_too(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 5000, 3);
    struct rooms rooms;
    plsi_sys_fail_at(1, EAGAIN);
    read_into_rooms(fx->store, &ref, 1, false, &rooms);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(rooms.codes[0], PLS_OK);
    assert_rooms(fx->store, &rooms, 1);
}

static void of_a_batch_some_may_go_to_the_callers_memory(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[6];
    struct rooms rooms = {.done = 0};
    for (size_t i = 0; i < 6; i++) {
        refs[i] = put_filled(fx->store, 100 + i, (uint32_t)i);
        rooms.reads[i] =
            (struct pls_read){.ref = refs[i],
                              .room = i % 4 < 2 ? malloc(PLS_ROOM(refs[i].length)) : NULL,
                              .done = room_is_read,
                              .data = &rooms};
    }
    pls_read_batch(fx->store, rooms.reads, 6);
    while (atomic_load(&rooms.done) < 6) {
        sched_yield();
    }
    for (size_t i = 0; i < 6; i++) {
        uint8_t expected[106];
        assert_int_equal(rooms.codes[i], PLS_OK);
        fill(expected, 100 + i, (uint32_t)i);
        assert_memory_equal(rooms.reads[i].view.data, expected, 100 + i);
        assert_true((rooms.reads[i].room != NULL) == (rooms.reads[i].view.owner == NULL));
        pls_view_release(&rooms.reads[i].view);
        free(rooms.reads[i].room);
    }
}

/* -- what a read leaves alone ------------------------------------------------------------------ */

static void a_read_does_not_note_when_it_was(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    const struct timespec long_ago[2] = {{.tv_sec = 1000000}, {.tv_nsec = UTIME_OMIT}};
    char path[PATH_MAX + 32];
    struct stat st;
    snprintf(path, sizeof path, "%s/s/payload_0000.dat", fx->path);
    for (int i = 0; i < 2; i++) { /* as made, and as opened */
        assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
        assert_text(fx->store, &ref, "payload");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_atim.tv_sec, 1000000);
        fx_reopen(fx);
    }
}

static void a_view_of_a_batch_outlives_its_store_and_the_others(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[3];
    struct pls_view views[3];
    enum pls_code codes[3];
    for (int i = 0; i < 3; i++) {
        refs[i] = put_text(fx->store, "payload");
    }
    try_read_batch(fx->store, refs, 3, views, codes);
    pls_view_release(&views[0]);
    pls_view_release(&views[2]);
    fx_reopen(fx);
    assert_memory_equal(views[1].data, "payload", 7);
    pls_view_release(&views[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_ref_past_the_end_is_no_record),
        STORE_TEST(a_ref_into_the_middle_of_a_record_is_no_record),
        STORE_TEST(a_ref_with_the_wrong_length_is_no_record),
        STORE_TEST(a_ref_to_a_segment_that_never_was_is_no_record),
        STORE_TEST(numbers_that_could_never_have_been_a_ref_are_invalid),
        STORE_TEST(a_checksum_that_differs_is_damage),
        STORE_TEST(changed_bytes_are_damage_to_that_record_alone),
        STORE_TEST(a_changed_length_prefix_is_damage),
        STORE_TEST(a_file_cut_short_under_us_is_damage),
        STORE_TEST(a_view_outlives_its_store),
        STORE_TEST(a_large_payload_reads_back),
        STORE_TEST(a_batch_reads_each_record_as_if_alone),
        STORE_TEST(what_is_wrong_with_one_of_a_batch_harms_no_other),
        STORE_TEST(records_side_by_side_are_read_at_once),
        STORE_TEST(a_batch_is_read_without_a_ring_too),
        STORE_TEST(records_are_read_into_the_callers_memory),
        STORE_TEST(what_has_to_wait_is_read_into_the_callers_memory_too),
        STORE_TEST(of_a_batch_some_may_go_to_the_callers_memory),
        STORE_TEST(a_read_does_not_note_when_it_was),
        STORE_TEST(a_view_of_a_batch_outlives_its_store_and_the_others),
    };
    return cmocka_run_group_tests_name("store_read", tests, NULL, NULL);
}
