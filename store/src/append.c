/*
 * Append: a queue, one writer at a time, one gathered write for all that wait.
 *
 * Who finds no writer becomes it, and stays it until the queue is empty. While it writes, others
 * queue: their records make the next batch. A record is answered after its write; one that is to be
 * SYNCED goes on to sync.c.
 */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "checksum.h"
#include "clock.h"
#include "log.h"
#include "store.h"

void plsi_appends_push(struct plsi_appends *list, struct pls_append *append)
{
    append->next = NULL;
    if (list->first == NULL) {
        list->first = append;
    } else {
        list->last->next = append;
    }
    list->last = append;
}

struct pls_append *plsi_appends_pop(struct plsi_appends *list)
{
    struct pls_append *append = list->first;
    if (append != NULL) {
        list->first = append->next;
    }
    return append;
}

void plsi_appends_fail(struct plsi_appends *list, enum pls_code code)
{
    struct pls_append *append;
    while ((append = plsi_appends_pop(list)) != NULL) {
        append->done(append, code);
    }
}

/* -- building a batch, under queue_lock -- */

static void add_to_batch(struct plsi_batch *batch, struct pls_append *append, uint64_t offset)
{
    assert(append->epoch == batch->epoch); /* a claim takes older ones out of the queue */
    append->ref.file_id = batch->segment->id;
    append->ref.offset = offset;
    batch->iov[batch->n_iov++] =
        (struct iovec){.iov_base = append->prefix, .iov_len = sizeof append->prefix};
    if (append->n_payload > 0) {
        memcpy(&batch->iov[batch->n_iov], append->payload,
               (size_t)append->n_payload * sizeof(struct iovec));
        batch->n_iov += append->n_payload;
    }
    plsi_appends_push(&batch->appends, append);
}

/*
 * Moves from the queue what one write may take: as many parts and bytes as a batch has, no record
 * beyond the one that fills the segment, and none that the disk may have no room for beside others:
 * what does not fit is refused by itself.
 */
static void gather(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    batch->segment = plsi_segment_hold(store->active);
    batch->appends.first = NULL;
    batch->n_iov = 0;
    batch->offset = atomic_load(&store->active->end);
    batch->epoch = atomic_load(&store->epoch);

    uint64_t end = batch->offset;
    while (store->queue.first != NULL && end <= store->dir->options.segment_max_bytes &&
           end - batch->offset < PLSI_BATCH_BYTES &&
           batch->n_iov + store->queue.first->n_payload < PLSI_BATCH_IOV &&
           (batch->n_iov == 0 || plsi_room_has(store->dir, end - batch->offset + PLSI_PREFIX +
                                                               store->queue.first->ref.length))) {
        struct pls_append *append = plsi_appends_pop(&store->queue);
        add_to_batch(batch, append, end);
        end += PLSI_PREFIX + append->ref.length;
    }
    batch->bytes = end - batch->offset;
}

enum next { NOTHING, NEEDS_SEGMENT, BATCH };

static enum next take_batch(pls_store *store)
{
    enum next next = BATCH;
    pthread_mutex_lock(&store->queue_lock);
    if (store->queue.first == NULL) {
        store->writing = false;
        pthread_cond_broadcast(&store->idle);
        next = NOTHING;
    } else if (!plsi_segment_usable(store, store->active)) {
        next = NEEDS_SEGMENT;
    } else {
        gather(store);
    }
    pthread_mutex_unlock(&store->queue_lock);
    return next;
}

/* -- ending a batch -- */

static enum pls_code reserve_entries(struct plsi_batch *batch)
{
    uint64_t n = 0;
    for (const struct pls_append *a = batch->appends.first; a != NULL; a = a->next) {
        n++;
    }
    return plsi_index_reserve(batch->segment->index, n);
}

/* The records are in the file: from here on they can be read, and never be taken back. */
static void publish(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    struct plsi_segment *segment = batch->segment;
    uint64_t end = batch->offset;
    for (const struct pls_append *a = batch->appends.first; a != NULL; a = a->next) {
        plsi_index_add(segment->index, &(struct plsi_entry){.offset = a->ref.offset,
                                                            .length = a->ref.length,
                                                            .crc32c = a->ref.crc32c});
        end += PLSI_PREFIX + a->ref.length;
    }
    atomic_store(&segment->bytes, end);
    atomic_store(&segment->end, end);
    /* After the write, not before it: a sync that ran meanwhile may not have seen these bytes. */
    atomic_store(&segment->unsynced, true);
    if (plsi_index_write_behind(segment->index) != PLS_OK) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "index_failed",
                 "the index of segment %u stays in memory: its file cannot be written",
                 segment->id);
    }
}

/* A failed write leaves no trace; where it cannot be undone, or the disk is at fault, the segment
 * ends here. */
static void undo(struct plsi_batch *batch)
{
    struct plsi_segment *segment = batch->segment;
    enum pls_code code = segment->blob->ops->truncate(segment->blob, batch->offset);
    if (code != PLS_OK || batch->code == PLS_IO) {
        plsi_segment_suspect(segment);
    }
}

/* Lets go of the batch's segment; a seal may be waiting for that. A record counts as appended after
 * its write, not before it: so it is younger. */
static void leave_segment(pls_store *store, bool written)
{
    int64_t now = plsi_now_ms();
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_segment *segment = store->batch.segment;
    if (written) {
        plsi_recent_note(&segment->recent, segment->id, store->batch.offset,
                         atomic_load(&segment->end), now);
    }
    store->batch.segment = NULL;
    pthread_cond_broadcast(&store->idle);
    pthread_mutex_unlock(&store->queue_lock);
    plsi_segment_release(segment);
}

static void answer(pls_store *store, struct plsi_appends written, struct plsi_segment *segment)
{
    struct plsi_appends buffered = {0}, synced = {0};
    struct pls_append *append;
    while ((append = plsi_appends_pop(&written)) != NULL) {
        if (append->durability == PLS_SYNCED) {
            append->segment = plsi_segment_hold(segment);
            plsi_appends_push(&synced, append);
        } else {
            plsi_appends_push(&buffered, append);
        }
    }
    if (synced.first != NULL) {
        plsi_sync_submit(store, &synced);
    }
    while ((append = plsi_appends_pop(&buffered)) != NULL) {
        append->done(append, PLS_OK);
    }
}

static void end_batch(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    struct plsi_appends appends = batch->appends;
    enum pls_code code = batch->code;
    struct plsi_segment *segment = plsi_segment_hold(batch->segment);
    if (code == PLS_OK) {
        publish(store);
    } else if (code != PLS_DISK_RESERVE) { /* which is found before anything is written */
        undo(batch);
    }
    if (code == PLS_NO_SPACE) {
        plsi_room_doubt(store->dir);
    }
    leave_segment(store, code == PLS_OK);
    if (code == PLS_OK) {
        answer(store, appends, segment);
    } else {
        plsi_appends_fail(&appends, code);
    }
    plsi_segment_release(segment);
}

/* -- the writer -- */

static void write_queued(pls_store *store);

/* The submitter and the completion meet here; true for whoever comes second, and so goes on. */
static bool is_second(struct plsi_batch *batch)
{
    return atomic_exchange_explicit(&batch->turn, 1, memory_order_acq_rel) == 1;
}

static void on_written(void *arg, enum pls_code code)
{
    pls_store *store = arg;
    store->batch.code = code;
    if (is_second(&store->batch)) {
        end_batch(store);
        write_queued(store);
    }
}

static void submit(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    struct plsi_blob *blob = batch->segment->blob;
    atomic_store(&batch->turn, 0);
    enum pls_code code = plsi_room_take(store->dir, batch->bytes);
    if (code == PLS_OK) {
        code = reserve_entries(batch);
    }
    if (code != PLS_OK) {
        on_written(store, code);
    } else {
        blob->ops->append(blob, batch->offset, batch->iov, batch->n_iov, on_written, store);
    }
}

static void write_queued(pls_store *store)
{
    for (;;) {
        switch (take_batch(store)) {
        case NOTHING:
            return;
        case NEEDS_SEGMENT:
            pls_dir_run(store->dir, &store->rotate_job);
            return;
        case BATCH:
            submit(store);
            if (!is_second(&store->batch)) {
                return;
            }
            end_batch(store);
        }
    }
}

void plsi_append_resume(pls_store *store, enum pls_code code)
{
    if (code != PLS_OK) {
        pthread_mutex_lock(&store->queue_lock);
        struct plsi_appends failed = store->queue;
        store->queue.first = NULL;
        pthread_mutex_unlock(&store->queue_lock);
        plsi_appends_fail(&failed, code);
    }
    write_queued(store);
}

/* Sets length, checksum and prefix. The sum cannot wrap: the limit is under 2 GiB, and it is
 * checked at each step. */
static enum pls_code measure(const pls_store *store, struct pls_append *append)
{
    if (append->n_payload < 0 || append->n_payload > PLS_PARTS_MAX) {
        return PLS_INVALID_ARGUMENT;
    }
    uint64_t length = 0;
    for (int i = 0; i < append->n_payload; i++) {
        if (append->payload[i].iov_len > store->dir->options.payload_max_bytes - length) {
            return PLS_PAYLOAD_TOO_LARGE;
        }
        length += append->payload[i].iov_len;
    }
    append->ref.length = (uint32_t)length;
    append->ref.crc32c = plsi_crc32c_iov(append->payload, append->n_payload);
    uint32_t prefix = htole32(append->ref.length);
    memcpy(append->prefix, &prefix, sizeof append->prefix);
    return PLS_OK;
}

void pls_append(pls_store *store, struct pls_append *append)
{
    enum pls_code code = measure(store, append);
    if (code != PLS_OK) {
        append->done(append, code);
        return;
    }
    bool writer = false;
    pthread_mutex_lock(&store->queue_lock);
    code = plsi_store_check_writer(store, append->epoch, NULL);
    if (code == PLS_OK) {
        plsi_appends_push(&store->queue, append);
        writer = !store->writing;
        store->writing = true;
    }
    pthread_mutex_unlock(&store->queue_lock);
    if (code != PLS_OK) {
        append->done(append, code);
    } else if (writer) {
        write_queued(store);
    }
}
