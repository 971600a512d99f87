/* The scrub: what it finds, what it does not, and what may happen meanwhile. */
#include "store_fixture.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "sys.h"

enum { FOUND_MAX = 64 };

struct scrub {
    struct pls_verify_progress progress;
    struct pls_damaged damaged[FOUND_MAX];
    size_t n_damaged;
};

static pls_verify *begin(pls_store *store, uint64_t bytes_per_second)
{
    const struct pls_verify_options options = {.bytes_per_second = bytes_per_second};
    struct pls_error error;
    pls_verify *verify;
    if (pls_verify_begin(store, &options, &verify, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
    return verify;
}

/* To its end, up to `max` damaged refs a call. Gives the scrub back. */
static void finish(pls_verify *verify, size_t max, struct scrub *scrub)
{
    bool more = true;
    scrub->n_damaged = 0;
    while (more) {
        size_t n, room = FOUND_MAX - scrub->n_damaged;
        assert_true(room > 0);
        assert_int_equal(pls_verify_next(verify, scrub->damaged + scrub->n_damaged,
                                         max < room ? max : room, &n, &more, NULL),
                         PLS_OK);
        assert_true(n <= max);
        scrub->n_damaged += n;
    }
    pls_verify_progress(verify, &scrub->progress);
    assert_int_equal(scrub->progress.bytes_checked, scrub->progress.bytes_total);
    pls_verify_destroy(verify);
}

static void scrub_store(pls_store *store, struct scrub *scrub)
{
    finish(begin(store, 0), FOUND_MAX, scrub);
}

static void assert_damaged(const struct pls_damaged *damaged, const struct pls_ref *ref,
                           enum pls_code code)
{
    assert_int_equal(damaged->code, code);
    assert_ref(&damaged->ref, ref->file_id, ref->offset, ref->length);
    assert_int_equal(damaged->ref.crc32c, ref->crc32c);
}

static void open_small(struct fixture *fx)
{
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
}

static void a_store_without_damage_is_counted_whole(void **state)
{
    struct fixture *fx = *state;
    struct scrub scrub;
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.progress.records_checked, 0);
    /* Empty ones, many together in a read, and ones larger than any read. */
    for (uint32_t i = 0; i < 50; i++) {
        put_filled(fx->store, i % 10 == 0 ? 0 : i % 7 == 0 ? 2 * MIB + i : 100 * KIB, i);
    }
    for (int round = 0; round < 2; round++) {
        scrub_store(fx->store, &scrub);
        assert_int_equal(scrub.n_damaged, 0);
        assert_int_equal(scrub.progress.records_checked, 50);
        assert_int_equal(scrub.progress.bytes_checked, disk_usage(fx->store));
        fx_reopen(fx);
    }
}

static void a_flipped_byte_is_told_with_its_ref_and_nothing_else_is(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[10];
    struct scrub scrub;
    open_small(fx);
    for (uint32_t i = 0; i < 10; i++) {
        refs[i] = put_filled(fx->store, 296, i); /* four a segment */
    }
    file_flip(fx, "s/payload_0001.dat", refs[5].offset + 4);
    file_flip(fx, "s/payload_0002.dat", refs[9].offset + 4 + 295); /* the active one */
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.n_damaged, 2);
    assert_damaged(&scrub.damaged[0], &refs[5], PLS_DAMAGED);
    assert_damaged(&scrub.damaged[1], &refs[9], PLS_DAMAGED);
    assert_int_equal(scrub.progress.records_checked, 10);
    /* It changes nothing, neither to the better nor to the worse. */
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.n_damaged, 2);
    assert_filled(fx->store, &refs[4], 4);
    assert_unreadable(fx->store, &refs[5], PLS_DAMAGED);
}

static void damage_in_a_record_larger_than_a_read_is_found(void **state)
{
    struct fixture *fx = *state;
    struct scrub scrub;
    fx->options.segment_max_bytes = 100 * MIB;
    fx_reopen(fx);
    put_filled(fx->store, 3 * MIB, 0);
    struct pls_ref bad = put_filled(fx->store, 3 * MIB, 1);
    struct pls_ref wrong_length = put_filled(fx->store, 2 * MIB, 2);
    put_filled(fx->store, 100, 3);
    file_flip(fx, "s/payload_0000.dat", bad.offset + 2 * MIB);
    file_flip(fx, "s/payload_0000.dat", wrong_length.offset);
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.n_damaged, 2);
    assert_damaged(&scrub.damaged[0], &bad, PLS_DAMAGED);
    assert_damaged(&scrub.damaged[1], &wrong_length, PLS_DAMAGED);
    assert_int_equal(scrub.progress.records_checked, 4);
}

static void a_wrong_length_is_found_after_a_restart(void **state)
{
    struct fixture *fx = *state;
    struct scrub scrub;
    put_text(fx->store, "first");
    struct pls_ref bad = put_text(fx->store, "second");
    put_text(fx->store, "third");
    fx_reopen(fx);
    file_flip(fx, "s/payload_0000.dat", bad.offset);
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.n_damaged, 1);
    assert_damaged(&scrub.damaged[0], &bad, PLS_DAMAGED);
}

static void records_that_cannot_be_read_are_damaged(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[4];
    struct scrub scrub;
    for (uint32_t i = 0; i < 4; i++) {
        refs[i] = put_filled(fx->store, i == 3 ? 2 * MIB : 1000, i);
    }
    plsi_sys_fail_from(1, EIO);
    scrub_store(fx->store, &scrub);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(scrub.n_damaged, 4);
    assert_int_equal(scrub.progress.records_checked, 4);
    file_cut(fx, "s/payload_0000.dat", refs[2].offset + 10);
    scrub_store(fx->store, &scrub);
    assert_int_equal(scrub.n_damaged, 2);
    assert_damaged(&scrub.damaged[0], &refs[2], PLS_DAMAGED);
    assert_damaged(&scrub.damaged[1], &refs[3], PLS_DAMAGED);
}

static void what_lies_behind_the_last_whole_record_is_told_once(void **state)
{
    struct fixture *fx = *state;
    struct scrub scrub;
    struct pls_ref first = put_text(fx->store, "first");
    struct pls_ref second = put_text(fx->store, "second");
    put_text(fx->store, "third");
    fx_close(fx);
    file_write(fx, "s/payload_0000.dat", second.offset, "\377\377\377\377", 4);
    file_remove(fx, "s/index_0000.idx");
    fx_open(fx);
    put_text(fx->store, "in the next segment");
    scrub_store(fx->store, &scrub);
    const struct pls_ref tail = {.offset = second.offset, .length = 10 + 9};
    assert_int_equal(scrub.n_damaged, 1);
    assert_damaged(&scrub.damaged[0], &tail, PLS_NO_RECORD);
    assert_int_equal(scrub.progress.records_checked, 2);
    assert_text(fx->store, &first, "first");
}

static void much_damage_is_told_a_little_at_a_time(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[40];
    struct scrub scrub;
    open_small(fx);
    for (uint32_t i = 0; i < 40; i++) {
        char name[32];
        refs[i] = put_filled(fx->store, 96, i);
        snprintf(name, sizeof name, "s/payload_%04u.dat", refs[i].file_id);
        file_flip(fx, name, refs[i].offset + 10);
    }
    for (size_t max = 1; max <= 3; max++) {
        finish(begin(fx->store, 0), max, &scrub);
        assert_int_equal(scrub.n_damaged, 40);
        for (size_t i = 0; i < 40; i++) {
            assert_damaged(&scrub.damaged[i], &refs[i], PLS_DAMAGED);
        }
    }
}

/* -- the rate ---------------------------------------------------------------------------------- */

/* At a byte a second the first read is the last one that any test lives to see. */
static void a_low_rate_is_kept_to_and_leaves_the_caller_free_to_stop(void **state)
{
    struct fixture *fx = *state;
    struct pls_damaged damaged[FOUND_MAX];
    struct pls_verify_progress progress;
    for (uint32_t i = 0; i < 100; i++) {
        put_filled(fx->store, i == 0 ? 50 * KIB : 1000, i); /* the first is read in pieces */
    }
    pls_verify *verify = begin(fx->store, 1);
    for (int i = 0; i < 3; i++) {
        size_t n;
        bool more;
        assert_int_equal(pls_verify_next(verify, damaged, FOUND_MAX, &n, &more, NULL), PLS_OK);
        assert_true(more);
        pls_verify_progress(verify, &progress);
        assert_int_equal(progress.bytes_checked, 4 * KIB);
        assert_int_equal(progress.bytes_total, disk_usage(fx->store));
    }
    pls_verify_destroy(verify);
}

static void a_scrub_with_a_rate_comes_to_its_end(void **state)
{
    struct fixture *fx = *state;
    struct scrub scrub;
    for (uint32_t i = 0; i < 20; i++) {
        put_filled(fx->store, i % 5 == 0 ? 300 * KIB : 1000, i);
    }
    finish(begin(fx->store, 64 * MIB), FOUND_MAX, &scrub);
    assert_int_equal(scrub.n_damaged, 0);
    assert_int_equal(scrub.progress.records_checked, 20);
}

/* -- meanwhile --------------------------------------------------------------------------------- */

/* Begins one that stands in the middle of the first of two segments. */
static pls_verify *begin_and_read_a_little(struct fixture *fx, struct pls_ref *refs)
{
    struct pls_damaged damaged[FOUND_MAX];
    size_t n;
    bool more;
    fx->options.segment_max_bytes = 20000;
    fx_reopen(fx);
    for (uint32_t i = 0; i < 40; i++) {
        refs[i] = put_filled(fx->store, 996, i);
    }
    pls_verify *verify = begin(fx->store, 1);
    assert_int_equal(pls_verify_next(verify, damaged, FOUND_MAX, &n, &more, NULL), PLS_OK);
    assert_true(more);
    return verify;
}

static void what_a_compaction_removes_meanwhile_is_left_out(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[40];
    struct scrub scrub;
    pls_verify *verify = begin_and_read_a_little(fx, refs);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, refs, 10);
    finish(verify, FOUND_MAX, &scrub);
    assert_int_equal(scrub.n_damaged, 0);
    assert_int_equal(scrub.progress.records_checked, 4);
    assert_int_equal(scrub.progress.bytes_total, 4000);
}

static void a_store_deleted_meanwhile_ends_it(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[40];
    struct pls_damaged damaged[FOUND_MAX];
    size_t n;
    bool more;
    pls_verify *verify = begin_and_read_a_little(fx, refs);
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, NULL, NULL), PLS_OK);
    assert_int_equal(pls_verify_next(verify, damaged, FOUND_MAX, &n, &more, NULL), PLS_NO_STORE);
    pls_verify_destroy(verify);
    assert_int_equal(pls_verify_begin(fx->store, NULL, &verify, NULL), PLS_NO_STORE);
}

struct writer {
    pls_store *store;
    atomic_bool stop;
    unsigned wrong;
};

static void *append_until_stopped(void *arg)
{
    struct writer *me = arg;
    uint8_t data[700];
    struct pls_ref ref;
    for (uint32_t i = 0; !atomic_load(&me->stop); i++) {
        fill(data, sizeof data, i);
        me->wrong += try_append(me->store, data, i % sizeof data, PLS_BUFFERED, &ref) != PLS_OK;
    }
    return NULL;
}

static void *scrub_until_stopped(void *arg)
{
    struct writer *me = arg;
    while (!atomic_load(&me->stop)) {
        struct pls_damaged damaged[FOUND_MAX];
        pls_verify *verify;
        bool more = pls_verify_begin(me->store, NULL, &verify, NULL) == PLS_OK;
        me->wrong += !more;
        while (more) {
            size_t n = 0;
            me->wrong +=
                pls_verify_next(verify, damaged, FOUND_MAX, &n, &more, NULL) != PLS_OK || n > 0;
        }
        pls_verify_destroy(verify);
    }
    return NULL;
}

static void appends_and_compactions_meanwhile_are_not_taken_for_damage(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 30000;
    fx_reopen(fx);
    struct pls_ref kept[50];
    for (uint32_t i = 0; i < 50; i++) {
        kept[i] = put_filled(fx->store, 500, i);
    }
    struct writer writer = {.store = fx->store}, scrubber = {.store = fx->store};
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, append_until_stopped, &writer), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, scrub_until_stopped, &scrubber), 0);
    for (int round = 0; round < 10; round++) {
        struct pls_seal given = seal(fx->store);
        compact_ok(fx->store, &given, kept, 50); /* the old refs are followed */
    }
    atomic_store(&writer.stop, true);
    atomic_store(&scrubber.stop, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(writer.wrong, 0);
    assert_int_equal(scrubber.wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_store_without_damage_is_counted_whole),
        STORE_TEST(a_flipped_byte_is_told_with_its_ref_and_nothing_else_is),
        STORE_TEST(damage_in_a_record_larger_than_a_read_is_found),
        STORE_TEST(a_wrong_length_is_found_after_a_restart),
        STORE_TEST(records_that_cannot_be_read_are_damaged),
        STORE_TEST(what_lies_behind_the_last_whole_record_is_told_once),
        STORE_TEST(much_damage_is_told_a_little_at_a_time),
        STORE_TEST(a_low_rate_is_kept_to_and_leaves_the_caller_free_to_stop),
        STORE_TEST(a_scrub_with_a_rate_comes_to_its_end),
        STORE_TEST(what_a_compaction_removes_meanwhile_is_left_out),
        STORE_TEST(a_store_deleted_meanwhile_ends_it),
        STORE_TEST(appends_and_compactions_meanwhile_are_not_taken_for_damage),
    };
    return cmocka_run_group_tests_name("store_verify", tests, NULL, NULL);
}
