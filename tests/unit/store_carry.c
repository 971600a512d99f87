/* carry_recent_ms: what was appended shortly before a Seal outlives the compaction, live or not. */
#include "store_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ages.h"
#include "clock.h"
#include "sys.h"

#define SECOND UINT64_C(1000)

static void later(int64_t seconds)
{
    plsi_clock_shift(seconds * 1000);
}

static struct pls_compact_summary carry(struct fixture *fx, const struct pls_seal *given,
                                        uint64_t seconds, const struct pls_ref *live, size_t n)
{
    const struct pls_compact_options options = {.carry_recent_ms = seconds * SECOND};
    struct outcome outcome;
    compact(fx->store, given, &options, live, n, &outcome);
    if (outcome.code != PLS_OK) {
        fail_msg("%s", outcome.error.text);
    }
    assert_int_equal(outcome.summary.live_records, n);
    outcome_fini(&outcome);
    return outcome.summary;
}

static bool reads(struct fixture *fx, const struct pls_ref *ref)
{
    struct pls_view view;
    enum pls_code code = try_read(fx->store, ref, &view);
    if (code != PLS_OK) {
        assert_int_equal(code, PLS_NO_RECORD);
        return false;
    }
    pls_view_release(&view);
    return true;
}

/* -- what is recent ---------------------------------------------------------------------------- */

enum { AGES = 8 };

/* Record i is 10 * (AGES - 1 - i) seconds old at the seal. */
static struct pls_seal ten_seconds_apart(struct fixture *fx, struct pls_ref refs[AGES])
{
    for (uint32_t i = 0; i < AGES; i++) {
        if (i > 0) {
            later(10);
        }
        refs[i] = put_filled(fx->store, 100, i);
    }
    return seal(fx->store);
}

static void what_is_older_goes_and_what_is_younger_stays(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    struct pls_compact_summary summary = carry(fx, &given, 35, NULL, 0);
    for (uint32_t i = 0; i < AGES; i++) {
        assert_int_equal(reads(fx, &refs[i]), i >= 4);
    }
    assert_int_equal(summary.relocated_records, 4);
    assert_int_equal(summary.relocated_bytes, 4 * 104);
    assert_int_equal(disk_usage(fx->store), 4 * 104);
    fx_reopen(fx);
    assert_filled(fx->store, &refs[4], 4);
    assert_unreadable(fx->store, &refs[3], PLS_NO_RECORD);
}

static void without_it_nothing_is_carried(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "young");
    struct pls_seal given = seal(fx->store);
    carry(fx, &given, 0, NULL, 0);
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

static void within_a_second_the_younger_ones_take_the_older_ones_along(void **state)
{
    struct fixture *fx = *state;
    plsi_clock_shift(1000 - plsi_now_ms() % 1000); /* a second begins */
    put_text(fx->store, "older");
    plsi_clock_shift(300);
    put_text(fx->store, "younger");
    later(60);
    put_text(fx->store, "youngest");
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {.carry_recent_ms = 60000};
    struct outcome outcome;
    compact(fx->store, &given, &options, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 0);
    assert_int_equal(outcome.summary.relocated_records, 3);
    outcome_fini(&outcome);
}

/* Between the ages' being taken and the segment's being frozen, appends go on. */
static void what_is_appended_while_sealing_is_young(void **state)
{
    struct fixture *fx = *state;
    struct plsi_runs ages = {0};
    struct pls_ref old = put_text(fx->store, "old");
    later(100);
    pthread_mutex_lock(&fx->store->admin);
    assert_int_equal(plsi_ages_write(fx->store, 0, plsi_now_ms(), NULL), PLS_OK);
    pthread_mutex_unlock(&fx->store->admin);
    struct pls_ref young = put_text(fx->store, "young");
    plsi_ages_read(fx->store, 0, NULL, &ages);
    size_t run = plsi_runs_find(&ages, old.file_id, old.offset);
    assert_int_equal(ages.at[run].ms, -100000);
    run = plsi_runs_find(&ages, young.file_id, young.offset);
    assert_int_equal(ages.at[run].ms, 0);
    plsi_runs_fini(&ages);
}

/* Two segments a second: each has its own runs. */
static void many_segments_are_told_apart(void **state)
{
    enum { N = 30 };
    struct fixture *fx = *state;
    struct pls_ref refs[N];
    fx->options.segment_max_bytes = 100;
    fx_reopen(fx);
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, 150, i);
        later(i % 2);
    }
    assert_int_equal(refs[N - 1].file_id, N - 1);
    struct pls_seal given = seal(fx->store); /* 29 and 28 a second old, 1 and 0 fifteen */
    struct pls_compact_summary summary = carry(fx, &given, 5, &refs[3], 1);
    assert_int_equal(summary.relocated_records, 11);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(reads(fx, &refs[i]), i == 3 || i >= 20);
    }
}

/* As many seconds as do not fit into the file, nor into memory: rounding goes to carrying more. */
static void days_of_appends_are_thinned_out_towards_carrying_more(void **state)
{
    enum { N = 3000 };
    struct fixture *fx = *state;
    for (uint32_t i = 0; i < N; i++) {
        put_filled(fx->store, 1, i);
        later(i < N / 2 ? 100 : 1);
    }
    assert_true(fx->store->active->recent.runs.n <= PLSI_RECENT_MAX);
    for (unsigned seconds = 10; seconds <= 1000; seconds *= 10) {
        struct pls_seal given = seal(fx->store);
        const struct pls_compact_options options = {.carry_recent_ms = seconds * SECOND,
                                                    .dry_run = true};
        struct outcome outcome;
        compact(fx->store, &given, &options, NULL, 0, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        assert_in_range(outcome.summary.relocated_records, seconds, seconds * 3 / 2 + 5);
        outcome_fini(&outcome);
    }
}

/* -- what is counted and answered -------------------------------------------------------------- */

static void carried_records_are_in_no_map_and_no_count_of_live_ones(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref given_ref = put_text(fx->store, "given"), other = put_text(fx->store, "other");
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {
        .carry_recent_ms = SECOND * 60, .check_expected_live = true, .expected_live = 1};
    struct outcome outcome, again;
    compact(fx->store, &given, &options, &given_ref, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 1);
    assert_non_null(moved(&outcome, &given_ref));
    assert_int_equal(outcome.summary.live_records, 1);
    assert_int_equal(outcome.summary.relocated_records, 2);
    assert_text(fx->store, &other, "other");
    /* The answer is lost, and the caller has heard of the other one meanwhile. */
    const struct pls_ref both[] = {given_ref, other};
    compact(fx->store, &given, NULL, both, 2, &again);
    assert_int_equal(again.code, PLS_OK);
    assert_int_equal(again.n_map, 1);
    assert_memory_equal(&again.summary, &outcome.summary, sizeof again.summary);
    outcome_fini(&outcome);
    outcome_fini(&again);
}

static void a_dry_run_counts_them_and_changes_nothing(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    const struct pls_compact_options options = {.carry_recent_ms = 35 * SECOND, .dry_run = true};
    struct outcome outcome;
    compact(fx->store, &given, &options, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.summary.relocated_records, 4);
    assert_int_equal(outcome.summary.live_records, 0);
    outcome_fini(&outcome);
    assert_filled(fx->store, &refs[0], 0);
}

/* 600 KiB of 1 MiB: not small. All of it is recent, and so none of it garbage. */
static void carried_records_are_no_garbage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 600 * KIB, 1);
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {.carry_recent_ms = 60 * SECOND,
                                                .min_garbage_percent = 10};
    struct outcome outcome;
    compact(fx->store, &given, &options, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.summary.kept_segments, 1);
    outcome_fini(&outcome);
    assert_filled(fx->store, &ref, 1);
    later(100);
    put_text(fx->store, "x");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

/* -- over several compactions ------------------------------------------------------------------ */

static void a_carried_record_keeps_its_first_time(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    later(30);
    struct pls_ref b = put_text(fx->store, "b"), live = put_text(fx->store, "live");
    struct pls_seal given = seal(fx->store);
    carry(fx, &given, 60, &live, 1); /* ages 30 and 0: both go on */
    later(20);
    struct pls_ref c = put_text(fx->store, "c");
    given = seal(fx->store);
    carry(fx, &given, 60, &live, 1); /* 50, 20 and 0 */
    assert_text(fx->store, &a, "a");
    assert_text(fx->store, &b, "b");
    later(20);
    given = seal(fx->store);
    struct pls_compact_summary summary = carry(fx, &given, 60, &live, 1); /* 70, 40 and 20 */
    assert_unreadable(fx->store, &a, PLS_NO_RECORD);
    assert_text(fx->store, &b, "b");
    assert_text(fx->store, &c, "c");
    assert_text(fx->store, &live, "live");
    assert_int_equal(summary.relocated_records, 3);
    later(41);
    put_text(fx->store, "d");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0); /* 111, 81 and 61 */
    assert_unreadable(fx->store, &b, PLS_NO_RECORD);
    assert_unreadable(fx->store, &c, PLS_NO_RECORD);
    assert_unreadable(fx->store, &live, PLS_NO_RECORD);
}

/* The outputs are cut elsewhere than the sources were, and dead records have gone between. */
static void first_times_are_kept_across_outputs_of_another_shape(void **state)
{
    enum { N = 60 };
    struct fixture *fx = *state;
    struct pls_ref refs[N];
    fx->options.segment_max_bytes = 500;
    fx_reopen(fx);
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, 20 + i * 7 % 90, i);
        later(2);
    }
    for (unsigned round = 0; round < 4; round++) {
        struct pls_seal given = seal(fx->store);
        /* Ages are 2 * (N - i) and more: what is 100 s old at each seal goes. */
        carry(fx, &given, 99, NULL, 0);
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(reads(fx, &refs[i]), 2 * (N - i) + 24 * round <= 99);
        }
        later(24);
        put_text(fx->store, "so that the next seal is a new one");
    }
}

/* A caller that was told of a record late gives it by the name it was told. */
static void a_carried_name_counts_as_live_when_it_is_given_later(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "late");
    struct pls_seal given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    later(100);
    put_text(fx->store, "x");
    given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, &ref, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_text(fx->store, moved(&outcome, &ref), "late");
    assert_text(fx->store, &ref, "late");
    outcome_fini(&outcome);
}

/* -- restarts ---------------------------------------------------------------------------------- */

static void what_a_restart_leaves_undated_is_carried_once(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "from before");
    later(100000);
    fx_reopen(fx); /* the segment goes on being active */
    struct pls_ref old = put_text(fx->store, "old");
    assert_int_equal(old.file_id, ref.file_id);
    later(100);
    struct pls_ref young = put_text(fx->store, "young");
    struct pls_seal given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    assert_text(fx->store, &ref, "from before");
    assert_unreadable(fx->store, &old, PLS_NO_RECORD);
    assert_text(fx->store, &young, "young");
    put_text(fx->store, "x");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    assert_text(fx->store, &young, "young");
    fx_reopen(fx);
    put_text(fx->store, "y");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0); /* carried before the restart: known by the table */
    assert_unreadable(fx->store, &young, PLS_NO_RECORD);
}

static void a_segment_that_stayed_in_place_was_carried_too(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 600 * KIB, 1);
    fx_reopen(fx);
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {.carry_recent_ms = SECOND,
                                                .min_garbage_percent = 100};
    struct outcome outcome;
    compact(fx->store, &given, &options, NULL, 0, &outcome);
    assert_int_equal(outcome.summary.kept_segments, 1);
    outcome_fini(&outcome);
    fx_reopen(fx);
    put_text(fx->store, "x");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

/* The ages of a handle are of its Seal, however much later the machine is up again. */
static void a_handle_of_an_earlier_run_keeps_its_ages(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    later(100000);
    fx_crash(fx);
    carry(fx, &given, 35, NULL, 0);
    for (uint32_t i = 0; i < AGES; i++) {
        assert_int_equal(reads(fx, &refs[i]), i >= 4);
    }
}

static void sealing_again_keeps_the_first_ages(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    later(1000);
    struct pls_seal again = seal(fx->store);
    assert_seal(&again, given.sealed_id, given.compaction_id);
    carry(fx, &again, 35, NULL, 0);
    assert_filled(fx->store, &refs[4], 4);
    assert_unreadable(fx->store, &refs[3], PLS_NO_RECORD);
}

/* Its bytes are in no index, but by a ref with a checksum they may read. */
static void a_recent_tail_in_no_index_stays(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    fx_crash(fx);
    file_write(fx, "s/payload_0000.dat", 7, "\xff\xff\xff\x7f???", 7);
    fx_crash(fx);
    struct pls_seal given = seal(fx->store);
    struct pls_compact_summary summary = carry(fx, &given, 1, NULL, 0);
    assert_int_equal(summary.kept_segments, 1);
    assert_true(fx_logged(fx, "recent_tail: segment 0"));
    put_text(fx->store, "x");
    given = seal(fx->store);
    summary = carry(fx, &given, 1, NULL, 0);
    assert_int_equal(summary.kept_segments, 0);
}

/* -- the file ---------------------------------------------------------------------------------- */

static void assert_everything_is_recent(struct fixture *fx, const struct pls_seal *given,
                                        const struct pls_ref *old, const char *why)
{
    carry(fx, given, 1, NULL, 0);
    assert_filled(fx->store, old, 0);
    assert_true(fx_logged(fx, why));
}

static void without_its_file_all_of_a_handle_is_recent(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    char path[PATH_MAX + 32];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    snprintf(path, sizeof path, "%s/s/seal_0000.ages", fx->path);
    assert_int_equal(remove(path), 0);
    assert_everything_is_recent(fx, &given, &refs[0], "seal_0000.ages is missing");
}

static void with_a_file_of_another_version_too(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    file_flip(fx, "s/seal_0000.ages", 8);
    fx_crash(fx);
    assert_everything_is_recent(fx, &given, &refs[0], "seal_0000.ages is of a version unknown");
}

static void with_any_byte_of_it_flipped_too(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    const struct pls_compact_options options = {.carry_recent_ms = SECOND, .dry_run = true};
    uint64_t size = file_size(fx, "s/seal_0000.ages");
    for (uint64_t i = 0; i <= size; i++) {
        struct outcome outcome;
        if (i < size) {
            file_flip(fx, "s/seal_0000.ages", i);
        }
        compact(fx->store, &given, &options, NULL, 0, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        assert_int_equal(outcome.summary.relocated_records, i < size ? AGES : 1);
        outcome_fini(&outcome);
        if (i < size) {
            file_flip(fx, "s/seal_0000.ages", i);
        }
    }
    file_cut(fx, "s/seal_0000.ages", 10);
    assert_everything_is_recent(fx, &given, &refs[0], "seal_0000.ages is damaged");
}

static void a_file_that_cannot_be_read_now_loses_nothing(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal given = ten_seconds_apart(fx, refs);
    plsi_sys_fail_at(1, EIO);
    assert_everything_is_recent(fx, &given, &refs[0], "seal_0000.ages cannot be read");
    plsi_sys_fail_at(0, 0);
}

/* Ages that were taken before other records moved say nothing of where these are now. */
static void after_another_compaction_all_of_an_older_seal_is_recent(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[AGES];
    struct pls_seal first = ten_seconds_apart(fx, refs);
    put_text(fx->store, "between");
    struct pls_seal second = seal(fx->store);
    carry(fx, &first, 35, &refs[0], 1);
    const struct pls_ref live = refs[0];
    carry(fx, &second, 1, &live, 1);
    assert_filled(fx->store, &refs[0], 0);
    assert_filled(fx->store, &refs[4], 4);
    assert_true(fx_logged(fx, "is from before the last compaction"));
}

static void the_file_goes_with_its_handle(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal given[3];
    for (int i = 0; i < 3; i++) {
        put_text(fx->store, "x");
        given[i] = seal(fx->store);
    }
    assert_int_equal(file_count(fx, "s", "seal_"), 3);
    carry(fx, &given[1], 1, NULL, 0);
    assert_int_equal(file_count(fx, "s", "seal_"), 1);
    carry(fx, &given[2], 1, NULL, 0);
    assert_int_equal(file_count(fx, "s", "seal_"), 0);
    put_text(fx->store, "x");
    given[0] = seal(fx->store);
    pls_store_release(fx->store);
    fx->store = NULL;
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, NULL, NULL), PLS_OK);
    assert_int_equal(file_count(fx, "s", "seal_"), 0);
    assert_int_equal(pls_store_open(fx->dir, "s", 0, &fx->store, NULL), PLS_OK);
}

static void no_more_files_than_open_handles(void **state)
{
    struct fixture *fx = *state;
    plsi_sys_pretend_syncs(true);
    for (int i = 0; i < PLSI_OPEN_SEALS_MAX + 5; i++) {
        put_text(fx->store, "x");
        seal(fx->store);
    }
    plsi_sys_pretend_syncs(false);
    assert_int_equal(file_count(fx, "s", "seal_"), PLSI_OPEN_SEALS_MAX);
}

static void strays_go_at_open_and_what_is_not_ours_stays(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "x");
    struct pls_seal given = seal(fx->store);
    file_write(fx, "s/seal_0000.ages.tmp", 0, "half", 4);
    file_write(fx, "s/seal_0007.ages", 0, "stray", 5);
    file_write(fx, "s/seal_7.ages", 0, "not ours", 8);
    file_write(fx, "s/seal_of_approval", 0, "not ours", 8);
    file_write(fx, "foreign/payload_0000.dat", 0, "\1\0\0\0x", 5);
    file_write(fx, "foreign/seal_0007.ages", 0, "not ours", 8);
    fx_reopen(fx);
    assert_int_equal(file_count(fx, "s", "seal_"), 3);
    assert_true(file_exists(fx, "s/seal_0000.ages"));
    assert_false(file_exists(fx, "s/seal_0007.ages"));
    assert_true(file_exists(fx, "foreign/seal_0007.ages"));
    carry(fx, &given, 1, NULL, 0);
}

/* A seal that fails at any of its calls leaves no ages behind, and its records are not lost. */
static void a_seal_cut_anywhere_leaves_no_stray(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal given;
    bool reached = true;
    for (long n = 1; reached; n++) {
        struct pls_ref ref = put_text(fx->store, "young");
        plsi_sys_fail_from(n, EIO);
        pls_store_seal(fx->store, 0, &given, NULL);
        reached = plsi_sys_calls() >= n;
        plsi_sys_fail_at(0, 0);
        pls_store_release(fx->store);
        pls_dir_close(fx->dir); /* a sync may have failed on another thread: it says so */
        fx_open(fx);
        assert_int_equal(file_count(fx, "s", "seal_"), fx->store->state.n_open);
        given = seal(fx->store);
        carry(fx, &given, 1, NULL, 0);
        assert_text(fx->store, &ref, "young");
    }
}

/* -- damage ------------------------------------------------------------------------------------ */

static void a_carried_record_that_is_damaged_stays_where_it_is(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref bad = put_text(fx->store, "damaged"), good = put_text(fx->store, "good");
    file_flip(fx, "s/payload_0000.dat", bad.offset + 5);
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.carry_recent_ms = SECOND, .keep_damaged = true};
    struct outcome outcome;
    options.dry_run = true;
    compact(fx->store, &given, &options, &good, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_ref(&outcome.damaged[0].ref, bad.file_id, bad.offset, bad.length);
    outcome_fini(&outcome);
    struct pls_compact_summary summary = carry(fx, &given, 1, &good, 1);
    assert_int_equal(summary.kept_segments, 1);
    assert_text(fx->store, &good, "good");
    assert_unreadable(fx->store, &bad, PLS_DAMAGED);
    assert_true(fx_logged(fx, "damaged: a recent record"));
}

/* Names in a block that does not read any more are no reason to stop compacting for ever. */
static void a_damaged_table_does_not_stand_in_the_way(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    struct pls_seal given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    file_flip(fx, "s/relocations.tab", 4096); /* before a read brings the block into the cache */
    assert_unreadable(fx->store, &a, PLS_DAMAGED);
    put_text(fx->store, "x");
    given = seal(fx->store);
    carry(fx, &given, 60, NULL, 0);
    assert_true(fx_logged(fx, "damaged: the relocation table"));
}

/* -- runs -------------------------------------------------------------------------------------- */

static void thinning_never_makes_a_record_older(void **state)
{
    enum { N = 1000 };
    (void)state;
    for (size_t seed = 1; seed < 50; seed++) {
        struct plsi_runs runs = {0};
        int64_t moments[N], now = 50000000;
        uint64_t x = seed;
        for (uint32_t i = 0; i < N; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            moments[i] = (int64_t)((x >> 33) % 40000000) >> (x >> 60);
            moments[i] = (x >> 40) % 50 == 0   ? PLSI_UNDATED
                         : (x >> 40) % 50 == 1 ? PLSI_NOT_RECENT
                                               : moments[i];
            assert_true(plsi_runs_add(&runs, i / 10, i, moments[i]));
        }
        plsi_runs_thin(&runs, 20 * seed, now);
        assert_in_range(runs.n, 1, 20 * seed);
        for (uint32_t i = 0; i < N; i++) {
            assert_true(runs.at[plsi_runs_find(&runs, i / 10, i)].ms >= moments[i]);
        }
        plsi_runs_fini(&runs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(what_is_older_goes_and_what_is_younger_stays),
        STORE_TEST(without_it_nothing_is_carried),
        STORE_TEST(within_a_second_the_younger_ones_take_the_older_ones_along),
        STORE_TEST(what_is_appended_while_sealing_is_young),
        STORE_TEST(many_segments_are_told_apart),
        STORE_TEST(days_of_appends_are_thinned_out_towards_carrying_more),
        STORE_TEST(carried_records_are_in_no_map_and_no_count_of_live_ones),
        STORE_TEST(a_dry_run_counts_them_and_changes_nothing),
        STORE_TEST(carried_records_are_no_garbage),
        STORE_TEST(a_carried_record_keeps_its_first_time),
        STORE_TEST(first_times_are_kept_across_outputs_of_another_shape),
        STORE_TEST(a_carried_name_counts_as_live_when_it_is_given_later),
        STORE_TEST(what_a_restart_leaves_undated_is_carried_once),
        STORE_TEST(a_segment_that_stayed_in_place_was_carried_too),
        STORE_TEST(a_handle_of_an_earlier_run_keeps_its_ages),
        STORE_TEST(sealing_again_keeps_the_first_ages),
        STORE_TEST(a_recent_tail_in_no_index_stays),
        STORE_TEST(without_its_file_all_of_a_handle_is_recent),
        STORE_TEST(with_a_file_of_another_version_too),
        STORE_TEST(with_any_byte_of_it_flipped_too),
        STORE_TEST(a_file_that_cannot_be_read_now_loses_nothing),
        STORE_TEST(after_another_compaction_all_of_an_older_seal_is_recent),
        STORE_TEST(the_file_goes_with_its_handle),
        STORE_TEST(no_more_files_than_open_handles),
        STORE_TEST(strays_go_at_open_and_what_is_not_ours_stays),
        STORE_TEST(a_seal_cut_anywhere_leaves_no_stray),
        STORE_TEST(a_carried_record_that_is_damaged_stays_where_it_is),
        STORE_TEST(a_damaged_table_does_not_stand_in_the_way),
        STORE_TEST(thinning_never_makes_a_record_older),
    };
    plsi_clock_stop();
    return cmocka_run_group_tests_name("store_carry", tests, NULL, NULL);
}
