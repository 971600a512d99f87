/* Compaction of segments that are damaged: it aborts, or reports and keeps them. */
#include "store_fixture.h"

static void open_small(struct fixture *fx)
{
    fx->options.segment_max_bytes = 1000;
    fx_reopen(fx);
}

/* Four records of 300 bytes a segment. */
static void put_segments(pls_store *store, struct pls_ref *refs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = put_filled(store, 296, i);
    }
}

static void a_damaged_live_record_aborts_and_everything_stays(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[8];
    open_small(fx);
    put_segments(fx->store, refs, 8);
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0001.dat", 310);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, 8, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    for (uint32_t i = 0; i < 8; i++) {
        if (i != 5) {
            assert_filled(fx->store, &refs[i], i);
        }
    }
    assert_unreadable(fx->store, &refs[5], PLS_DAMAGED);
    /* Not live, it harms nothing. */
    refs[5] = refs[4];
    compact_ok(fx->store, &given, refs, 8);
}

static void keep_damaged_keeps_the_segment_and_compacts_the_rest(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[12];
    open_small(fx);
    put_segments(fx->store, refs, 12);
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0001.dat", 310); /* record 5 */
    file_flip(fx, "s/payload_0001.dat", 910); /* record 7 */
    struct pls_compact_options options = {.keep_damaged = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, refs, 12, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct pls_ref *ref = &outcome.damaged[i].ref;
        assert_int_equal(outcome.damaged[i].code, PLS_LIVE_DAMAGED);
        assert_ref(ref, 1, i == 0 ? 300 : 900, 296);
        assert_int_equal(ref->crc32c, refs[5 + 2 * i].crc32c);
    }
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.summary.deleted_segments, 2);
    assert_int_equal(outcome.n_map, 8);
    for (uint32_t i = 0; i < 12; i++) {
        bool stays = refs[i].file_id == 1;
        assert_int_equal(moved(&outcome, &refs[i]) == NULL, stays);
        if (i != 5 && i != 7) {
            assert_filled(fx->store, stays ? &refs[i] : moved(&outcome, &refs[i]), i);
        }
    }
    assert_int_equal(disk_usage(fx->store), 12 * 300);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    outcome_fini(&outcome);
}

/* The good records of the damaged segment had been copied before the bad one came. */
static void nothing_of_a_kept_segment_stays_in_the_outputs(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 8ull * MIB;
    fx_reopen(fx);
    struct pls_ref refs[8];
    for (uint32_t i = 0; i < 8; i++) {
        refs[i] = put_filled(fx->store, 3 * MIB, i); /* three a segment */
    }
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0001.dat", refs[5].offset + 2 * MIB);
    /* The first segment leaves room in its output, for the second one's records and for the last's.
     */
    struct pls_ref live[] = {refs[0], refs[3], refs[4], refs[5], refs[6], refs[7]};
    struct pls_compact_options options = {.keep_damaged = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, live, 6, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.n_map, 3);
    const uint32_t moves[] = {0, 6, 7};
    for (uint32_t i = 0; i < 3; i++) {
        const struct pls_ref *now = moved(&outcome, &refs[moves[i]]);
        assert_ref(now, given.compaction_id, i * (3 * MIB + 4), 3 * MIB);
        assert_filled(fx->store, now, moves[i]);
    }
    assert_filled(fx->store, &refs[3], 3);
    assert_filled(fx->store, &refs[4], 4);
    assert_unreadable(fx->store, &refs[5], PLS_DAMAGED);
    assert_int_equal(disk_usage(fx->store), 6 * (3 * MIB + 4));
    outcome_fini(&outcome);
}

static void a_ref_without_a_record_is_reported_and_holds_no_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal given = seal(fx->store);
    struct pls_ref live[] = {a, {.file_id = 0, .offset = 77, .length = 1}};
    struct pls_compact_options options = {.keep_damaged = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, live, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.damaged[0].code, PLS_LIVE_NO_RECORD);
    assert_ref(&outcome.damaged[0].ref, 0, 77, 1);
    assert_text(fx->store, moved(&outcome, &a), "a");
    outcome_fini(&outcome);
}

static void a_damaged_segment_does_not_stop_reclaiming_for_ever(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref bad = put_text(fx->store, "bad");
    struct pls_compact_options options = {.keep_damaged = true};
    struct outcome outcome;
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0000.dat", 5);
    for (uint32_t round = 0; round < 3; round++) {
        put_filled(fx->store, 1000, round);
        given = seal(fx->store);
        compact(fx->store, &given, &options, &bad, 1, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        assert_int_equal(outcome.n_damaged, 1);
        assert_int_equal(outcome.summary.kept_segments, 1);
        outcome_fini(&outcome);
        assert_int_equal(disk_usage(fx->store), 7);
    }
    /* Once nobody needs the record, it goes. */
    put_text(fx->store, "x");
    given = seal(fx->store);
    compact_ok(fx->store, &given, NULL, 0);
    assert_int_equal(disk_usage(fx->store), 0);
}

static void a_dry_run_reports_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref bad = put_text(fx->store, "bad");
    struct pls_seal given = seal(fx->store);
    file_flip(fx, "s/payload_0000.dat", 5);
    struct pls_compact_options options = {.dry_run = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, &bad, 1, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    options.keep_damaged = true;
    compact(fx->store, &given, &options, &bad, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    outcome_fini(&outcome);
}

/* Behind a bad length prefix, where there is no index, nobody knows where records begin, but by
 * refs that carry a checksum. */
static void a_live_record_behind_a_bad_one_keeps_its_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "first");
    struct pls_ref b = put_text(fx->store, "second");
    struct pls_ref c = put_text(fx->store, "third");
    struct pls_seal given = seal(fx->store);
    fx_close(fx);
    file_write(fx, "s/payload_0000.dat", b.offset, "\377\377\377\377", 4);
    file_remove(fx, "s/index_0000.idx");
    fx_open(fx);
    struct pls_ref live[] = {a, c};
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 0);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.summary.live_records, 2);
    assert_text(fx->store, &a, "first");
    assert_text(fx->store, &c, "third");
    outcome_fini(&outcome);
}

static void a_live_ref_that_cannot_be_checked_keeps_its_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "first");
    struct pls_ref b = put_text(fx->store, "second");
    struct pls_seal given = seal(fx->store);
    fx_close(fx);
    file_write(fx, "s/payload_0000.dat", a.offset, "\377\377\377\377", 4);
    file_remove(fx, "s/index_0000.idx");
    fx_open(fx);
    struct pls_ref bare = b;
    bare.crc32c = 0;
    struct pls_compact_options options = {.keep_damaged = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, &bare, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_text(fx->store, &b, "second");
    outcome_fini(&outcome);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_damaged_live_record_aborts_and_everything_stays),
        STORE_TEST(keep_damaged_keeps_the_segment_and_compacts_the_rest),
        STORE_TEST(nothing_of_a_kept_segment_stays_in_the_outputs),
        STORE_TEST(a_ref_without_a_record_is_reported_and_holds_no_segment),
        STORE_TEST(a_damaged_segment_does_not_stop_reclaiming_for_ever),
        STORE_TEST(a_dry_run_reports_damage),
        STORE_TEST(a_live_record_behind_a_bad_one_keeps_its_segment),
        STORE_TEST(a_live_ref_that_cannot_be_checked_keeps_its_segment),
    };
    return cmocka_run_group_tests_name("store_damage", tests, NULL, NULL);
}
