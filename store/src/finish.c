/*
 * A segment that takes no more appends: synced, its index written out, synced and marked complete.
 * From then on the next open takes the index as it is. Nobody waits for it: what is not finished is
 * walked at the next open.
 */
#include <inttypes.h>

#include "error.h"
#include "log.h"
#include "store.h"

#define STORE_OF(job_) ((pls_store *)((char *)(job_)-offsetof(pls_store, finish_job)))

struct plsi_blob *plsi_segment_index_file(pls_store *store, uint32_t id)
{
    char name[PLSI_FILE_NAME];
    struct plsi_blob *file;
    struct pls_error error;
    plsi_index_name(id, name);
    enum pls_code code = store->backend->ops->make_derived(store->backend, name, &file, &error);
    if (code == PLS_OK) {
        code = plsi_index_begin_file(file, id);
        if (code == PLS_OK) {
            return file;
        }
        file->ops->release(file);
        plsi_fail(&error, code, "writing %s: %s", name, pls_strerror(code));
    }
    plsi_log(store->dir, PLS_LOG_WARNING, store->name, "index_failed", "%s; it stays in memory",
             error.text);
    return NULL;
}

void plsi_store_finish(pls_store *store, struct plsi_segment *segment, bool synced)
{
    enum pls_code code = plsi_segment_finish(segment, synced);
    if (code != PLS_OK) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "index_failed",
                 "segment %" PRIu32 " is not marked complete, the next start walks it: %s",
                 segment->id, pls_strerror(code));
    }
}

void plsi_finish_submit(pls_store *store, struct plsi_segment *segment)
{
    plsi_segment_hold(segment);
    pthread_mutex_lock(&store->queue_lock);
    segment->next_to_finish = NULL;
    if (store->first_to_finish == NULL) {
        store->first_to_finish = segment;
    } else {
        store->last_to_finish->next_to_finish = segment;
    }
    store->last_to_finish = segment;
    bool start = !store->finishing;
    store->finishing = true;
    pthread_mutex_unlock(&store->queue_lock);
    if (start) {
        pls_dir_run(store->dir, &store->finish_job);
    }
}

/* NULL: none is left, and the job at its end. */
static struct plsi_segment *take_next(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_segment *next = store->first_to_finish;
    while (next != NULL && store->batch.segment == next) {
        pthread_cond_wait(&store->idle, &store->queue_lock);
    }
    if (next != NULL) {
        store->first_to_finish = next->next_to_finish;
    } else {
        store->finishing = false;
        pthread_cond_broadcast(&store->idle);
    }
    pthread_mutex_unlock(&store->queue_lock);
    return next;
}

void plsi_finish_job(struct pls_job *job)
{
    pls_store *store = STORE_OF(job);
    struct plsi_segment *segment;
    while ((segment = take_next(store)) != NULL) {
        plsi_store_finish(store, segment, false);
        plsi_segment_release(segment);
    }
}
