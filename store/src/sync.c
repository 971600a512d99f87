/*
 * The shared sync: all appends that wait for one are answered after a single sync of their segment.
 * While it runs, the next group gathers: its small appends stay in the queue, and are written with
 * one write before the next sync.
 *
 * A sync takes about as long for many as for one. So where those that were answered just now are
 * likely to append again at once, the next sync waits for them, for as long as a sync takes at
 * most; without that half of the callers would always be too late for it. Whether they are is
 * learnt from whether they were: after waiting in vain the next syncs do not wait.
 *
 * A failed sync is never tried again: the kernel may have dropped the pages and call them clean.
 * The segment is suspect from then on, the waiting callers get IO, and the next append goes to a
 * new segment.
 */
#include <time.h>

#include "clock.h"
#include "log.h"
#include "store.h"

#define STORE_OF(job_) ((pls_store *)((char *)(job_)-offsetof(pls_store, sync_job)))
#define SYNC_LEAST_NS  50000    /* one that takes less is not worth waiting for */
#define SYNC_MOST_NS   10000000 /* that is waited for */
#define PAUSES         2        /* in the time of a sync; where nobody comes in one, nobody will */
#define SKIPS_MAX      63u

void plsi_sync_submit(pls_store *store, struct plsi_appends *appends)
{
    pthread_mutex_lock(&store->queue_lock);
    if (store->to_sync.first == NULL) {
        store->to_sync = *appends;
    } else {
        store->to_sync.last->next = appends->first;
        store->to_sync.last = appends->last;
        store->to_sync.n += appends->n;
    }
    bool start = !store->syncing;
    store->syncing = true;
    plsi_sync_wake(store);
    pthread_mutex_unlock(&store->queue_lock);
    if (start) {
        pls_dir_run(store->dir, &store->sync_job);
    }
}

/* -- gathering --------------------------------------------------------------------------------- */

/* Under queue_lock. */
static size_t count_waiting(const pls_store *store)
{
    return store->to_sync.n + store->queue.n;
}

void plsi_sync_wake(pls_store *store)
{
    if (store->group.wanted != 0 && count_waiting(store) >= store->group.wanted) {
        pthread_cond_signal(&store->group.gathered);
    }
}

static void wait_until(pls_store *store, int64_t ns)
{
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    pthread_cond_clockwait(&store->group.gathered, &store->queue_lock, CLOCK_MONOTONIC, &time);
}

/* Until `wanted` appends wait, nobody else comes, or a sync that had begun at once would be over.
 * Under queue_lock. */
static void wait_for(pls_store *store, size_t wanted)
{
    struct plsi_sync_group *group = &store->group;
    int64_t pause = group->sync_ns / PAUSES, end = group->ended_ns + group->sync_ns;
    int64_t now = plsi_machine_ns();
    bool coming = true;
    group->wanted = wanted;
    while (coming && count_waiting(store) < wanted && now < end) {
        size_t seen = count_waiting(store);
        wait_until(store, now + pause);
        coming = count_waiting(store) > seen;
        now = plsi_machine_ns();
    }
    group->wanted = 0;
}

/* Under queue_lock. */
static void note_waited(struct plsi_sync_group *group, bool in_vain)
{
    group->skips = !in_vain ? 0 : group->skips < SKIPS_MAX ? group->skips * 2 + 1 : SKIPS_MAX;
    group->left = group->skips;
}

/* After a sync that so many were answered by. */
static void gather(pls_store *store, size_t answered)
{
    struct plsi_sync_group *group = &store->group;
    pthread_mutex_lock(&store->queue_lock);
    size_t wanted = group->behind + answered;
    if (wanted > 1 && group->sync_ns >= SYNC_LEAST_NS) {
        if (group->left > 0) {
            group->left--;
        } else {
            wait_for(store, wanted);
            note_waited(group, count_waiting(store) < wanted);
        }
    }
    pthread_mutex_unlock(&store->queue_lock);
}

/* -- syncing ----------------------------------------------------------------------------------- */

/* Takes all that wait; false, with the syncer gone, where nobody does. */
static bool take_waiting(pls_store *store, struct plsi_appends *waiting)
{
    pthread_mutex_lock(&store->queue_lock);
    *waiting = store->to_sync;
    store->to_sync = (struct plsi_appends){0};
    bool left = store->queue.first != NULL && !plsi_has_writer(store); /* since the last look */
    if (waiting->first == NULL && !left) {
        store->syncing = false;
        pthread_cond_broadcast(&store->idle);
    }
    bool some = store->syncing;
    pthread_mutex_unlock(&store->queue_lock);
    return some;
}

/* An eighth of what it took now, and the rest of what it took before. */
static void note_time(pls_store *store, int64_t start)
{
    struct plsi_sync_group *group = &store->group;
    int64_t now = plsi_machine_ns();
    int64_t ns = now - start < SYNC_MOST_NS ? now - start : SYNC_MOST_NS;
    pthread_mutex_lock(&store->queue_lock);
    group->ended_ns = now;
    group->behind = count_waiting(store);
    group->sync_ns = group->sync_ns == 0 ? ns : group->sync_ns + (ns - group->sync_ns) / 8;
    pthread_mutex_unlock(&store->queue_lock);
}

static enum pls_code sync_segment(pls_store *store, struct plsi_segment *segment)
{
    bool suspect = atomic_load(&segment->suspect);
    int64_t start = plsi_machine_ns();
    enum pls_code code = plsi_segment_sync(segment);
    note_time(store, start);
    if (code != PLS_OK && !suspect) {
        plsi_log(store->dir, PLS_LOG_ERROR, store->name, "sync_failed",
                 "segment %u could not be synced; it takes no more appends", segment->id);
    }
    return code;
}

/* Syncs the first append's segment, and answers every append of it: they stand together, in file
 * order. */
static void sync_first(pls_store *store, struct plsi_appends *waiting)
{
    struct plsi_segment *segment = plsi_segment_hold(waiting->first->segment);
    enum pls_code code = sync_segment(store, segment);
    while (waiting->first != NULL && waiting->first->segment == segment) {
        struct pls_append *append = plsi_appends_pop(waiting);
        plsi_segment_release(append->segment);
        append->segment = NULL;
        append->done(append, code);
    }
    plsi_segment_release(segment);
}

void plsi_sync_job(struct pls_job *job)
{
    pls_store *store = STORE_OF(job);
    struct plsi_appends waiting;
    plsi_append_left(store);
    while (take_waiting(store, &waiting)) {
        size_t n = waiting.n;
        while (waiting.first != NULL) {
            sync_first(store, &waiting);
        }
        gather(store, n);
        plsi_append_left(store);
    }
}
