/* Sealing: the numbers of handles, which of them are good, and appends that go on meanwhile. */
#include "store_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "store.h"

static void a_seal_takes_the_highest_id_and_keeps_the_next_one_free(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "before");
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 0, 1);
    assert_int_equal(active_id(fx->store), 2);
    assert_int_equal(file_size(fx, "s/payload_0002.dat"), 0);
    struct pls_ref after = put_text(fx->store, "after");
    assert_ref(&after, 2, 0, 5);
}

static void sealing_again_gives_the_same_handle(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "x");
    seal(fx->store);
    struct pls_seal again = seal(fx->store);
    assert_seal(&again, 0, 1);
    assert_int_equal(active_id(fx->store), 2);
    fx_reopen(fx);
    again = seal(fx->store);
    assert_seal(&again, 0, 1);
    fx_crash(fx);
    again = seal(fx->store);
    assert_seal(&again, 0, 1);
}

static void an_empty_store_can_be_sealed(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 0, 1);
    given = seal(fx->store);
    assert_seal(&given, 0, 1);
    assert_int_equal(compact_ok(fx->store, &given, NULL, 0).deleted_segments, 1);
    assert_int_equal(disk_usage(fx->store), 0);
}

static void sealing_after_an_append_gives_another_handle(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "x");
    seal(fx->store);
    put_text(fx->store, "y");
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 2, 3);
    assert_int_equal(active_id(fx->store), 4);
}

static void sealing_after_an_append_and_a_restart_gives_another_handle(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "x");
    seal(fx->store);
    put_text(fx->store, "y");
    fx_reopen(fx);
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 2, 3);
    put_text(fx->store, "z");
    fx_crash(fx);
    struct pls_ref ref = put_text(fx->store, "in a new segment, after a crash");
    assert_ref(&ref, 5, 0, ref.length);
    given = seal(fx->store);
    assert_seal(&given, 5, 6);
}

static void sealing_after_a_compaction_gives_another_handle(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref live = put_text(fx->store, "x");
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &live, 1);
    given = seal(fx->store);
    assert_seal(&given, 2, 3);
    fx_reopen(fx);
    given = seal(fx->store);
    assert_seal(&given, 2, 3);
}

static void after_a_compaction_that_left_nothing_the_next_seal_is_another(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "x");
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, NULL, 0);
    given = seal(fx->store);
    assert_seal(&given, 2, 3);
}

static void a_rotation_between_seals_is_covered(void **state)
{
    struct fixture *fx = *state;
    for (uint32_t i = 0; i < 5; i++) {
        put_filled(fx->store, MIB, i);
    }
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, 4, 5);
    assert_int_equal(active_id(fx->store), 6);
}

static void several_handles_are_open_until_a_later_one_commits(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal handles[3];
    struct pls_ref refs[3];
    for (size_t i = 0; i < 3; i++) {
        refs[i] = put_text(fx->store, "payload");
        handles[i] = seal(fx->store);
    }
    fx_reopen(fx);
    struct outcome outcome;
    compact(fx->store, &handles[1], NULL, refs, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 2);
    outcome_fini(&outcome);
    compact(fx->store, &handles[0], NULL, refs, 1, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_SUPERSEDED);
    compact(fx->store, &handles[1], NULL, refs, 2, &outcome); /* the last one: its answer again */
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_map, 2);
    outcome_fini(&outcome);
    fx_crash(fx);
    compact(fx->store, &handles[0], NULL, refs, 1, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_SUPERSEDED);
    compact(fx->store, &handles[2], NULL, &refs[2], 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
}

static void an_earlier_compaction_leaves_a_later_handle_open(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal first = seal(fx->store);
    struct pls_ref b = put_text(fx->store, "b");
    struct pls_seal second = seal(fx->store);
    struct outcome one, two;
    compact(fx->store, &first, NULL, &a, 1, &one);
    assert_int_equal(one.code, PLS_OK);
    assert_int_equal(moved(&one, &a)->file_id, first.compaction_id);
    /* What the first one wrote lies below the second's sealed id. */
    struct pls_ref live[] = {*moved(&one, &a), b};
    compact(fx->store, &second, NULL, live, 2, &two);
    assert_int_equal(two.code, PLS_OK);
    assert_text(fx->store, moved(&two, &live[0]), "a");
    assert_text(fx->store, moved(&two, &live[1]), "b");
    outcome_fini(&one);
    outcome_fini(&two);
}

static void handles_that_were_never_given_are_unknown(void **state)
{
    struct fixture *fx = *state;
    struct outcome outcome;
    put_text(fx->store, "x");
    const struct pls_seal early = {.sealed_id = 0, .compaction_id = 1};
    compact(fx->store, &early, NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_UNKNOWN);
    seal(fx->store);
    const struct pls_seal never[] = {{0, 0}, {0, 2}, {1, 2}, {2, 3}, {UINT32_MAX, 0}, {7, 8}};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        compact(fx->store, &never[i], NULL, NULL, 0, &outcome);
        assert_int_equal(outcome.code, PLS_HANDLE_UNKNOWN);
        assert_string_not_equal(outcome.error.text, "");
    }
}

static void of_very_many_open_handles_the_oldest_go(void **state)
{
    enum { N = 130 };
    struct fixture *fx = *state;
    struct pls_seal handles[N];
    struct outcome outcome;
    for (size_t i = 0; i < N; i++) {
        put_text(fx->store, "x");
        handles[i] = seal(fx->store);
    }
    fx_reopen(fx);
    compact(fx->store, &handles[1], NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_SUPERSEDED);
    compact(fx->store, &handles[2], NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
    compact(fx->store, &handles[N - 1], NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
    assert_int_equal(disk_usage(fx->store), 0);
}

static void another_epoch_cannot_seal(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal given;
    assert_int_equal(pls_store_seal(fx->store, 7, &given, NULL), PLS_EPOCH_STALE);
    assert_int_equal(active_id(fx->store), 0);
}

/* -- appends that go on meanwhile -- */

enum { APPENDERS = 3, EACH = 400 };

struct appender {
    pls_store *store;
    atomic_uint *sealed_below; /* every segment below this one is known to be frozen */
    uint32_t seed;
    struct pls_ref refs[EACH];
    unsigned failed, too_late;
};

static void *append_many(void *arg)
{
    struct appender *me = arg;
    uint8_t data[512];
    for (uint32_t i = 0; i < EACH; i++) {
        unsigned frozen = atomic_load(me->sealed_below);
        fill(data, sizeof data, me->seed + i);
        me->failed += try_append(me->store, data, sizeof data,
                                 i % 16 == 0 ? PLS_SYNCED : PLS_BUFFERED, &me->refs[i]) != PLS_OK;
        me->too_late += me->refs[i].file_id < frozen;
        me->failed += !reads_filled(me->store, &me->refs[i], me->seed + i);
    }
    return NULL;
}

static void appends_during_seals_are_never_lost_and_never_too_late(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 20000;
    fx_reopen(fx);
    atomic_uint sealed_below = 0;
    struct appender *all = calloc(APPENDERS, sizeof *all);
    pthread_t threads[APPENDERS];
    assert_non_null(all);
    for (uint32_t i = 0; i < APPENDERS; i++) {
        all[i].store = fx->store;
        all[i].sealed_below = &sealed_below;
        all[i].seed = i * EACH;
        assert_int_equal(pthread_create(&threads[i], NULL, append_many, &all[i]), 0);
    }
    for (int i = 0; i < 40; i++) {
        struct pls_seal given = seal(fx->store);
        atomic_store(&sealed_below, given.sealed_id + 1);
    }
    for (size_t i = 0; i < APPENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    fx_reopen(fx);
    for (size_t i = 0; i < APPENDERS; i++) {
        assert_int_equal(all[i].failed, 0);
        assert_int_equal(all[i].too_late, 0);
        for (uint32_t k = 0; k < EACH; k++) {
            assert_filled(fx->store, &all[i].refs[k], all[i].seed + k);
        }
    }
    free(all);
}

/* -- a backend that takes its time -- */

/* Appends to it are done when the test says so, by the test's thread. */
struct slow {
    const struct plsi_backend_ops *files;
    struct plsi_backend_ops ops;
    pthread_mutex_t lock; /* a leaf; guards what follows: the append that waits */
    bool waits;
    struct plsi_blob *blob;
    uint64_t offset;
    struct iovec *iov;
    int n;
    plsi_append_fn *done;
    void *arg;
};

static struct slow slow = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void slow_append(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                        plsi_append_fn *done, void *arg)
{
    pthread_mutex_lock(&slow.lock);
    slow.waits = true;
    slow.blob = blob;
    slow.offset = offset;
    slow.iov = iov;
    slow.n = n;
    slow.done = done;
    slow.arg = arg;
    pthread_mutex_unlock(&slow.lock);
}

static bool slow_go_on(void)
{
    pthread_mutex_lock(&slow.lock);
    bool waited = slow.waits;
    slow.waits = false;
    pthread_mutex_unlock(&slow.lock);
    if (waited) {
        slow.files->append(slow.blob, slow.offset, slow.iov, slow.n, slow.done, slow.arg);
    }
    return waited;
}

static void make_slow(pls_store *store)
{
    struct plsi_blob *blob = store->active->blob;
    slow.files = blob->ops;
    slow.ops = *blob->ops;
    slow.ops.append = slow_append;
    blob->ops = &slow.ops;
}

struct counted {
    struct pls_append append;
    atomic_int *answered;
    enum pls_code code;
};

static void on_counted(struct pls_append *append, enum pls_code code)
{
    struct counted *counted = append->data;
    counted->code = code;
    atomic_fetch_add(counted->answered, 1);
}

static void submit(pls_store *store, struct counted *counted, const struct iovec *part,
                   atomic_int *answered)
{
    *counted = (struct counted){.answered = answered,
                                .append = {.payload = part,
                                           .n_payload = 1,
                                           .durability = PLS_BUFFERED,
                                           .done = on_counted,
                                           .data = counted}};
    pls_append(store, &counted->append);
}

struct sealer {
    pls_store *store;
    atomic_bool answered;
    struct pls_seal given;
};

static void *seal_it(void *arg)
{
    struct sealer *sealer = arg;
    pls_store_seal(sealer->store, 0, &sealer->given, NULL);
    atomic_store(&sealer->answered, true);
    return NULL;
}

static uint32_t active_now(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    uint32_t id = store->active->id;
    pthread_mutex_unlock(&store->queue_lock);
    return id;
}

static void a_seal_waits_for_the_write_that_is_on_its_way(void **state)
{
    struct fixture *fx = *state;
    struct iovec part = {(char *)"payload", 7};
    atomic_int answered = 0;
    struct counted first, second;
    make_slow(fx->store);
    submit(fx->store, &first, &part, &answered);
    submit(fx->store, &second, &part, &answered); /* waits for the first one's write */
    struct sealer sealer = {.store = fx->store};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, seal_it, &sealer), 0);
    while (active_now(fx->store) == 0) {
        sched_yield();
    }
    for (int i = 0; i < 2000; i++) { /* time enough to answer too early */
        assert_false(atomic_load(&sealer.answered));
        sched_yield();
    }
    assert_int_equal(atomic_load(&answered), 0);
    assert_true(slow_go_on());
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&answered), 2);
    assert_seal(&sealer.given, 0, 1);
    assert_int_equal(first.code, PLS_OK);
    assert_int_equal(second.code, PLS_OK);
    assert_ref(&first.append.ref, 0, 0, 7);
    assert_ref(&second.append.ref, 2, 0, 7); /* queued, and so written behind the seal */
    assert_text(fx->store, &first.append.ref, "payload");
    assert_text(fx->store, &second.append.ref, "payload");
}

static void appends_that_wait_share_one_write(void **state)
{
    enum { N = 50 };
    struct fixture *fx = *state;
    struct iovec part = {(char *)"payload", 7};
    atomic_int answered = 0;
    static struct counted appends[N];
    make_slow(fx->store);
    for (size_t i = 0; i < N; i++) {
        submit(fx->store, &appends[i], &part, &answered);
    }
    assert_true(slow_go_on()); /* the first alone, while the others came */
    assert_int_equal(atomic_load(&answered), 1);
    assert_true(slow_go_on());
    assert_int_equal(atomic_load(&answered), N);
    assert_false(slow_go_on());
    for (size_t i = 0; i < N; i++) {
        assert_ref(&appends[i].append.ref, 0, i * 11, 7);
        assert_text(fx->store, &appends[i].append.ref, "payload");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_seal_takes_the_highest_id_and_keeps_the_next_one_free),
        STORE_TEST(sealing_again_gives_the_same_handle),
        STORE_TEST(an_empty_store_can_be_sealed),
        STORE_TEST(sealing_after_an_append_gives_another_handle),
        STORE_TEST(sealing_after_an_append_and_a_restart_gives_another_handle),
        STORE_TEST(sealing_after_a_compaction_gives_another_handle),
        STORE_TEST(after_a_compaction_that_left_nothing_the_next_seal_is_another),
        STORE_TEST(a_rotation_between_seals_is_covered),
        STORE_TEST(several_handles_are_open_until_a_later_one_commits),
        STORE_TEST(an_earlier_compaction_leaves_a_later_handle_open),
        STORE_TEST(handles_that_were_never_given_are_unknown),
        STORE_TEST(of_very_many_open_handles_the_oldest_go),
        STORE_TEST(another_epoch_cannot_seal),
        STORE_TEST(appends_during_seals_are_never_lost_and_never_too_late),
        STORE_TEST(a_seal_waits_for_the_write_that_is_on_its_way),
        STORE_TEST(appends_that_wait_share_one_write),
    };
    return cmocka_run_group_tests_name("store_seal", tests, NULL, NULL);
}
