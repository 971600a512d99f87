/* Claiming: the epochs that are given out, and what becomes of everything older. */
#include "store_fixture.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "store.h"
#include "sys.h"

static uint64_t claim_s(struct fixture *fx, const char *owner)
{
    struct pls_error error;
    uint64_t epoch;
    if (pls_store_claim(fx->dir, "s", owner, NULL, &epoch, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
    return epoch;
}

static enum pls_code claim_if(struct fixture *fx, const char *name, uint64_t if_epoch)
{
    uint64_t epoch = 0;
    enum pls_code code = pls_store_claim(fx->dir, name, "me", &if_epoch, &epoch, NULL);
    assert_int_equal(epoch, code == PLS_OK ? if_epoch + 1 : 0);
    return code;
}

static void assert_claimed(pls_store *store, uint64_t epoch, const char *owner)
{
    struct pls_stat stat;
    assert_int_equal(pls_store_stat(store, &stat, NULL), PLS_OK);
    assert_int_equal(stat.epoch, epoch);
    assert_string_equal(stat.owner, owner);
    pls_stat_fini(&stat);
}

static enum pls_code append_as(pls_store *store, uint64_t epoch)
{
    struct pls_ref ref;
    return try_append_as(store, epoch, "payload", 7, PLS_SYNCED, &ref);
}

static void a_claim_gives_the_next_epoch_and_notes_its_owner(void **state)
{
    struct fixture *fx = *state;
    assert_claimed(fx->store, 0, "");
    assert_int_equal(claim_s(fx, "broker one"), 1);
    assert_claimed(fx->store, 1, "broker one");
    assert_int_equal(claim_s(fx, "two"), 2);
    assert_claimed(fx->store, 2, "two");
    assert_true(fx_logged(fx, "claimed: epoch 2, for \"two\""));
}

static void a_claim_makes_the_store(void **state)
{
    struct fixture *fx = *state;
    uint64_t epoch;
    assert_int_equal(pls_store_claim(fx->dir, "new", "", NULL, &epoch, NULL), PLS_OK);
    assert_int_equal(epoch, 1);
    pls_store *store;
    assert_int_equal(pls_store_find(fx->dir, "new", &store, NULL), PLS_OK);
    assert_int_equal(append_as(store, 1), PLS_OK);
    pls_store_release(store);
    assert_int_equal(pls_store_claim(fx->dir, "../new", "", NULL, &epoch, NULL), PLS_INVALID_NAME);
}

static void nobody_but_the_claimer_writes(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_seal given = seal(fx->store);
    claim_s(fx, "me");
    const uint64_t others[] = {0, 2, UINT64_MAX};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const struct pls_compact_options options = {.epoch = others[i]};
        struct pls_seal another;
        struct outcome outcome;
        assert_int_equal(append_as(fx->store, others[i]), PLS_EPOCH_STALE);
        assert_int_equal(pls_store_seal(fx->store, others[i], &another, NULL), PLS_EPOCH_STALE);
        assert_int_equal(pls_store_delete(fx->dir, "s", others[i], "", NULL), PLS_EPOCH_STALE);
        compact(fx->store, &given, &options, NULL, 0, &outcome);
        assert_int_equal(outcome.code, PLS_EPOCH_STALE);
    }
    assert_int_equal(disk_usage(fx->store), 11);
    assert_text(fx->store, &ref, "payload");
    assert_int_equal(append_as(fx->store, 1), PLS_OK);
    assert_int_equal(pls_store_seal(fx->store, 1, &given, NULL), PLS_OK);
    const struct pls_compact_options mine = {.epoch = 1};
    struct outcome outcome;
    compact(fx->store, &given, &mine, &ref, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
    assert_int_equal(pls_store_delete(fx->dir, "s", 1, "", NULL), PLS_OK);
}

static void a_claim_on_a_condition_takes_no_other_epoch(void **state)
{
    struct fixture *fx = *state;
    assert_int_equal(claim_if(fx, "s", 1), PLS_EPOCH_DIFFERS);
    assert_claimed(fx->store, 0, "");
    assert_int_equal(claim_if(fx, "s", 0), PLS_OK);
    assert_int_equal(claim_if(fx, "s", 0), PLS_EPOCH_DIFFERS);
    assert_int_equal(claim_if(fx, "s", 1), PLS_OK);
    assert_claimed(fx->store, 2, "me");
    assert_int_equal(claim_if(fx, "new", 1), PLS_EPOCH_DIFFERS);
    assert_false(file_exists(fx, "new"));
    assert_int_equal(claim_if(fx, "new", 0), PLS_OK);
}

static void an_owner_has_room_for_255_bytes(void **state)
{
    struct fixture *fx = *state;
    char owner[PLS_OWNER_MAX + 2] = {0};
    uint64_t epoch;
    memset(owner, 'x', PLS_OWNER_MAX + 1);
    assert_int_equal(pls_store_claim(fx->dir, "s", owner, NULL, &epoch, NULL),
                     PLS_INVALID_ARGUMENT);
    assert_int_equal(pls_store_claim(fx->dir, "new", owner, NULL, &epoch, NULL),
                     PLS_INVALID_ARGUMENT);
    assert_false(file_exists(fx, "new"));
    assert_claimed(fx->store, 0, "");
    owner[PLS_OWNER_MAX] = '\0';
    claim_s(fx, owner);
    fx_reopen(fx);
    assert_claimed(fx->store, 1, owner);
    claim_s(fx, "");
    assert_claimed(fx->store, 2, "");
}

static void an_epoch_survives_restarts_and_deletion(void **state)
{
    struct fixture *fx = *state;
    claim_s(fx, "me");
    fx_crash(fx);
    assert_claimed(fx->store, 1, "me");
    claim_s(fx, "you");
    fx_reopen(fx);
    assert_claimed(fx->store, 2, "you");
    assert_int_equal(append_as(fx->store, 1), PLS_EPOCH_STALE);
    assert_int_equal(pls_store_delete(fx->dir, "s", 2, "", NULL), PLS_OK);
    pls_store_release(fx->store);
    assert_int_equal(pls_store_open(fx->dir, "s", 2, &fx->store, NULL), PLS_OK);
    assert_claimed(fx->store, 2, ""); /* nobody has claimed this one */
    assert_int_equal(append_as(fx->store, 0), PLS_EPOCH_STALE);
    assert_int_equal(pls_store_delete(fx->dir, "s", 2, "", NULL), PLS_OK);
    assert_int_equal(claim_s(fx, "me"), 3); /* makes it, whatever the epoch */
}

static void a_stale_writer_makes_no_store(void **state)
{
    struct fixture *fx = *state;
    pls_store *store;
    assert_int_equal(pls_store_open(fx->dir, "new", 1, &store, NULL), PLS_EPOCH_STALE);
    assert_false(file_exists(fx, "new"));
    claim_s(fx, "me");
    assert_int_equal(pls_store_delete(fx->dir, "s", 1, "", NULL), PLS_OK);
    for (int restarted = 0; restarted < 2; restarted++) {
        assert_int_equal(pls_store_open(fx->dir, "s", 0, &store, NULL), PLS_EPOCH_STALE);
        assert_int_equal(pls_store_open(fx->dir, "s", 2, &store, NULL), PLS_EPOCH_STALE);
        assert_int_equal(claim_if(fx, "s", 0), PLS_EPOCH_DIFFERS);
        assert_int_equal(pls_store_find(fx->dir, "s", &store, NULL), PLS_NO_STORE);
        assert_int_equal(file_count(fx, "s", "payload_"), 0);
        pls_store_release(fx->store);
        fx->store = NULL;
        assert_int_equal(pls_dir_close(fx->dir), PLS_OK);
        assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, NULL), PLS_OK);
    }
    assert_int_equal(pls_store_open(fx->dir, "s", 1, &store, NULL), PLS_OK);
    pls_store_release(store);
}

static void no_epoch_comes_after_the_last(void **state)
{
    struct fixture *fx = *state;
    fx->store->state.epoch = UINT64_MAX - 1;
    atomic_store(&fx->store->epoch, UINT64_MAX - 1);
    assert_true(claim_s(fx, "last") == UINT64_MAX);
    uint64_t epoch;
    assert_int_equal(pls_store_claim(fx->dir, "s", "", NULL, &epoch, NULL), PLS_IDS_USED_UP);
    assert_int_equal(append_as(fx->store, UINT64_MAX), PLS_OK);
    assert_int_equal(append_as(fx->store, 0), PLS_EPOCH_STALE);
}

/* Whatever of it reached the disk: the one before goes on until a claim is answered. */
static void a_claim_that_fails_leaves_the_writer_alone(void **state)
{
    struct fixture *fx = *state;
    enum pls_code code = PLS_IO;
    long n = 0;
    for (; code != PLS_OK; n++) {
        uint64_t epoch;
        assert_int_equal(append_as(fx->store, 0), PLS_OK);
        plsi_sys_fail_at(n + 1, ENOSPC);
        code = pls_store_claim(fx->dir, "s", "me", NULL, &epoch, NULL);
        plsi_sys_fail_at(0, 0);
        assert_claimed(fx->store, code == PLS_OK, code == PLS_OK ? "me" : "");
    }
    assert_true(n > 3);
    assert_int_equal(append_as(fx->store, 0), PLS_EPOCH_STALE);
    assert_int_equal(append_as(fx->store, 1), PLS_OK);
}

/* -- compactions of the one before -- */

/* The sealed records are as they were, and the claimer may compact them at once. */
static void assert_claimer_compacts(pls_store *store, uint64_t epoch, const struct pls_seal *given,
                                    const struct pls_ref *refs, size_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_filled(store, &refs[i], i);
    }
    const struct pls_compact_options options = {.epoch = epoch};
    struct outcome outcome;
    compact(store, given, &options, refs, n, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, n);
    outcome_fini(&outcome);
}

static void a_compaction_that_gathers_is_stale(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 100, 0);
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {0};
    pls_compact *compaction;
    assert_int_equal(pls_compact_begin(fx->store, &given, &options, &compaction, NULL), PLS_OK);
    claim_s(fx, "me");
    assert_int_equal(pls_compact_live(compaction, &ref, 1, NULL), PLS_OK);
    assert_int_equal(pls_compact_run(compaction, NULL, NULL, NULL), PLS_EPOCH_STALE);
    pls_compact_destroy(compaction);
    assert_claimer_compacts(fx->store, 1, &given, &ref, 1);
}

struct runner {
    pls_compact *compaction;
    enum pls_code code;
};

static void *run_compaction(void *arg)
{
    struct runner *runner = arg;
    runner->code = pls_compact_run(runner->compaction, NULL, NULL, NULL);
    return NULL;
}

static bool has_committed(struct fixture *fx)
{
    struct plsi_relocations *table = plsi_table_relocations(&fx->store->table);
    plsi_relocations_release(table);
    return table != NULL;
}

static void a_compaction_that_runs_has_ended_when_the_claim_is_answered(void **state)
{
    struct fixture *fx = *state;
    enum { N = 16 };
    struct pls_ref refs[N];
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, MIB, i);
    }
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {0};
    struct runner runner;
    pthread_t thread;
    assert_int_equal(pls_compact_begin(fx->store, &given, &options, &runner.compaction, NULL),
                     PLS_OK);
    assert_int_equal(pls_compact_live(runner.compaction, refs, N, NULL), PLS_OK);
    assert_int_equal(pthread_create(&thread, NULL, run_compaction, &runner), 0);
    /* In the middle of it; a quick one may have got through. */
    while (file_count(fx, "s", "compact_") == 0 && !has_committed(fx)) {
    }
    uint64_t epoch = claim_s(fx, "me");
    size_t unfinished = file_count(fx, "s", "compact_");
    bool committed = has_committed(fx);
    pthread_join(thread, NULL);
    pls_compact_destroy(runner.compaction);
    assert_int_equal(unfinished, 0);
    assert_int_equal(runner.code, committed ? PLS_OK : PLS_EPOCH_STALE);
    assert_claimer_compacts(fx->store, epoch, &given, refs, N);
}

/* -- appends of the one before -- */

/* A write that waits until it is let go. */
static struct {
    const struct plsi_backend_ops *ops;
    struct plsi_blob *blob;
    uint64_t offset;
    struct iovec *iov;
    int n;
    plsi_append_fn *done;
    void *arg;
    atomic_bool written;
} held;

static void hold_append(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                        plsi_append_fn *done, void *arg)
{
    blob->ops = held.ops;
    held.blob = blob;
    held.offset = offset;
    held.iov = iov;
    held.n = n;
    held.done = done;
    held.arg = arg;
}

static void held_is_written(void *arg, enum pls_code code)
{
    atomic_store(&held.written, true);
    held.done(arg, code);
}

struct pending {
    struct pls_append append;
    struct iovec part;
    atomic_int code; /* -1: not answered */
};

static void on_pending(struct pls_append *append, enum pls_code code)
{
    struct pending *pending = append->data;
    atomic_store(&pending->code, (int)code);
}

static void append_pending(pls_store *store, struct pending *pending)
{
    *pending = (struct pending){.part = {(void *)"payload", 7}, .code = -1};
    pending->append = (struct pls_append){
        .payload = &pending->part, .n_payload = 1, .done = on_pending, .data = pending};
    pls_append(store, &pending->append);
}

struct claimer {
    struct fixture *fx;
    bool written; /* when the claim was answered */
    uint64_t epoch;
};

static void *claim_while_writing(void *arg)
{
    struct claimer *claimer = arg;
    if (pls_store_claim(claimer->fx->dir, "s", "me", NULL, &claimer->epoch, NULL) == PLS_OK) {
        claimer->written = atomic_load(&held.written);
    }
    return NULL;
}

static void a_write_on_its_way_is_waited_for_and_what_is_queued_refused(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    struct plsi_blob *blob = fx->store->active->blob;
    held.ops = blob->ops;
    struct plsi_backend_ops holding = *blob->ops;
    holding.append = hold_append;
    blob->ops = &holding;
    struct pending written, queued;
    append_pending(fx->store, &written);
    append_pending(fx->store, &queued);
    struct claimer claimer = {.fx = fx};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, claim_while_writing, &claimer), 0);
    for (int patience = 0; atomic_load(&queued.code) == -1 && patience < 1000000; patience++) {
        sched_yield();
    }
    for (int i = 0; i < 1000; i++) {
        sched_yield(); /* time for a claim that does not wait to be answered */
    }
    held.ops->append(held.blob, held.offset, held.iov, held.n, held_is_written, held.arg);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&queued.code), PLS_EPOCH_STALE);
    assert_int_equal(atomic_load(&written.code), PLS_OK);
    assert_int_equal(claimer.epoch, 1);
    assert_true(claimer.written);
    assert_int_equal(disk_usage(fx->store), 22);
    assert_int_equal(append_as(fx->store, 1), PLS_OK);
}

enum { WRITERS = 6, ROUNDS = 40 };

struct writer {
    pls_store *store;
    uint64_t epoch;
    atomic_uint *answered; /* of all of them */
    bool synced;
    enum pls_code end; /* what it was refused with */
};

static void *append_until_refused(void *arg)
{
    struct writer *me = arg;
    static const uint8_t data[20 * KIB];
    struct pls_ref ref;
    while ((me->end = try_append_as(me->store, me->epoch, data, sizeof data,
                                    me->synced ? PLS_SYNCED : PLS_BUFFERED, &ref)) == PLS_OK) {
        atomic_fetch_add(me->answered, 1);
    }
    return NULL;
}

static void assert_size(const struct pls_stat *stat, uint64_t records)
{
    assert_int_equal(stat->records, records);
    assert_int_equal(stat->disk_usage_bytes, records * (20 * KIB + 4));
}

static struct pls_stat size_now(pls_store *store)
{
    struct pls_stat stat;
    struct pls_stat size = {0};
    if (pls_store_stat(store, &stat, NULL) == PLS_OK) {
        size.records = stat.records;
        size.disk_usage_bytes = stat.disk_usage_bytes;
        pls_stat_fini(&stat);
    }
    return size;
}

/* Threads append under one epoch while the next one is claimed. */
static void claim_under_load(struct fixture *fx, uint64_t epoch, atomic_uint *answered)
{
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    unsigned before = atomic_load(answered);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){
            .store = fx->store, .epoch = epoch, .answered = answered, .synced = i % 3 == 0};
        assert_int_equal(pthread_create(&threads[i], NULL, append_until_refused, &writers[i]), 0);
    }
    while (atomic_load(answered) < before + WRITERS) {
        sched_yield();
    }
    assert_int_equal(claim_s(fx, "me"), epoch + 1);
    struct pls_stat then = size_now(fx->store);
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(writers[i].end, PLS_EPOCH_STALE);
    }
    struct pls_stat now = size_now(fx->store);
    assert_size(&now, atomic_load(answered));
    assert_size(&then, atomic_load(answered));
}

static void nothing_older_is_written_once_a_claim_is_answered(void **state)
{
    struct fixture *fx = *state;
    atomic_uint answered = 0;
    plsi_sys_pretend_syncs(true);
    for (uint64_t epoch = 0; epoch < ROUNDS; epoch++) {
        claim_under_load(fx, epoch, &answered);
    }
    plsi_sys_pretend_syncs(false);
    fx_crash(fx);
    struct pls_stat size = size_now(fx->store);
    assert_size(&size, atomic_load(&answered));
}

/* -- claims from all sides -- */

struct contender {
    pls_dir *dir;
    uint64_t epochs[50];
    unsigned wrong;
};

static void *claim_and_delete(void *arg)
{
    struct contender *me = arg;
    for (size_t i = 0; i < 50; i++) {
        me->wrong += pls_store_claim(me->dir, "s", "me", NULL, &me->epochs[i], NULL) != PLS_OK;
        if (i % 5 == 0) {
            enum pls_code code = pls_store_delete(me->dir, "s", me->epochs[i], "", NULL);
            me->wrong += code != PLS_OK && code != PLS_EPOCH_STALE && code != PLS_NO_STORE;
        }
    }
    return NULL;
}

static void no_epoch_is_given_out_twice(void **state)
{
    struct fixture *fx = *state;
    enum { N = 4 };
    struct contender contenders[N] = {0};
    pthread_t threads[N];
    bool seen[N * 50 + 1] = {false};
    plsi_sys_pretend_syncs(true);
    for (size_t i = 0; i < N; i++) {
        contenders[i].dir = fx->dir;
        assert_int_equal(pthread_create(&threads[i], NULL, claim_and_delete, &contenders[i]), 0);
    }
    for (size_t i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
    }
    plsi_sys_pretend_syncs(false);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(contenders[i].wrong, 0);
        for (size_t k = 0; k < 50; k++) {
            uint64_t epoch = contenders[i].epochs[k];
            assert_in_range(epoch, 1, N * 50);
            assert_false(seen[epoch]);
            seen[epoch] = true;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_claim_gives_the_next_epoch_and_notes_its_owner),
        STORE_TEST(a_claim_makes_the_store),
        STORE_TEST(nobody_but_the_claimer_writes),
        STORE_TEST(a_claim_on_a_condition_takes_no_other_epoch),
        STORE_TEST(an_owner_has_room_for_255_bytes),
        STORE_TEST(an_epoch_survives_restarts_and_deletion),
        STORE_TEST(a_stale_writer_makes_no_store),
        STORE_TEST(no_epoch_comes_after_the_last),
        STORE_TEST(a_claim_that_fails_leaves_the_writer_alone),
        STORE_TEST(a_compaction_that_gathers_is_stale),
        STORE_TEST(a_compaction_that_runs_has_ended_when_the_claim_is_answered),
        STORE_TEST(a_write_on_its_way_is_waited_for_and_what_is_queued_refused),
        STORE_TEST(nothing_older_is_written_once_a_claim_is_answered),
        STORE_TEST(no_epoch_is_given_out_twice),
    };
    return cmocka_run_group_tests_name("store_claim", tests, NULL, NULL);
}
