/* Compaction: what moves, what stays, what goes, and what the map says of it. */
#include "store_fixture.h"

#include <stdio.h>
#include <string.h>

/* Appends n payloads of `size` bytes, whose seeds are their numbers. */
static void put_many(pls_store *store, struct pls_ref *refs, uint32_t n, size_t size)
{
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = put_filled(store, size, i);
    }
}

static size_t every(size_t step, const struct pls_ref *refs, size_t n, struct pls_ref *live)
{
    size_t n_live = 0;
    for (size_t i = 0; i < n; i += step) {
        live[n_live++] = refs[i];
    }
    return n_live;
}

static void live_records_move_and_dead_ones_go(void **state)
{
    enum { N = 30 };
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_many(fx->store, refs, N, 100);
    size_t n_live = every(3, refs, N, live);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, n_live, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, n_live);
    for (uint32_t i = 0; i < N; i++) {
        const struct pls_ref *now = moved(&outcome, &refs[i]);
        assert_int_equal(now != NULL, i % 3 == 0);
        if (now == NULL) {
            assert_unreadable(fx->store, &refs[i], PLS_NO_RECORD);
        } else {
            assert_filled(fx->store, &refs[i], i); /* under its old name, too */
            assert_ref(now, 1, (uint64_t)i / 3 * 104, 100);
            assert_int_equal(now->crc32c, refs[i].crc32c);
            assert_filled(fx->store, now, i);
        }
    }
    assert_false(file_exists(fx, "s/payload_0000.dat"));
    assert_int_equal(disk_usage(fx->store), n_live * 104);
    assert_int_equal(outcome.summary.live_records, n_live);
    assert_int_equal(outcome.summary.relocated_records, n_live);
    assert_int_equal(outcome.summary.relocated_bytes, n_live * 104);
    assert_int_equal(outcome.summary.kept_segments, 0);
    assert_int_equal(outcome.summary.deleted_segments, 1);
    assert_int_equal(outcome.summary.reclaimed_bytes, (N - n_live) * 104);
    outcome_fini(&outcome);
}

static void what_was_compacted_reads_after_a_restart_and_a_crash(void **state)
{
    enum { N = 12 };
    struct fixture *fx = *state;
    struct pls_ref refs[N];
    put_many(fx->store, refs, N, 1000);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, N, &outcome);
    assert_int_equal(outcome.n_map, N);
    fx_crash(fx);
    for (uint32_t i = 0; i < N; i++) {
        assert_filled(fx->store, moved(&outcome, &refs[i]), i);
    }
    fx_reopen(fx);
    for (uint32_t i = 0; i < N; i++) {
        assert_filled(fx->store, moved(&outcome, &refs[i]), i);
    }
    outcome_fini(&outcome);
}

static void what_was_appended_after_the_seal_stays_where_it_is(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref before = put_text(fx->store, "before");
    struct pls_seal given = seal(fx->store);
    struct pls_ref after = put_text(fx->store, "after");
    struct pls_ref live[] = {after, before};
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 1);
    assert_null(moved(&outcome, &after));
    assert_text(fx->store, &after, "after");
    assert_text(fx->store, moved(&outcome, &before), "before");
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 2, 9, 4); /* the active segment goes on */
    outcome_fini(&outcome);
}

static void a_ref_that_does_not_read_aborts_and_everything_stays(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_ref b = put_text(fx->store, "b");
    seal(fx->store);
    put_text(fx->store, "c");
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 2, 3);
    const struct pls_ref bad[] = {
        {.file_id = 0, .offset = 10, .length = 1}, /* past the end */
        {.file_id = 0, .offset = 1, .length = 1},  /* in the middle */
        {.file_id = 0, .offset = 0, .length = 2},  /* wrong length */
        {.file_id = 1, .offset = 0, .length = 1},  /* no segment */
    };
    struct outcome outcome;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pls_ref live[] = {a, bad[i]};
        compact(fx->store, &given, NULL, live, 2, &outcome);
        assert_int_equal(outcome.code, PLS_LIVE_NO_RECORD);
        char name[32];
        snprintf(name, sizeof name, "%u:%u of %u", bad[i].file_id, (unsigned)bad[i].offset,
                 bad[i].length);
        assert_non_null(strstr(outcome.error.text, name));
    }
    struct pls_ref impossible = {.offset = UINT64_MAX, .length = 1};
    compact(fx->store, &given, NULL, &impossible, 1, &outcome);
    assert_int_equal(outcome.code, PLS_INVALID_REF);
    assert_text(fx->store, &a, "a");
    assert_text(fx->store, &b, "b");
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    /* The handle is still good. */
    compact_ok(fx->store, &given, &a, 1);
}

static void outputs_spill_over_into_the_next_free_ids(void **state)
{
    enum { N = 40 };
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
    struct pls_ref refs[N];
    put_many(fx->store, refs, N, 296); /* 300 a record, 4 a segment */
    assert_int_equal(refs[N - 1].file_id, 9);
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 9, 10);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, N, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    for (uint32_t i = 0; i < N; i++) {
        const struct pls_ref *now = moved(&outcome, &refs[i]);
        assert_filled(fx->store, now, i);
        /* 10 first, then, 11 being the active one, from 12 on. */
        assert_ref(now, i < 4 ? 10 : 11 + i / 4, (uint64_t)(i % 4) * 300, 296);
    }
    /* The next seal covers them all; and a new segment's id is above theirs. */
    struct pls_seal next = seal(fx->store);
    assert_seal(&next, 20, 21);
    struct outcome second;
    struct pls_ref live = *moved(&outcome, &refs[N - 1]);
    compact(fx->store, &next, NULL, &live, 1, &second);
    assert_int_equal(second.code, PLS_OK);
    assert_int_equal(disk_usage(fx->store), 300);
    assert_filled(fx->store, moved(&second, &live), N - 1);
    outcome_fini(&outcome);
    outcome_fini(&second);
}

static void an_output_overshoots_by_at_most_one_record(void **state)
{
    enum { N = 60 };
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
    struct pls_ref refs[N];
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, 1 + (i * 97) % 400, i);
    }
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, N, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    for (uint32_t i = 0; i < N; i++) {
        const struct pls_ref *now = moved(&outcome, &refs[i]);
        assert_true(now->offset <= 1000);
        assert_filled(fx->store, now, i);
    }
    outcome_fini(&outcome);
}

static void records_larger_than_the_copy_buffer_move_too(void **state)
{
    struct fixture *fx = *state;
    const uint32_t sizes[] = {3 * MIB + 5, MIB - 4, MIB - 3, MIB, 7, 2 * MIB - 4, 0, 2 * MIB};
    enum { N = sizeof sizes / sizeof *sizes };
    struct pls_ref refs[N];
    fx->options.segment_max_bytes = 64ull * MIB;
    fx_reopen(fx);
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, sizes[i], i);
    }
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, N, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    for (uint32_t i = 0; i < N; i++) {
        assert_filled(fx->store, moved(&outcome, &refs[i]), i);
        assert_int_equal(moved(&outcome, &refs[i])->crc32c, refs[i].crc32c);
    }
    outcome_fini(&outcome);
}

static void empty_payloads_move(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[200];
    for (size_t i = 0; i < 200; i++) {
        refs[i] = put(fx->store, NULL, 0);
    }
    struct pls_ref live[100];
    size_t n = every(2, refs, 200, live);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, n, &outcome);
    assert_int_equal(outcome.n_map, n);
    assert_int_equal(disk_usage(fx->store), 400);
    for (size_t i = 0; i < n; i++) {
        assert_text(fx->store, moved(&outcome, &live[i]), "");
    }
    outcome_fini(&outcome);
}

static void where_nothing_is_live_nothing_is_made(void **state)
{
    struct fixture *fx = *state;
    for (uint32_t i = 0; i < 5; i++) {
        put_filled(fx->store, MIB, i);
    }
    struct pls_seal given = seal(fx->store);
    struct pls_compact_summary summary = compact_ok(fx->store, &given, NULL, 0);
    assert_int_equal(summary.deleted_segments, 5);
    assert_int_equal(summary.reclaimed_bytes, 5 * (MIB + 4));
    assert_int_equal(file_count(fx, "s", "payload_"), 1); /* the active one */
    assert_int_equal(disk_usage(fx->store), 0);
}

static void a_ref_given_twice_is_one_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_ref live[] = {a, a, a};
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 3, &outcome);
    assert_int_equal(outcome.n_map, 1);
    assert_int_equal(outcome.summary.live_records, 1);
    outcome_fini(&outcome);
}

static void the_number_of_refs_is_checked_where_it_is_given(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal given = seal(fx->store);
    struct pls_ref live[] = {a, a, put_text(fx->store, "beyond")};
    struct pls_compact_options options = {.check_expected_live = true, .expected_live = 2};
    struct outcome outcome;
    compact(fx->store, &given, &options, live, 3, &outcome);
    assert_int_equal(outcome.code, PLS_EXPECTED_LIVE_DIFFERS);
    assert_text(fx->store, &a, "a");
    options.expected_live = 3; /* duplicates counted, and what lies beyond the seal */
    compact(fx->store, &given, &options, live, 3, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
}

static void segments_with_little_garbage_stay(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
    struct pls_ref refs[12];
    put_many(fx->store, refs, 12, 296); /* segments 0, 1, 2 with four records each */
    struct pls_ref live[] = {refs[0], refs[1], refs[2], refs[4], refs[5], refs[8]};
    struct pls_seal given = seal(fx->store); /* garbage: 25 %, 50 %, 75 % */
    struct pls_compact_options options = {.min_garbage_percent = 50};
    struct outcome outcome;
    compact(fx->store, &given, &options, live, 6, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 3);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.summary.deleted_segments, 2);
    assert_int_equal(outcome.summary.live_records, 6);
    assert_null(moved(&outcome, &refs[0]));
    for (uint32_t i = 0; i < 4; i++) {
        assert_filled(fx->store, &refs[i], i); /* the garbage in it, too */
    }
    assert_filled(fx->store, moved(&outcome, &refs[4]), 4);
    assert_filled(fx->store, moved(&outcome, &refs[8]), 8);
    outcome_fini(&outcome);
    options.min_garbage_percent = 101;
    compact(fx->store, &given, &options, live, 6, &outcome);
    assert_int_equal(outcome.code, PLS_INVALID_ARGUMENT);
}

/* To leave a segment in place costs a look into its index, not a walk of its bytes. */
static void refs_in_segments_left_in_place_are_not_read(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
    struct pls_ref refs[4];
    put_many(fx->store, refs, 4, 296);
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0000.dat", refs[2].offset + 50);
    struct pls_compact_options options = {.min_garbage_percent = 50};
    struct outcome outcome;
    compact(fx->store, &given, &options, refs, 4, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.summary.kept_segments, 1);
    outcome_fini(&outcome);
    assert_unreadable(fx->store, &refs[2], PLS_DAMAGED);
    refs[2].length++;
    given = seal(fx->store);
    compact(fx->store, &given, &options, refs, 4, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_NO_RECORD);
    outcome_fini(&outcome);
}

static void small_segments_do_not_pile_up(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "small, and without garbage");
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.min_garbage_percent = 90};
    struct outcome outcome;
    compact(fx->store, &given, &options, &a, 1, &outcome);
    assert_int_equal(outcome.n_map, 1);
    outcome_fini(&outcome);
}

static void a_dry_run_counts_and_changes_nothing(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[10], live[5];
    put_many(fx->store, refs, 10, 100);
    size_t n = every(2, refs, 10, live);
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.dry_run = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, live, n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 0);
    assert_int_equal(outcome.summary.relocated_records, 5);
    assert_int_equal(outcome.summary.deleted_segments, 1);
    assert_int_equal(outcome.summary.reclaimed_bytes, 5 * 104);
    outcome_fini(&outcome);
    for (uint32_t i = 0; i < 10; i++) {
        assert_filled(fx->store, &refs[i], i);
    }
    assert_int_equal(disk_usage(fx->store), 10 * 104);
    struct pls_seal again = seal(fx->store);
    assert_seal(&again, given.sealed_id, given.compaction_id);
    compact_ok(fx->store, &given, live, n);
}

static void a_second_compaction_is_refused_and_touches_nothing(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {0};
    pls_compact *first;
    struct outcome second;
    assert_int_equal(pls_compact_begin(fx->store, &given, &options, &first, NULL), PLS_OK);
    assert_int_equal(pls_compact_live(first, &a, 1, NULL), PLS_OK);
    compact(fx->store, &given, NULL, NULL, 0, &second);
    assert_int_equal(second.code, PLS_COMPACTION_RUNNING);
    assert_int_equal(pls_compact_run(first, NULL, NULL, NULL), PLS_OK);
    struct pls_relocation map[2];
    size_t n;
    assert_int_equal(pls_compact_next_map(first, map, 2, &n), PLS_OK);
    assert_int_equal(n, 1);
    assert_int_equal(pls_compact_next_map(first, map + 1, 1, &n), PLS_OK);
    assert_int_equal(n, 0);
    assert_text(fx->store, &map[0].new_ref, "a");
    /* One that has run is no longer in the way, even while its map is read. */
    struct pls_seal next = seal(fx->store);
    compact_ok(fx->store, &next, &map[0].new_ref, 1);
    pls_compact_destroy(first);
    pls_compact_destroy(NULL);
}

static void a_compaction_that_is_given_up_leaves_the_store_as_it_was(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {0};
    pls_compact *compaction;
    struct pls_relocation map;
    size_t n;
    for (int cancel = 0; cancel < 2; cancel++) {
        assert_int_equal(pls_compact_begin(fx->store, &given, &options, &compaction, NULL), PLS_OK);
        if (cancel) {
            pls_compact_cancel(compaction);
            assert_int_equal(pls_compact_live(compaction, &a, 1, NULL), PLS_OK);
            assert_int_equal(pls_compact_run(compaction, NULL, NULL, NULL), PLS_CANCELLED);
            assert_int_equal(pls_compact_next_map(compaction, &map, 1, &n), PLS_OK);
            assert_int_equal(n, 0);
        }
        pls_compact_destroy(compaction);
        assert_text(fx->store, &a, "a");
        assert_int_equal(file_count(fx, "s", "compact_"), 0);
    }
    compact_ok(fx->store, &given, &a, 1);
}

static void after_a_restart_compaction_walks_the_index_and_moves_the_same(void **state)
{
    enum { N = 20 };
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_many(fx->store, refs, N, 100);
    struct pls_seal given = seal(fx->store);
    fx_crash(fx);
    size_t n = every(2, refs, N, live);
    live[0].crc32c = 0;
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    for (uint32_t i = 0; i < N; i += 2) {
        assert_filled(fx->store, moved(&outcome, &refs[i]), i);
        assert_int_equal(moved(&outcome, &refs[i])->crc32c, refs[i].crc32c);
    }
    outcome_fini(&outcome);
}

static void a_checksum_that_differs_aborts(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "payload");
    struct pls_seal given = seal(fx->store);
    struct pls_ref wrong = a;
    struct outcome outcome;
    wrong.crc32c++;
    compact(fx->store, &given, NULL, &wrong, 1, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    fx_reopen(fx); /* the index does not know it any more: the bytes do */
    compact(fx->store, &given, NULL, &wrong, 1, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    struct pls_ref both[] = {a, wrong};
    compact(fx->store, &given, NULL, both, 2, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    assert_text(fx->store, &a, "payload");
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    compact_ok(fx->store, &given, &a, 1);
}

static void a_reader_keeps_the_bytes_of_a_deleted_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "payload");
    struct pls_seal given = seal(fx->store);
    struct pls_view view;
    assert_int_equal(try_read(fx->store, &a, &view), PLS_OK);
    compact_ok(fx->store, &given, NULL, 0);
    assert_memory_equal(view.data, "payload", 7);
    pls_view_release(&view);
}

static void compaction_after_compaction_gives_the_disk_back(void **state)
{
    enum { N = 50 };
    struct fixture *fx = *state;
    struct pls_ref live[N];
    uint32_t seed = 0;
    for (uint32_t i = 0; i < N; i++) {
        live[i] = put_filled(fx->store, 500, seed++);
    }
    for (int round = 0; round < 10; round++) {
        struct outcome outcome;
        struct pls_seal given = seal(fx->store);
        compact(fx->store, &given, NULL, live, N, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        for (uint32_t i = 0; i < N; i++) {
            const struct pls_ref *now = moved(&outcome, &live[i]);
            live[i] = now != NULL ? *now : live[i];
            assert_filled(fx->store, &live[i], i);
        }
        outcome_fini(&outcome);
        assert_int_equal(disk_usage(fx->store), N * 504);
        assert_int_equal(file_count(fx, "s", "payload_"), 2);
        if (round % 3 == 2) {
            fx_reopen(fx);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(live_records_move_and_dead_ones_go),
        STORE_TEST(what_was_compacted_reads_after_a_restart_and_a_crash),
        STORE_TEST(what_was_appended_after_the_seal_stays_where_it_is),
        STORE_TEST(a_ref_that_does_not_read_aborts_and_everything_stays),
        STORE_TEST(outputs_spill_over_into_the_next_free_ids),
        STORE_TEST(an_output_overshoots_by_at_most_one_record),
        STORE_TEST(records_larger_than_the_copy_buffer_move_too),
        STORE_TEST(empty_payloads_move),
        STORE_TEST(where_nothing_is_live_nothing_is_made),
        STORE_TEST(a_ref_given_twice_is_one_record),
        STORE_TEST(the_number_of_refs_is_checked_where_it_is_given),
        STORE_TEST(segments_with_little_garbage_stay),
        STORE_TEST(refs_in_segments_left_in_place_are_not_read),
        STORE_TEST(small_segments_do_not_pile_up),
        STORE_TEST(a_dry_run_counts_and_changes_nothing),
        STORE_TEST(a_second_compaction_is_refused_and_touches_nothing),
        STORE_TEST(a_compaction_that_is_given_up_leaves_the_store_as_it_was),
        STORE_TEST(after_a_restart_compaction_walks_the_index_and_moves_the_same),
        STORE_TEST(a_checksum_that_differs_aborts),
        STORE_TEST(a_reader_keeps_the_bytes_of_a_deleted_segment),
        STORE_TEST(compaction_after_compaction_gives_the_disk_back),
    };
    return cmocka_run_group_tests_name("store_compact", tests, NULL, NULL);
}
