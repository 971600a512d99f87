/*
 * System calls that fail: each in turn, over a script of everything a store does.
 *
 * After each failure nothing may have crashed or leaked, every append that was answered reads back,
 * now and after a restart without failures, and what was not answered harms nothing.
 */
#include "store_fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "store.h"
#include "sys.h"
#include "work_dir.h"

/* -- the script -- */

enum { RECORDS = 40 };

/* What the script was promised. */
struct promised {
    struct pls_ref refs[RECORDS]; /* by seed */
    bool answered[RECORDS];
    bool compacted; /* the compaction has answered, and the map is worked in */
    unsigned lost;  /* answered, and does not read */
};

static size_t size_of(uint32_t seed)
{
    return 1 + (size_t)seed * 53 % 300;
}

static void append_some(pls_store *store, struct promised *promised, uint32_t from, uint32_t to)
{
    uint8_t data[301];
    for (uint32_t i = from; i < to; i++) {
        fill(data, size_of(i), i);
        promised->answered[i] =
            try_append(store, data, size_of(i), i % 2 == 0 ? PLS_SYNCED : PLS_BUFFERED,
                       &promised->refs[i]) == PLS_OK;
    }
}

/* Keeps every other record below `n`, and all from number `recent` on. */
static void compact_some(pls_store *store, struct promised *promised, uint32_t recent, uint32_t n)
{
    const struct pls_compact_options options = {.carry_recent_ms = recent < n ? 600000 : 0};
    struct pls_seal given;
    struct pls_ref live[RECORDS];
    size_t n_live = 0;
    if (pls_store_seal(store, 0, &given, NULL) != PLS_OK) {
        return;
    }
    for (uint32_t i = 0; i < n; i += 2) {
        if (promised->answered[i]) {
            live[n_live++] = promised->refs[i];
        }
    }
    struct outcome outcome;
    compact(store, &given, &options, live, n_live, &outcome);
    for (uint32_t i = 0; outcome.code == PLS_OK && i < n; i++) {
        if (!promised->answered[i]) {
            continue; /* its ref may be another's */
        }
        const struct pls_ref *now = moved(&outcome, &promised->refs[i]);
        bool below = promised->refs[i].file_id <= given.sealed_id;
        if (now != NULL) {
            promised->refs[i] = *now;
        } else if (below && i < recent) {
            promised->answered[i] = false; /* was garbage, and is gone */
        }
    }
    /* Committed, or perhaps committed, without a map: live records read by their old names, dead
     * ones may be gone. */
    bool perhaps = outcome.committed || atomic_load(&store->stopped_writing);
    for (uint32_t i = 1; outcome.code != PLS_OK && perhaps && i < recent; i += 2) {
        promised->answered[i] &= promised->refs[i].file_id > given.sealed_id;
    }
    promised->compacted |= outcome.code == PLS_OK;
    outcome_fini(&outcome);
}

static void check_all(pls_store *store, struct promised *promised)
{
    for (uint32_t i = 0; i < RECORDS; i++) {
        if (promised->answered[i] && !reads_filled(store, &promised->refs[i], i)) {
            promised->lost++;
        }
    }
}

static void run_session(const char *path, const struct pls_options *options,
                        struct promised *promised, uint32_t from)
{
    pls_dir *dir;
    pls_store *store;
    struct pls_stat stat;
    if (pls_dir_open(path, options, &dir, NULL) != PLS_OK) {
        return;
    }
    if (pls_store_open(dir, "s", 0, &store, NULL) == PLS_OK) {
        append_some(store, promised, from, from + 12);
        compact_some(store, promised, from, from + 12);
        append_some(store, promised, from + 12, from + 20);
        if (pls_store_stat(store, &stat, NULL) == PLS_OK) {
            pls_stat_fini(&stat);
        }
        pls_store_release(store);
    }
    if (pls_store_open(dir, "other", 0, &store, NULL) == PLS_OK) {
        pls_store_release(store);
        pls_store_delete(dir, "other", 0, NULL, NULL);
    }
    pls_dir_close(dir);
}

struct fault {
    const char *name;
    void (*arm)(long countdown, int error);
    int error;
};

static void open_or_fail(const char *path, const struct pls_options *options, const char *when,
                         pls_dir **dir, pls_store **store)
{
    struct pls_error why;
    if (pls_dir_open(path, options, dir, &why) != PLS_OK ||
        pls_store_open(*dir, "s", 0, store, &why) != PLS_OK) {
        fail_msg("after %s: %s", when, why.text);
    }
}

/* Without failures: what was promised is there, and everything works again. */
static void check_afterwards(const char *path, const struct pls_options *options, const char *when,
                             struct promised *promised)
{
    pls_dir *dir = NULL;
    pls_store *store = NULL;
    open_or_fail(path, options, when, &dir, &store);
    check_all(store, promised);
    struct pls_ref ref = put_text(store, "afterwards");
    assert_text(store, &ref, "afterwards");
    promised->compacted = false;
    compact_some(store, promised, RECORDS, RECORDS);
    check_all(store, promised);
    pls_store_release(store);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
    open_or_fail(path, options, when, &dir, &store);
    check_all(store, promised);
    pls_store_release(store);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
    if (promised->lost > 0 || !promised->compacted) {
        fail_msg("%s lost %u records; compaction %s afterwards", when, promised->lost,
                 promised->compacted ? "works" : "does not work");
    }
}

/* One run with a failure at call number n; false once there were fewer calls. */
static bool run_with_fault(const char *below, const struct pls_options *options,
                           const struct fault *fault, long n)
{
    char path[PATH_MAX], when[64];
    struct promised promised = {0};
    snprintf(when, sizeof when, "%s at call %ld", fault->name, n);
    assert_true(snprintf(path, sizeof path, "%s/%ld", below, n) < (int)sizeof path);
    fault->arm(n, fault->error);
    run_session(path, options, &promised, 0);
    run_session(path, options, &promised, 20);
    bool reached = plsi_sys_calls() >= n;
    plsi_sys_fail_at(0, 0);
    check_afterwards(path, options, when, &promised);
    work_dir_remove(path);
    return reached;
}

static void run_all(struct fixture *fx, const struct fault *fault)
{
    fx->options.segment_max_bytes = 500;
    fx->options.log = NULL;
    fx_close(fx);
    plsi_sys_pretend_syncs(true);
    long n = 1;
    while (run_with_fault(fx->path, &fx->options, fault, n)) {
        n++;
    }
    plsi_sys_pretend_syncs(false);
    assert_true(n > 100);
}

static void no_failing_call_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"EIO", plsi_sys_fail_at, EIO});
}

static void no_full_disk_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"ENOSPC", plsi_sys_fail_at, ENOSPC});
}

static void no_interrupted_call_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"EINTR", plsi_sys_fail_at, EINTR});
}

static void no_short_transfer_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"a short transfer", plsi_sys_fail_at, 0});
}

static void no_crash_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"a crash", plsi_sys_fail_from, EIO});
}

static void no_disk_that_stays_full_loses_what_was_answered(void **state)
{
    run_all(*state, &(struct fault){"a disk full for good", plsi_sys_fail_from, ENOSPC});
}

/* -- single failures, looked at -- */

/* Where nothing fails, a BUFFERED append makes one call, the write; a SYNCED one two. */
static void a_full_disk_leaves_no_trace_and_the_next_append_works(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc"), ref;
    plsi_sys_fail_at(1, ENOSPC);
    assert_int_equal(try_append(fx->store, "lost", 4, PLS_BUFFERED, &ref), PLS_NO_SPACE);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7);
    struct pls_ref b = put_text(fx->store, "def");
    assert_ref(&b, 0, 7, 3); /* contiguous, in the same segment */
    assert_text(fx->store, &a, "abc");
    assert_text(fx->store, &b, "def");
}

static void a_write_cut_short_is_finished(void **state)
{
    struct fixture *fx = *state;
    plsi_sys_fail_at(1, 0);
    struct pls_ref a = put_filled(fx->store, 1000, 1);
    plsi_sys_fail_at(1, EINTR);
    struct pls_ref b = put_filled(fx->store, 1000, 2);
    plsi_sys_fail_at(0, 0);
    assert_ref(&a, 0, 0, 1000);
    assert_ref(&b, 0, 1004, 1000);
    assert_filled(fx->store, &a, 1);
    assert_filled(fx->store, &b, 2);
}

#define LARGE (5u << 19) /* bytes: three writes of a MiB at most */

static void a_large_payload_is_written_in_pieces_or_not_at_all(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref;
    uint8_t *data = malloc(LARGE);
    put_text(fx->store, "abc");
    fill(data, LARGE, 1);
    for (long n = 1; n <= 4;
         n++) { /* after a first failure a look at what room there is is one, too */
        plsi_sys_fail_at(n, ENOSPC);
        assert_int_equal(try_append(fx->store, data, LARGE, PLS_BUFFERED, &ref), PLS_NO_SPACE);
        plsi_sys_fail_at(0, 0);
        assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7);
    }
    plsi_sys_fail_at(2, 0); /* a piece that is cut short */
    assert_int_equal(try_append(fx->store, data, LARGE, PLS_BUFFERED, &ref), PLS_OK);
    plsi_sys_fail_at(0, 0);
    assert_ref(&ref, 0, 7, LARGE);
    assert_filled(fx->store, &ref, 1);
    free(data);
}

/* The kernel takes half of the record before it says that there is no more room. */
static void a_half_written_record_is_taken_away(void **state)
{
    struct fixture *fx = *state;
    struct rlimit before, limit;
    struct pls_ref ref;
    put_text(fx->store, "abc");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 12;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    enum pls_code code = try_append(fx->store, "lost", 4, PLS_SYNCED, &ref);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(code, PLS_NO_SPACE);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7);
    ref = put_text(fx->store, "def");
    assert_ref(&ref, 0, 7, 3);
}

static void a_failed_write_ends_its_segment(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    plsi_sys_fail_at(1, EIO);
    struct pls_ref ref;
    assert_int_equal(try_append(fx->store, "lost", 4, PLS_BUFFERED, &ref), PLS_IO);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7);
    /* A disk that fails is not written to again at that place. */
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 1, 0, 4);
}

static void a_failed_sync_is_not_tried_again(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a, b, c;
    assert_int_equal(try_append(fx->store, "abc", 3, PLS_SYNCED, &a), PLS_OK);
    plsi_sys_fail_at(2, EIO); /* the write goes through, the sync does not */
    assert_int_equal(try_append(fx->store, "def", 3, PLS_SYNCED, &b), PLS_IO);
    plsi_sys_fail_at(0, 0);
    assert_true(fx_logged(fx, "sync_failed: segment 0"));
    assert_int_equal(try_append(fx->store, "ghi", 3, PLS_SYNCED, &c), PLS_OK);
    assert_ref(&c, 1, 0, 3);
    assert_text(fx->store, &a, "abc");
    /* The close cannot vouch for the segment, and says so; what is there still reads. */
    pls_store_release(fx->store);
    assert_int_equal(pls_dir_close(fx->dir), PLS_IO);
    fx_open(fx);
    assert_text(fx->store, &a, "abc");
    assert_text(fx->store, &c, "ghi");
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 2, 0, 4);
}

static void a_suspect_segment_is_rewritten_whatever_its_garbage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_filled(fx->store, 900 * KIB, 1), b;
    plsi_sys_fail_at(2, EIO);
    assert_int_equal(try_append(fx->store, "def", 3, PLS_SYNCED, &b), PLS_IO);
    plsi_sys_fail_at(0, 0);
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.min_garbage_percent = 99};
    struct outcome outcome;
    compact(fx->store, &given, &options, &a, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_filled(fx->store, moved(&outcome, &a), 1);
    outcome_fini(&outcome);
    fx_reopen(fx); /* and the close is clean again */
}

/* As often as the process starts anew, until it is rewritten. */
static void a_suspect_segment_is_known_after_a_restart(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_filled(fx->store, 900 * KIB, 1), b;
    plsi_sys_fail_at(2, EIO);
    assert_int_equal(try_append(fx->store, "def", 3, PLS_SYNCED, &b), PLS_IO);
    plsi_sys_fail_at(0, 0);
    pls_store_release(fx->store);
    assert_int_equal(pls_dir_close(fx->dir), PLS_IO);
    fx_open(fx);
    fx_reopen(fx);
    assert_filled(fx->store, &a, 1);
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.min_garbage_percent = 99};
    struct outcome outcome;
    compact(fx->store, &given, &options, &a, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_non_null(moved(&outcome, &a));
    assert_filled(fx->store, moved(&outcome, &a), 1);
    outcome_fini(&outcome);
    fx_reopen(fx);
    assert_filled(fx->store, &a, 1);
}

static void a_full_disk_at_a_rotation_fails_that_append_alone(void **state)
{
    struct fixture *fx = *state;
    put_filled(fx->store, MIB, 1);
    struct pls_ref ref;
    plsi_sys_fail_at(1, ENOSPC); /* the new segment's file */
    assert_int_equal(try_append(fx->store, "x", 1, PLS_BUFFERED, &ref), PLS_NO_SPACE);
    plsi_sys_fail_at(2, ENOSPC); /* its name */
    assert_int_equal(try_append(fx->store, "x", 1, PLS_BUFFERED, &ref), PLS_NO_SPACE);
    plsi_sys_fail_at(0, 0);
    ref = put_text(fx->store, "x");
    assert_ref(&ref, 1, 0, 1);
}

static void a_read_that_fails_is_damage_and_passes(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    plsi_sys_fail_at(1, EAGAIN); /* not in memory: an I/O thread reads it */
    assert_text(fx->store, &ref, "payload");
    plsi_sys_fail_at(1, EOPNOTSUPP);
    assert_text(fx->store, &ref, "payload");
    plsi_sys_fail_at(1, 0);
    assert_text(fx->store, &ref, "payload");
    plsi_sys_fail_at(0, 0);
}

static void a_seal_that_fails_leaves_appends_as_they_were(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    struct pls_seal given = {0};
    uint32_t active = 0;
    bool reached = true;
    long failed = 0;
    for (long n = 1; reached; n++) {
        plsi_sys_fail_at(n, ENOSPC);
        enum pls_code code = pls_store_seal(fx->store, 0, &given, NULL);
        reached = plsi_sys_calls() >= n;
        plsi_sys_fail_at(0, 0);
        settle(fx->store);
        active = code == PLS_OK ? given.sealed_id + 2 : active;
        failed += code != PLS_OK;
        struct pls_ref ref = put_text(fx->store, "x");
        assert_int_equal(ref.file_id, active);
        assert_text(fx->store, &a, "abc");
    }
    assert_true(failed > 5);
    compact_ok(fx->store, &given, &a, 1);
}

static void work_in(const struct outcome *outcome, struct pls_ref *refs, uint32_t n)
{
    for (uint32_t i = 0; outcome->code == PLS_OK && i < n; i++) {
        const struct pls_ref *now = moved(outcome, &refs[i]);
        refs[i] = now != NULL ? *now : refs[i];
    }
}

/* All calls fail from the n-th on, those too that would take the outputs away. */
static void after_a_compaction_that_could_not_clear_up_the_next_one_works(void **state)
{
    enum { N = 6 };
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 500;
    fx_reopen(fx);
    struct pls_ref refs[N];
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, 400, i);
    }
    bool reached = true;
    for (long n = 1; reached; n++) {
        struct outcome outcome;
        struct pls_seal given = seal(fx->store);
        plsi_sys_fail_from(n, EIO);
        compact(fx->store, &given, NULL, refs, N, &outcome);
        reached = plsi_sys_calls() >= n;
        plsi_sys_fail_at(0, 0);
        work_in(&outcome, refs, N);
        outcome_fini(&outcome);
        if (atomic_load(&fx->store->stopped_writing)) {
            fx_crash(fx); /* the commit itself was cut: the next open decides */
        }
        given = outcome.code == PLS_OK ? seal(fx->store) : given;
        compact(fx->store, &given, NULL, refs, N, &outcome);
        if (outcome.code != PLS_OK) {
            fail_msg("call %ld: %s", n, outcome.error.text);
        }
        work_in(&outcome, refs, N);
        outcome_fini(&outcome);
        for (uint32_t i = 0; i < N; i++) {
            assert_filled(fx->store, &refs[i], i);
        }
    }
}

/* A seal that fails and cannot clear up is not in the way of the next one, nor of a rotation. */
static void after_a_seal_that_could_not_clear_up_the_next_one_works(void **state)
{
    struct fixture *fx = *state;
    bool reached = true;
    for (long n = 1; reached; n++) {
        struct pls_seal given;
        struct pls_ref ref = put_filled(fx->store, MIB, 1); /* and the segment is full */
        plsi_sys_fail_from(n, EIO);
        pls_store_seal(fx->store, 0, &given, NULL);
        reached = plsi_sys_calls() >= n;
        plsi_sys_fail_at(0, 0);
        struct pls_ref next;
        /* The first try may find the name taken. */
        if (try_append(fx->store, "x", 1, PLS_BUFFERED, &next) != PLS_OK) {
            next = put_text(fx->store, "x");
        }
        assert_true(next.file_id > ref.file_id);
        assert_filled(fx->store, &ref, 1);
        given = seal(fx->store);
        compact_ok(fx->store, &given, &next, 1);
    }
}

static void after_a_rotation_that_could_not_clear_up_the_next_one_works(void **state)
{
    struct fixture *fx = *state;
    bool reached = true;
    for (long n = 1; reached; n++) {
        struct pls_ref full = put_filled(fx->store, MIB, 1), next;
        plsi_sys_fail_from(n, EIO);
        enum pls_code code = try_append(fx->store, "x", 1, PLS_BUFFERED, &next);
        reached = plsi_sys_calls() >= n;
        plsi_sys_fail_at(0, 0);
        /* The first try may find the name taken. */
        if (code != PLS_OK && try_append(fx->store, "x", 1, PLS_BUFFERED, &next) != PLS_OK) {
            next = put_text(fx->store, "x");
        }
        assert_true(next.file_id > full.file_id);
        assert_text(fx->store, &next, "x");
        assert_filled(fx->store, &full, 1);
    }
}

/* A deletion that may stand on disk must not let the store take payloads that it would delete. */
static void a_deletion_that_fails_deletes_nothing_that_is_answered(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    enum pls_code code = PLS_IO;
    for (long n = 1; code != PLS_OK && n < 50; n++) {
        plsi_sys_fail_at(n, EIO);
        code = pls_store_delete(fx->dir, "s", 0, NULL, NULL);
        plsi_sys_fail_at(0, 0);
        if (code != PLS_OK) {
            struct pls_ref b = put_text(fx->store, "def");
            fx_crash(fx);
            assert_text(fx->store, &a, "abc");
            assert_text(fx->store, &b, "def");
        }
    }
    assert_int_equal(code, PLS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_full_disk_leaves_no_trace_and_the_next_append_works),
        STORE_TEST(a_write_cut_short_is_finished),
        STORE_TEST(a_large_payload_is_written_in_pieces_or_not_at_all),
        STORE_TEST(a_half_written_record_is_taken_away),
        STORE_TEST(a_failed_write_ends_its_segment),
        STORE_TEST(after_a_compaction_that_could_not_clear_up_the_next_one_works),
        STORE_TEST(after_a_rotation_that_could_not_clear_up_the_next_one_works),
        STORE_TEST(after_a_seal_that_could_not_clear_up_the_next_one_works),
        STORE_TEST(a_failed_sync_is_not_tried_again),
        STORE_TEST(a_suspect_segment_is_rewritten_whatever_its_garbage),
        STORE_TEST(a_suspect_segment_is_known_after_a_restart),
        STORE_TEST(a_full_disk_at_a_rotation_fails_that_append_alone),
        STORE_TEST(a_read_that_fails_is_damage_and_passes),
        STORE_TEST(a_seal_that_fails_leaves_appends_as_they_were),
        STORE_TEST(a_deletion_that_fails_deletes_nothing_that_is_answered),
        STORE_TEST(no_failing_call_loses_what_was_answered),
        STORE_TEST(no_full_disk_loses_what_was_answered),
        STORE_TEST(no_interrupted_call_loses_what_was_answered),
        STORE_TEST(no_short_transfer_loses_what_was_answered),
        STORE_TEST(no_crash_loses_what_was_answered),
        STORE_TEST(no_disk_that_stays_full_loses_what_was_answered),
    };
    return cmocka_run_group_tests_name("store_faults", tests, NULL, NULL);
}
