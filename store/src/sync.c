/*
 * The shared sync: all appends that wait for one are answered after a single sync of their segment.
 * While it runs, the next batch gathers.
 *
 * A failed sync is never tried again: the kernel may have dropped the pages and call them clean.
 * The segment is suspect from then on, the waiting callers get IO, and the next append goes to a
 * new segment.
 */
#include "log.h"
#include "store.h"

#define STORE_OF(job_) ((pls_store *)((char *)(job_)-offsetof(pls_store, sync_job)))

void plsi_sync_submit(pls_store *store, struct plsi_appends *appends)
{
    pthread_mutex_lock(&store->queue_lock);
    if (store->to_sync.first == NULL) {
        store->to_sync = *appends;
    } else {
        store->to_sync.last->next = appends->first;
        store->to_sync.last = appends->last;
    }
    bool start = !store->syncing;
    store->syncing = true;
    pthread_mutex_unlock(&store->queue_lock);
    if (start) {
        pls_dir_run(store->dir, &store->sync_job);
    }
}

/* Takes all that wait; with none left the syncer is gone. */
static struct plsi_appends take_waiting(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_appends waiting = store->to_sync;
    store->to_sync.first = NULL;
    if (waiting.first == NULL) {
        store->syncing = false;
        pthread_cond_broadcast(&store->idle);
    }
    pthread_mutex_unlock(&store->queue_lock);
    return waiting;
}

/* Syncs the first append's segment, and answers every append of it: they stand together, in file
 * order. */
static void sync_first(pls_store *store, struct plsi_appends *waiting)
{
    struct plsi_segment *segment = plsi_segment_hold(waiting->first->segment);
    bool suspect = atomic_load(&segment->suspect);
    enum pls_code code = plsi_segment_sync(segment);
    if (code != PLS_OK && !suspect) {
        plsi_log(store->dir, PLS_LOG_ERROR, store->name, "sync_failed",
                 "segment %u could not be synced; it takes no more appends", segment->id);
    }
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
    while ((waiting = take_waiting(store)).first != NULL) {
        while (waiting.first != NULL) {
            sync_first(store, &waiting);
        }
    }
}
