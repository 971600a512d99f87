/* The reserve, compactions that are short of room, and their pace. */
#include "store_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dir.h"
#include "sys.h"

enum { TOTAL = 1 << 30, RESERVE = 8 << 20, SMALL = 1000 };

/* The file system has so much free from now on, whatever is written. */
static void pretend(uint64_t free_bytes)
{
    plsi_sys_pretend_space(free_bytes, TOTAL);
}

static int setup(void **state)
{
    int failed = fx_setup(state);
    if (failed == 0) {
        struct fixture *fx = *state;
        fx_close(fx);
        fx->options.reserve_bytes = RESERVE;
        pretend(TOTAL);
        fx_open(fx);
    }
    return failed;
}

static int teardown(void **state)
{
    plsi_sys_pretend_space(0, 0);
    return fx_teardown(state);
}

#define ROOM_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

static enum pls_code try_small(pls_store *store)
{
    struct pls_ref ref;
    return try_append(store, "0123456789", 10, PLS_BUFFERED, &ref);
}

static void assert_stat(pls_store *store, bool stopped, uint64_t free_bytes)
{
    struct pls_stat stat;
    struct pls_error error;
    assert_int_equal(pls_store_stat(store, &stat, &error), PLS_OK);
    assert_int_equal(stat.appends_stopped, stopped);
    assert_int_equal(stat.free_bytes, free_bytes);
    pls_stat_fini(&stat);
}

/* How often a line of the log begins so. */
static int logged(struct fixture *fx, const char *event)
{
    int n = 0;
    pthread_mutex_lock(&fx->lock);
    for (const char *at = fx->log; (at = strstr(at, event)) != NULL; at++) {
        n += at == fx->log || at[-1] == '\n';
    }
    pthread_mutex_unlock(&fx->lock);
    return n;
}

/* Stopped, as an append would find out that looks. */
static void stop_appends(struct fixture *fx)
{
    pretend(RESERVE);
    assert_stat(fx->store, true, 0);
}

/* -- the reserve ------------------------------------------------------------------------------- */

static void appends_stop_at_the_reserve_and_leave_no_trace(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    pretend(RESERVE + 100);
    assert_stat(fx->store, false, 100);
    struct pls_ref b = put_filled(fx->store, 40, 1); /* 44 of the 100 */
    pretend(RESERVE + 56);
    struct pls_ref ref;
    uint8_t data[100] = {0};
    assert_int_equal(try_append(fx->store, data, sizeof data, PLS_SYNCED, &ref), PLS_DISK_RESERVE);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 51);
    assert_text(fx->store, &a, "abc");
    assert_filled(fx->store, &b, 1);
    assert_stat(fx->store, true, 0);
    pretend(TOTAL);
    ref = put_text(fx->store, "next");
    assert_ref(&ref, 0, 51, 4); /* contiguous, in the same segment */
}

/* Between two looks the account alone knows what was appended. */
static void appends_are_counted_between_looks(void **state)
{
    struct fixture *fx = *state;
    uint64_t room = 100ull * (4 + SMALL);
    uint8_t data[SMALL];
    struct pls_ref ref;
    fill(data, sizeof data, 1);
    pretend(RESERVE + room);
    assert_stat(fx->store, false, room);
    pretend(0); /* who looks before the account is used up finds nothing */
    int n = 0;
    while (try_append(fx->store, data, sizeof data, PLS_BUFFERED, &ref) == PLS_OK && n < 1000) {
        n++;
    }
    /* Less the byte that Stat asked for. */
    assert_in_range(n, 98, 100);
}

static void the_log_tells_stop_and_go_once(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    stop_appends(fx);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
    }
    assert_int_equal(logged(fx, "appends_stopped: "), 1);
    assert_int_equal(logged(fx, "appends_go_on: "), 0);
    pretend(TOTAL);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(try_small(fx->store), PLS_OK);
    }
    assert_int_equal(logged(fx, "appends_stopped: "), 1);
    assert_int_equal(logged(fx, "appends_go_on: "), 1);
    assert_false(fx_logged(fx, "append_failed"));
}

static void appends_do_not_stop_and_go_with_every_record(void **state)
{
    struct fixture *fx = *state;
    stop_appends(fx);
    pretend(RESERVE + 100 * KIB); /* room, but too little of it to begin again */
    assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
    assert_stat(fx->store, true, 0);
    pretend(RESERVE + MIB);
    assert_int_equal(try_small(fx->store), PLS_OK);
    assert_stat(fx->store, false, MIB);
}

static void a_payload_too_large_for_the_room_is_refused_alone(void **state)
{
    struct fixture *fx = *state;
    uint8_t *large = calloc(1, 4 * MIB);
    struct pls_ref ref;
    pretend(RESERVE + 3 * MIB);
    assert_int_equal(try_append(fx->store, large, 4 * MIB, PLS_BUFFERED, &ref), PLS_DISK_RESERVE);
    assert_int_equal(try_small(fx->store), PLS_OK);
    assert_stat(fx->store, false, 3 * MIB);
    assert_int_equal(logged(fx, "appends_stopped: "), 0);
    free(large);
}

static void all_stores_of_a_directory_stop(void **state)
{
    struct fixture *fx = *state;
    struct pls_error error;
    pls_store *other;
    assert_int_equal(pls_store_open(fx->dir, "other", 0, &other, &error), PLS_OK);
    assert_int_equal(try_small(other), PLS_OK);
    stop_appends(fx);
    assert_int_equal(try_small(other), PLS_DISK_RESERVE);
    assert_stat(other, true, 0);
    pls_store_release(other);
}

static void a_new_segment_for_appends_is_refused_too(void **state)
{
    struct fixture *fx = *state;
    put_filled(fx->store, MIB, 1); /* the next record needs a new segment */
    stop_appends(fx);
    assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
    assert_false(file_exists(fx, "s/payload_0001.dat"));
    pretend(TOTAL);
    struct pls_ref ref = put_text(fx->store, "next");
    assert_ref(&ref, 1, 0, 4);
}

static void seal_claim_and_compaction_may_use_the_reserve(void **state)
{
    struct fixture *fx = *state;
    struct pls_error error;
    struct pls_ref a = put_filled(fx->store, 100 * KIB, 1);
    put_filled(fx->store, 100 * KIB, 2);
    stop_appends(fx);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, &a, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_false(outcome.summary.short_of_room);
    assert_filled(fx->store, moved(&outcome, &a), 1);
    outcome_fini(&outcome);
    uint64_t epoch;
    assert_int_equal(pls_store_claim(fx->dir, "s", "me", NULL, &epoch, &error), PLS_OK);
}

static void a_new_store_can_be_made_at_the_reserve(void **state)
{
    struct fixture *fx = *state;
    struct pls_error error;
    pls_store *made;
    uint64_t epoch;
    stop_appends(fx);
    assert_int_equal(pls_store_claim(fx->dir, "claimed", "me", NULL, &epoch, &error), PLS_OK);
    assert_int_equal(pls_store_open(fx->dir, "sealed", 0, &made, &error), PLS_OK);
    struct pls_seal given = seal(made);
    assert_seal(&given, 0, 1);
    pls_store_release(made);
}

static void appends_are_still_stopped_after_a_restart(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "abc");
    pretend(RESERVE);
    fx_reopen(fx);
    assert_int_equal(logged(fx, "appends_stopped: "), 1);
    assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
    assert_text(fx->store, &ref, "abc");
}

static void without_a_reserve_the_disk_may_be_filled(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    fx->options.reserve_bytes = PLS_RESERVE_NONE;
    fx_open(fx);
    pretend(0);
    assert_int_equal(try_small(fx->store), PLS_OK); /* the disk itself would have had to refuse */
    assert_stat(fx->store, true, 0);
    pretend(5000);
    assert_stat(fx->store, false, 5000);
}

static void the_default_is_512_mib_or_a_twentieth(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    fx->options.reserve_bytes = 0;
    plsi_sys_pretend_space(1000 * MIB, 1000 * MIB);
    fx_open(fx);
    assert_stat(fx->store, false, 950 * MIB);
    plsi_sys_pretend_space(100000 * MIB, 100000 * MIB);
    assert_stat(fx->store, false, (100000 - 512) * MIB);
}

static void a_reserve_that_leaves_nothing_is_refused(void **state)
{
    struct fixture *fx = *state;
    struct pls_error error;
    fx_close(fx);
    pls_dir *dir;
    fx->options.reserve_bytes = TOTAL;
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &dir, &error), PLS_INVALID_ARGUMENT);
    assert_non_null(strstr(error.text, "1073741824"));
    fx->options.reserve_bytes = TOTAL - MIB; /* all but a little */
    pretend(TOTAL);
    fx_open(fx);
    assert_stat(fx->store, false, MIB);
    stop_appends(fx);
    pretend(TOTAL); /* what is there must be enough to go on */
    assert_int_equal(try_small(fx->store), PLS_OK);
}

static void a_full_disk_is_looked_at_again(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    pretend(0); /* another program has been quick */
    plsi_sys_fail_at(1, ENOSPC);
    assert_int_equal(try_small(fx->store), PLS_NO_SPACE);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
    assert_int_equal(logged(fx, "appends_stopped: "), 1);
}

static void a_disk_that_does_not_tell_stops_nothing(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    stop_appends(fx);
    plsi_sys_fail_at(1, EIO); /* the look */
    assert_int_equal(try_small(fx->store), PLS_OK);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(try_small(fx->store), PLS_DISK_RESERVE);
}

/* -- compactions that are short of room -------------------------------------------------------- */

enum { SEGMENTS = 4, RECORDS = 20, RECORD = 64 << 10 };

/* Four full segments; refs[segment][record]. */
struct full {
    struct pls_ref refs[SEGMENTS][RECORDS];
    uint32_t seeds[SEGMENTS][RECORDS];
    int n[SEGMENTS];
};

static void fill_segments(pls_store *store, struct full *full)
{
    *full = (struct full){0};
    for (uint32_t seed = 1;; seed++) {
        struct pls_ref ref = put_filled(store, RECORD, seed);
        if (ref.file_id == SEGMENTS) {
            return; /* the first of the fifth is nobody's */
        }
        int at = full->n[ref.file_id]++;
        full->refs[ref.file_id][at] = ref;
        full->seeds[ref.file_id][at] = seed;
    }
}

/* Of each segment the first so many are live. */
struct live {
    struct pls_ref refs[SEGMENTS * RECORDS];
    uint32_t seeds[SEGMENTS * RECORDS];
    size_t n;
};

static void choose_live(const struct full *full, const int live_of[SEGMENTS], struct live *live)
{
    live->n = 0;
    for (int s = 0; s < SEGMENTS; s++) {
        for (int i = 0; i < live_of[s]; i++) {
            live->refs[live->n] = full->refs[s][i];
            live->seeds[live->n++] = full->seeds[s][i];
        }
    }
}

static void assert_live(pls_store *store, const struct live *live)
{
    for (size_t i = 0; i < live->n; i++) {
        assert_filled(store, &live->refs[i], live->seeds[i]); /* by their old refs, all of them */
    }
}

static void what_fits_of_most_garbage_is_compacted_and_the_rest_kept(void **state)
{
    struct fixture *fx = *state;
    struct full full;
    struct live live;
    struct outcome outcome;
    fill_segments(fx->store, &full);
    /* Most garbage in 2, then 0, then 1; nothing of 3 lives. */
    choose_live(&full, (int[]){6, 10, 2, 0}, &live);
    struct pls_seal given = seal(fx->store);
    pretend(9ull * RECORD); /* for the 2 and the 6, and table and indexes, but not for the 10 */
    struct pls_compact_options options = {.dry_run = true};
    compact(fx->store, &given, &options, live.refs, live.n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_true(outcome.summary.short_of_room); /* a dry run foretells it */
    outcome_fini(&outcome);

    compact(fx->store, &given, NULL, live.refs, live.n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_true(outcome.summary.short_of_room);
    assert_int_equal(outcome.summary.live_records, 18);
    assert_int_equal(outcome.summary.relocated_records, 8);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.summary.deleted_segments, 4); /* also what was of the fifth */
    assert_int_equal(outcome.n_map, 8);
    assert_null(moved(&outcome, &full.refs[1][0])); /* valid as it is */
    assert_non_null(moved(&outcome, &full.refs[0][0]));
    assert_true(file_exists(fx, "s/payload_0001.dat"));
    assert_false(file_exists(fx, "s/payload_0000.dat"));
    assert_false(file_exists(fx, "s/payload_0002.dat"));
    assert_false(file_exists(fx, "s/payload_0003.dat"));
    assert_live(fx->store, &live);
    outcome_fini(&outcome);
    assert_true(fx_logged(fx, "no room for more"));
}

static void the_summary_says_so_when_it_is_asked_for_again(void **state)
{
    struct fixture *fx = *state;
    struct full full;
    struct live live;
    struct outcome first, again;
    fill_segments(fx->store, &full);
    choose_live(&full, (int[]){6, 10, 2, 0}, &live);
    struct pls_seal given = seal(fx->store);
    pretend(9ull * RECORD);
    compact(fx->store, &given, NULL, live.refs, live.n, &first);
    pretend(TOTAL);
    for (int restart = 0; restart < 2; restart++) {
        compact(fx->store, &given, NULL, live.refs, live.n, &again);
        assert_int_equal(again.code, PLS_OK);
        assert_true(again.summary.short_of_room);
        assert_memory_equal(&again.summary, &first.summary, sizeof first.summary);
        assert_int_equal(again.n_map, first.n_map);
        outcome_fini(&again);
        fx_crash(fx);
    }
    assert_live(fx->store, &live);
    /* Seal and call again, as it says, with room by now: nothing is kept, all the old refs lead on.
     */
    given = seal(fx->store);
    compact(fx->store, &given, NULL, live.refs, live.n, &again);
    assert_int_equal(again.code, PLS_OK);
    assert_false(again.summary.short_of_room);
    assert_int_equal(again.summary.kept_segments, 0);
    assert_int_equal(again.n_map, live.n);
    assert_live(fx->store, &live);
    outcome_fini(&again);
    outcome_fini(&first);
}

/* The names that the last table forwards need room in the next one, whatever is rewritten. */
static void where_nothing_fits_the_dead_go_and_names_are_carried(void **state)
{
    struct fixture *fx = *state;
    struct full full;
    struct live live;
    struct outcome outcome;
    fill_segments(fx->store, &full);
    choose_live(&full, (int[]){6, 0, 0, 0}, &live);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, live.refs, live.n);
    put_filled(fx->store, RECORD, 99); /* dead, as one of the six is now */
    live.n--;
    given = seal(fx->store);
    pretend(64 * KIB); /* for a table */
    compact(fx->store, &given, NULL, live.refs, live.n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_true(outcome.summary.short_of_room);
    assert_int_equal(outcome.summary.relocated_records, 0);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.summary.deleted_segments, 1);
    assert_int_equal(outcome.n_map, live.n); /* the older names still lead there */
    assert_live(fx->store, &live);
    fx_crash(fx);
    assert_live(fx->store, &live);
    outcome_fini(&outcome);
}

static void without_room_for_a_table_nothing_changes(void **state)
{
    struct fixture *fx = *state;
    struct full full;
    struct live live;
    struct outcome outcome;
    fill_segments(fx->store, &full);
    choose_live(&full, (int[]){6, 10, 2, 0}, &live);
    struct pls_seal given = seal(fx->store);
    uint64_t usage = disk_usage(fx->store);
    pretend(16 * KIB);
    compact(fx->store, &given, NULL, live.refs, live.n, &outcome);
    assert_int_equal(outcome.code, PLS_NO_SPACE);
    assert_non_null(strstr(outcome.error.text, "nothing was changed"));
    outcome_fini(&outcome);
    assert_int_equal(disk_usage(fx->store), usage);
    assert_int_equal(file_count(fx, "s", "relocations"), 0);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    assert_live(fx->store, &live);
    pretend(TOTAL); /* the handle is good for another try */
    compact_ok(fx->store, &given, live.refs, live.n);
    assert_live(fx->store, &live);
}

/* What the plan asks for is what is written, or little more, in bytes of files: whatever room there
 * is, the outputs and the table of the compaction fit into it. */
static void what_is_written_is_never_more_than_was_free(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[400];
    uint32_t seeds[400];
    size_t n = 0;
    for (uint32_t seed = 1; seed <= 4000; seed++) {
        struct pls_ref ref = put_filled(fx->store, seed % 1500, seed);
        if (seed % 10 == 0) {
            refs[n] = ref;
            seeds[n++] = seed;
        }
    }
    struct pls_seal given = seal(fx->store);
    bool short_of_room = true;
    for (uint64_t room = 48 * KIB; short_of_room; room += 40 * KIB) {
        struct outcome outcome;
        pretend(room);
        compact(fx->store, &given, NULL, refs, n, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        short_of_room = outcome.summary.short_of_room;
        assert_true(outcome.summary.kept_segments > 0 || !short_of_room);
        assert_true(outcome.summary.relocated_bytes + file_size(fx, "s/relocations.tab") <= room);
        outcome_fini(&outcome);
        for (size_t i = 0; i < n; i++) {
            assert_filled(fx->store, &refs[i], seeds[i]);
        }
        given = seal(fx->store);
    }
}

/* Else whoever does as the summary says would call again for ever. */
static void what_gives_nothing_back_stays_and_is_not_asked_for_again(void **state)
{
    struct fixture *fx = *state;
    struct full full;
    struct live live;
    struct outcome outcome;
    fill_segments(fx->store, &full);
    choose_live(&full, (int[]){full.n[0], full.n[1], 2, 6}, &live);
    struct pls_seal given = seal(fx->store);
    pretend(10ull * RECORD); /* for all that has garbage, but not for the others */
    compact(fx->store, &given, NULL, live.refs, live.n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_false(outcome.summary.short_of_room);
    assert_int_equal(outcome.summary.kept_segments, 2);
    assert_int_equal(outcome.summary.relocated_records, 8);
    assert_live(fx->store, &live);
    outcome_fini(&outcome);
}

/* -- the pace ---------------------------------------------------------------------------------- */

struct waiting {
    pls_compact *compact;
    uint64_t bytes_done;
    int reports; /* in a row that tell of nothing new */
};

/* Cancels what is seen to wait: twice the same is reported by nothing else. */
static void cancel_waiting(void *arg, const struct pls_compact_progress *progress)
{
    struct waiting *waiting = arg;
    waiting->reports = progress->bytes_done == waiting->bytes_done ? waiting->reports + 1 : 1;
    waiting->bytes_done = progress->bytes_done;
    if (waiting->reports == 2) {
        pls_compact_cancel(waiting->compact);
    }
}

static enum pls_code run_until_it_waits(pls_store *store, const struct pls_ref *refs, size_t n)
{
    struct waiting waiting = {0};
    struct pls_seal given = seal(store);
    struct pls_compact_options options = {0};
    struct pls_error error;
    assert_int_equal(pls_compact_begin(store, &given, &options, &waiting.compact, &error), PLS_OK);
    assert_int_equal(pls_compact_live(waiting.compact, refs, n, &error), PLS_OK);
    enum pls_code code = pls_compact_run(waiting.compact, cancel_waiting, &waiting, &error);
    pls_compact_destroy(waiting.compact);
    return code;
}

static void set_pace(struct fixture *fx, uint64_t bytes_per_second)
{
    fx_close(fx);
    fx->options.compaction_max_bytes_per_second = bytes_per_second;
    fx_open(fx);
}

/* At this pace the second would come in half an hour. */
static void a_compaction_that_waits_for_its_pace_can_be_cancelled(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[2];
    set_pace(fx, 512);
    refs[0] = put_filled(fx->store, 900 * KIB, 1);
    refs[1] = put_filled(fx->store, 900 * KIB, 2);
    assert_int_equal(run_until_it_waits(fx->store, refs, 2), PLS_CANCELLED);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    assert_filled(fx->store, &refs[0], 1);
    assert_filled(fx->store, &refs[1], 2);
    /* So can one that waits between the pieces of a large record. */
    refs[0] = put_filled(fx->store, 3 * MIB, 3);
    assert_int_equal(run_until_it_waits(fx->store, refs, 1), PLS_CANCELLED);
    assert_filled(fx->store, &refs[0], 3);
}

/* The stores share the disk, and the pace: the second copies nothing while the first's turn lasts.
 */
static void the_pace_is_all_stores_together(void **state)
{
    struct fixture *fx = *state;
    struct pls_error error;
    pls_store *other;
    set_pace(fx, 512);
    assert_int_equal(pls_store_open(fx->dir, "other", 0, &other, &error), PLS_OK);
    struct pls_ref a = put_filled(fx->store, 100 * KIB, 1), b = put_filled(other, 10, 2);
    assert_int_equal(run_until_it_waits(fx->store, &a, 1), PLS_OK); /* nothing came before it */
    assert_int_equal(run_until_it_waits(other, &b, 1), PLS_CANCELLED);
    assert_filled(other, &b, 2);
    pls_store_release(other);
}

static bool calls_are_seen(struct fixture *fx)
{
    return atomic_exchange(&fx->dir->pace.called, false);
}

static void appends_and_reads_give_a_compaction_rest(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 100, 1);
    assert_true(calls_are_seen(fx));
    assert_true(atomic_load(&fx->dir->pace.behind) >= 100);
    assert_filled(fx->store, &ref, 1);
    assert_true(calls_are_seen(fx));
    assert_false(calls_are_seen(fx));
}

static void a_rest_lasts_as_fifteen_pieces_and_only_while_somebody_calls(void **state)
{
    struct plsi_pace pace;
    const int64_t ms = 1000000;
    (void)state;
    plsi_pace_init(&pace);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 0);
    plsi_pace_called(&pace);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 15000);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 15000); /* of late */
    assert_int_equal(plsi_pace_rest(&pace, 900 * ms, 10), 2 * ms);
    nanosleep(&(struct timespec){.tv_nsec = 110 * ms}, NULL);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 0);
    plsi_pace_called(&pace);
    plsi_pace_begin(&pace);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 0);
    plsi_pace_fini(&pace);
}

static void a_rest_is_short_while_less_is_copied_than_appended(void **state)
{
    struct plsi_pace pace;
    (void)state;
    plsi_pace_init(&pace);
    plsi_pace_appended(&pace, 1000); /* before it began */
    plsi_pace_begin(&pace);
    plsi_pace_called(&pace);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 15000);
    plsi_pace_appended(&pace, 25); /* nothing is saved up of the 10 */
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 1000);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 1000);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 15000);
    assert_int_equal(plsi_pace_rest(&pace, 1000, 10), 15000);
    plsi_pace_fini(&pace);
}

static void a_compaction_at_a_pace_ends_as_any_other(void **state)
{
    struct fixture *fx = *state;
    uint8_t *large = malloc(5 * MIB);
    struct pls_ref refs[3], large_ref;
    set_pace(fx, 256 * MIB);
    for (uint32_t i = 0; i < 3; i++) {
        refs[i] = put_filled(fx->store, 700 * KIB, i);
    }
    fill(large, 5 * MIB, 7);
    large_ref = put(fx->store, large, 5 * MIB); /* copied in pieces */
    struct pls_ref live[] = {refs[0], refs[2], large_ref};
    struct pls_seal given = seal(fx->store);
    struct pls_compact_summary summary = compact_ok(fx->store, &given, live, 3);
    assert_int_equal(summary.relocated_records, 3);
    assert_filled(fx->store, &refs[0], 0);
    assert_filled(fx->store, &refs[2], 2);
    assert_filled(fx->store, &large_ref, 7);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM_TEST(appends_stop_at_the_reserve_and_leave_no_trace),
        ROOM_TEST(appends_are_counted_between_looks),
        ROOM_TEST(the_log_tells_stop_and_go_once),
        ROOM_TEST(appends_do_not_stop_and_go_with_every_record),
        ROOM_TEST(a_payload_too_large_for_the_room_is_refused_alone),
        ROOM_TEST(all_stores_of_a_directory_stop),
        ROOM_TEST(a_new_segment_for_appends_is_refused_too),
        ROOM_TEST(seal_claim_and_compaction_may_use_the_reserve),
        ROOM_TEST(a_new_store_can_be_made_at_the_reserve),
        ROOM_TEST(appends_are_still_stopped_after_a_restart),
        ROOM_TEST(without_a_reserve_the_disk_may_be_filled),
        ROOM_TEST(the_default_is_512_mib_or_a_twentieth),
        ROOM_TEST(a_reserve_that_leaves_nothing_is_refused),
        ROOM_TEST(a_full_disk_is_looked_at_again),
        ROOM_TEST(a_disk_that_does_not_tell_stops_nothing),
        ROOM_TEST(what_fits_of_most_garbage_is_compacted_and_the_rest_kept),
        ROOM_TEST(the_summary_says_so_when_it_is_asked_for_again),
        ROOM_TEST(where_nothing_fits_the_dead_go_and_names_are_carried),
        ROOM_TEST(without_room_for_a_table_nothing_changes),
        ROOM_TEST(what_is_written_is_never_more_than_was_free),
        ROOM_TEST(what_gives_nothing_back_stays_and_is_not_asked_for_again),
        ROOM_TEST(a_compaction_that_waits_for_its_pace_can_be_cancelled),
        ROOM_TEST(the_pace_is_all_stores_together),
        ROOM_TEST(a_compaction_at_a_pace_ends_as_any_other),
        ROOM_TEST(appends_and_reads_give_a_compaction_rest),
        cmocka_unit_test(a_rest_lasts_as_fifteen_pieces_and_only_while_somebody_calls),
        cmocka_unit_test(a_rest_is_short_while_less_is_copied_than_appended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
