/* Group commit: who waits for a sync, who does not, and how many syncs there are. */
#include "store_fixture.h"

#include <sched.h>
#include <time.h>

#include "clock.h"
#include "store.h"

#define N       64
#define SLOW_NS 20000000

/* A blob whose syncs last until they are told to end. */
static struct held {
    const struct plsi_backend_ops *files;
    struct plsi_backend_ops ops;
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t changed;
    bool hold;
    bool slow; /* as a disk is */
    int syncs; /* begun */
    int writes;
    int answered;
    int failed;
} held = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static enum pls_code held_sync(struct plsi_blob *blob)
{
    pthread_mutex_lock(&held.lock);
    held.syncs++;
    pthread_cond_broadcast(&held.changed);
    while (held.hold) {
        pthread_cond_wait(&held.changed, &held.lock);
    }
    bool slow = held.slow;
    pthread_mutex_unlock(&held.lock);
    if (slow) {
        nanosleep(&(struct timespec){.tv_nsec = SLOW_NS}, NULL);
    }
    return held.files->sync(blob);
}

static void counted_append(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                           plsi_append_fn *done, void *arg)
{
    pthread_mutex_lock(&held.lock);
    held.writes++;
    pthread_mutex_unlock(&held.lock);
    held.files->append(blob, offset, iov, n, done, arg);
}

static void hold_syncs(pls_store *store)
{
    struct plsi_blob *blob = store->active->blob;
    held.files = blob->ops;
    held.ops = *blob->ops;
    held.ops.sync = held_sync;
    held.ops.append = counted_append;
    held.hold = true;
    held.slow = false;
    held.syncs = held.writes = held.answered = held.failed = 0;
    blob->ops = &held.ops;
}

static void wait_for(const int *what, int n)
{
    pthread_mutex_lock(&held.lock);
    while (*what < n) {
        pthread_cond_wait(&held.changed, &held.lock);
    }
    pthread_mutex_unlock(&held.lock);
}

static int answered(void)
{
    pthread_mutex_lock(&held.lock);
    int n = held.answered;
    pthread_mutex_unlock(&held.lock);
    return n;
}

static void let_go(void)
{
    pthread_mutex_lock(&held.lock);
    held.hold = false;
    pthread_cond_broadcast(&held.changed);
    pthread_mutex_unlock(&held.lock);
}

static void on_append(struct pls_append *append, enum pls_code code)
{
    (void)append;
    pthread_mutex_lock(&held.lock);
    held.answered++;
    held.failed += code != PLS_OK;
    pthread_cond_broadcast(&held.changed);
    pthread_mutex_unlock(&held.lock);
}

static void submit(pls_store *store, struct pls_append *appends, int n)
{
    static char text[] = "synced";
    static struct iovec part = {.iov_base = text, .iov_len = 6};
    for (int i = 0; i < n; i++) {
        appends[i] = (struct pls_append){
            .payload = &part, .n_payload = 1, .durability = PLS_SYNCED, .done = on_append};
        pls_append(store, &appends[i]);
    }
}

/* The first one's sync runs; what comes meanwhile waits for the next, all of it. */
static void appends_that_wait_share_one_write_and_one_sync(void **state)
{
    struct fixture *fx = *state;
    struct pls_append appends[N];
    put_text(fx->store, "the segment is there");
    hold_syncs(fx->store);
    submit(fx->store, appends, 1);
    wait_for(&held.syncs, 1);
    submit(fx->store, appends + 1, N - 1);
    int before = answered();
    let_go();
    wait_for(&held.answered, N);
    assert_int_equal(before, 0);
    assert_int_equal(held.failed, 0);
    assert_int_equal(held.syncs, 2);
    assert_int_equal(held.writes, 2);
    for (int i = 0; i < N; i++) {
        assert_text(fx->store, &appends[i].ref, "synced");
    }
}

static void a_sync_holds_up_nobody_who_asked_for_none(void **state)
{
    struct fixture *fx = *state;
    struct pls_append append;
    pls_store *other;
    assert_int_equal(pls_store_open(fx->dir, "other", 0, &other, NULL), PLS_OK);
    struct pls_ref first = put_filled(fx->store, 1000, 1), second, others;
    hold_syncs(fx->store);
    submit(fx->store, &append, 1);
    wait_for(&held.syncs, 1);
    enum pls_code code = try_append(fx->store, "buffered", 8, PLS_BUFFERED, &second);
    enum pls_code other_code = try_append(other, "synced", 6, PLS_SYNCED, &others);
    bool read = reads_filled(fx->store, &first, 1);
    int before = answered();
    let_go();
    wait_for(&held.answered, 1);
    assert_int_equal(code, PLS_OK);
    assert_int_equal(other_code, PLS_OK);
    assert_true(read);
    assert_int_equal(before, 0);
    assert_text(fx->store, &second, "buffered");
    assert_text(other, &others, "synced");
    pls_store_release(other);
}

/* What waits for the next sync is not written yet; an append that waits for none writes it, too,
 * for it comes behind. */
static void what_waits_for_a_sync_keeps_its_place(void **state)
{
    struct fixture *fx = *state;
    struct pls_append appends[N];
    struct pls_ref buffered;
    put_text(fx->store, "the segment is there");
    hold_syncs(fx->store);
    submit(fx->store, appends, 1);
    wait_for(&held.syncs, 1);
    submit(fx->store, appends + 1, N - 1);
    enum pls_code code = try_append(fx->store, "buffered", 8, PLS_BUFFERED, &buffered);
    int before = answered();
    let_go();
    wait_for(&held.answered, N);
    assert_int_equal(code, PLS_OK);
    assert_int_equal(before, 0);
    assert_text(fx->store, &buffered, "buffered");
    for (int i = 0; i < N; i++) {
        assert_int_equal(buffered.offset - appends[i].ref.offset, (N - i) * (4 + 6));
        assert_text(fx->store, &appends[i].ref, "synced");
    }
}

/* Each time all have been answered they append again. Without waiting for them there are two syncs
 * for each time: one for the first to come, one for the others. On a machine that is busy with
 * other things they may come too late: so it is tried again. */
static void who_appends_again_at_once_shares_the_next_sync(void **state)
{
    enum { TIMES = 20, TRIES = 10 };
    struct fixture *fx = *state;
    struct pls_append appends[N];
    put_text(fx->store, "the segment is there");
    hold_syncs(fx->store);
    held.slow = true;
    let_go();
    int syncs = 2 * TIMES;
    for (int try = 0, answers = 0; try < TRIES && syncs > TIMES * 3 / 2; try++) {
        int before = held.syncs;
        for (int i = 0; i < TIMES; i++) {
            answers += N;
            submit(fx->store, appends, N);
            wait_for(&held.answered, answers);
        }
        syncs = held.syncs - before;
    }
    assert_int_equal(held.failed, 0);
    assert_true(syncs <= TIMES * 3 / 2);
}

/* -- two at once ------------------------------------------------------------------------------- */

#define TOLD_ONCE_MS 100 /* for a second sync to come beside the first */

/* A kernel that tells of a failure once: the first to come is told, after the second, where one
 * comes beside it, has heard that all is well. */
static struct {
    struct plsi_backend_ops ops;
    struct plsi_blob blob;
    atomic_int begun, ended;
} told_once;

static enum pls_code sync_told_once(struct plsi_blob *blob)
{
    int64_t until = plsi_now_ms() + TOLD_ONCE_MS;
    (void)blob;
    bool first = atomic_fetch_add(&told_once.begun, 1) == 0;
    while (first && atomic_load(&told_once.ended) == 0 && plsi_now_ms() < until) {
        sched_yield();
    }
    return first ? PLS_IO : PLS_OK;
}

static void release_nothing(struct plsi_blob *blob)
{
    (void)blob;
}

static void *sync_one(void *segment)
{
    bool synced = plsi_segment_sync(segment) == PLS_OK;
    atomic_store(&told_once.ended, 1);
    return synced ? segment : NULL;
}

/* The finishing of a segment beside the last sync for its appends. */
static void a_failed_sync_is_nobodys_success(void **state)
{
    struct fixture *fx = *state;
    told_once.ops = (struct plsi_backend_ops){.sync = sync_told_once, .release = release_nothing};
    told_once.blob.ops = &told_once.ops;
    atomic_store(&told_once.begun, 0);
    atomic_store(&told_once.ended, 0);
    struct plsi_segment *segment = plsi_segment_create(&fx->dir->blocks, 7, &told_once.blob, NULL);
    assert_non_null(segment);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, sync_one, segment), 0);
    }
    for (int i = 0; i < 2; i++) {
        void *synced;
        assert_int_equal(pthread_join(threads[i], &synced), 0);
        assert_null(synced);
    }
    plsi_segment_release(segment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(appends_that_wait_share_one_write_and_one_sync),
        STORE_TEST(what_waits_for_a_sync_keeps_its_place),
        STORE_TEST(who_appends_again_at_once_shares_the_next_sync),
        STORE_TEST(a_sync_holds_up_nobody_who_asked_for_none),
        STORE_TEST(a_failed_sync_is_nobodys_success),
    };
    return cmocka_run_group_tests_name("store_sync", tests, NULL, NULL);
}
