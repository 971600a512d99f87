/*
 * Append: a queue, one writer at a time, one gathered write for all that wait.
 *
 * A batch of payloads (pls_append_batch) is one entry of the queue with many records. It is never
 * divided: one that has more parts than a gathered write is written in several, and published, or
 * undone, as a whole.
 *
 * Who finds no writer becomes it, and stays it until the queue is empty, or for some writes. While
 * it writes, others queue: their records make the next batch. A record is answered after its write;
 * one that is to be SYNCED goes on to sync.c.
 */
#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <string.h>

#include "checksum.h"
#include "clock.h"
#include "log.h"
#include "store.h"

#define WRITES_MAX 16u
#define PATIENCE   1000u       /* looks, some 20 ns each, at whether a writer is done */
#define LEFT_BYTES (16u << 10) /* of an append that is left to the syncer */
#define LEFT_MAX   256u        /* of those, beyond which they are written meanwhile */

void plsi_appends_push(struct plsi_appends *list, struct pls_append *append)
{
    append->next = NULL;
    if (list->first == NULL) {
        list->first = append;
    } else {
        list->last->next = append;
    }
    list->last = append;
    list->n++;
}

struct pls_append *plsi_appends_pop(struct plsi_appends *list)
{
    struct pls_append *append = list->first;
    if (append != NULL) {
        list->first = append->next;
        list->n--;
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

/* -- the records of an append: its own one, or those of a batch -- */

static size_t count_records(const struct pls_append *append)
{
    return append->records != NULL ? append->n_records : 1;
}

static struct pls_ref *ref_of(struct pls_append *append, size_t i)
{
    return append->records != NULL ? &append->records[i].ref : &append->ref;
}

/* Parts of a gathered write. */
static size_t count_parts(const struct pls_append *append)
{
    return append->records != NULL ? 2 * append->n_records : 1 + (size_t)append->n_payload;
}

/* -- building a batch, under queue_lock -- */

static void add_part(struct plsi_batch *batch, const void *data, size_t length)
{
    batch->iov[batch->n_iov++] = (struct iovec){.iov_base = (void *)data, .iov_len = length};
    batch->piece_bytes += length;
}

/* True where the write had room for the rest of the append. */
static bool add_parts(struct plsi_batch *batch, const struct pls_append *append)
{
    if (append->records == NULL) {
        add_part(batch, append->prefix, sizeof append->prefix);
        for (int i = 0; i < append->n_payload; i++) {
            add_part(batch, append->payload[i].iov_base, append->payload[i].iov_len);
        }
        return true;
    }
    for (; batch->n_iov + 2 <= PLSI_BATCH_IOV && batch->next_record < append->n_records;
         batch->next_record++) {
        const struct pls_record *record = &append->records[batch->next_record];
        add_part(batch, record->prefix, sizeof record->prefix);
        add_part(batch, record->payload.iov_base, record->payload.iov_len);
    }
    return batch->next_record == append->n_records;
}

/* One gathered write, beginning where the last one of this batch ended. */
static void fill(struct plsi_batch *batch)
{
    batch->at += batch->piece_bytes;
    batch->piece_bytes = 0;
    batch->n_iov = 0;
    while (batch->next != NULL && add_parts(batch, batch->next)) {
        batch->next = batch->next->next;
        batch->next_record = 0;
    }
}

static void add_to_batch(struct plsi_batch *batch, struct pls_append *append, uint64_t offset)
{
    assert(append->epoch == batch->epoch); /* a claim takes older ones out of the queue */
    for (size_t i = 0; i < count_records(append); i++) {
        struct pls_ref *ref = ref_of(append, i);
        ref->file_id = batch->segment->id;
        ref->offset = offset;
        offset += plsi_record_bytes(ref->length);
    }
    plsi_appends_push(&batch->appends, append);
}

/* Whether no record of an append that is to begin at `end` is beyond the one that fills the
 * segment. One that is larger than a segment has one to itself. */
static bool fits(const pls_store *store, struct pls_append *append, uint64_t end)
{
    uint64_t last = plsi_record_bytes(ref_of(append, count_records(append) - 1)->length);
    return end == 0 || end + append->bytes - last <= store->dir->options.segment_max_bytes;
}

/*
 * Moves from the queue what one write may take: as many parts and bytes as a batch has, no record
 * beyond the one that fills the segment, and none that the disk may have no room for beside others:
 * what does not fit is refused by itself. The first is taken in any case; if it is a batch of more
 * parts than a write has, it is written in pieces, by itself.
 */
static void gather(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    batch->segment = plsi_segment_hold(store->active);
    batch->appends = (struct plsi_appends){0};
    batch->offset = atomic_load(&store->active->end);
    batch->epoch = atomic_load(&store->epoch);

    uint64_t end = batch->offset;
    size_t parts = 0;
    struct pls_append *first;
    while ((first = store->queue.first) != NULL &&
           (parts == 0 || (fits(store, first, end) && end - batch->offset < PLSI_BATCH_BYTES &&
                           parts + count_parts(first) <= PLSI_BATCH_IOV &&
                           plsi_room_has(store->dir, end - batch->offset + first->bytes)))) {
        parts += count_parts(first);
        add_to_batch(batch, plsi_appends_pop(&store->queue), end);
        end += first->bytes;
    }
    batch->bytes = end - batch->offset;
    batch->at = batch->offset;
    batch->piece_bytes = 0;
    batch->next = batch->appends.first;
    batch->next_record = 0;
}

enum next { NOTHING, NEEDS_SEGMENT, WRITE, HAND_OVER };

/* Whether the active segment takes what is first in the queue. */
static bool takes_first(pls_store *store)
{
    if (!plsi_segment_usable(store, store->active)) {
        return false;
    }
    if (!fits(store, store->queue.first, atomic_load(&store->active->end))) {
        atomic_store(&store->active->full, true);
        return false;
    }
    return true;
}

/* `enough`: whoever asks has written enough. Under queue_lock. */
static enum next take_queued(pls_store *store, bool enough)
{
    if (store->queue.first == NULL) {
        atomic_store_explicit(&store->writing, false, memory_order_relaxed);
        pthread_cond_broadcast(&store->idle);
        return NOTHING;
    }
    if (enough) {
        return HAND_OVER;
    }
    if (!takes_first(store)) {
        return NEEDS_SEGMENT;
    }
    gather(store);
    return WRITE;
}

static enum next take_batch(pls_store *store, bool enough)
{
    if (store->batch.next != NULL) { /* the writer's own: no lock */
        return WRITE;                /* also of who has written enough: a seal waits for it */
    }
    pthread_mutex_lock(&store->queue_lock);
    enum next next = take_queued(store, enough);
    pthread_mutex_unlock(&store->queue_lock);
    return next;
}

/* -- ending a batch -- */

static enum pls_code reserve_entries(struct plsi_batch *batch)
{
    uint64_t n = 0;
    for (const struct pls_append *a = batch->appends.first; a != NULL; a = a->next) {
        n += count_records(a);
    }
    return plsi_index_reserve(batch->segment->index, n);
}

static void add_entries(struct plsi_batch *batch)
{
    struct plsi_index *index = batch->segment->index;
    uint64_t n = 0;
    for (struct pls_append *a = batch->appends.first; a != NULL; a = a->next) {
        for (size_t i = 0; i < count_records(a); i++) {
            const struct pls_ref *ref = ref_of(a, i);
            plsi_index_prepare(index, n++,
                               &(struct plsi_entry){.offset = ref->offset,
                                                    .length = ref->length,
                                                    .crc32c = ref->crc32c});
        }
    }
    plsi_index_publish(index, n);
}

/* The records are in the file: from here on they can be read, and never be taken back. */
static void publish(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    struct plsi_segment *segment = batch->segment;
    uint64_t end = batch->offset + batch->bytes;
    add_entries(batch);
    plsi_pace_appended(&store->dir->pace, batch->bytes);
    atomic_store_explicit(&segment->bytes, end, memory_order_release);
    atomic_store_explicit(&segment->end, end, memory_order_release);
    /* After the write, not before it: a sync that ran meanwhile may not have seen these bytes. */
    atomic_store_explicit(&segment->unsynced, true, memory_order_release);
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

/* The batch's segment, which a seal may be waiting for, is the caller's to release. A record counts
 * as appended after its write, not before it: so it is younger. */
static struct plsi_segment *leave_segment(pls_store *store, bool written)
{
    int64_t now = plsi_tick_ms();
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_segment *segment = store->batch.segment;
    if (written) {
        plsi_recent_note(&segment->recent, segment->id, store->batch.offset,
                         atomic_load(&segment->end), now);
    }
    store->batch.segment = NULL;
    pthread_cond_broadcast(&store->idle);
    pthread_mutex_unlock(&store->queue_lock);
    return segment;
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
    if (code == PLS_OK) {
        publish(store);
    } else if (code != PLS_DISK_RESERVE) { /* which is found before anything is written */
        undo(batch);
    }
    if (code == PLS_NO_SPACE) {
        plsi_room_doubt(store->dir);
    }
    struct plsi_segment *segment = leave_segment(store, code == PLS_OK);
    if (code == PLS_OK) {
        answer(store, appends, segment);
    } else {
        plsi_appends_fail(&appends, code);
    }
    plsi_segment_release(segment);
}

/* -- the writer -- */

static void write_on(pls_store *store, enum next next, unsigned most);

/* A batch that is written in pieces goes on with the next one; nothing of it is published before
 * the last, and a failure takes all of them back. */
static void end_write(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    if (batch->code != PLS_OK) {
        batch->next = NULL;
    }
    if (batch->next == NULL) {
        end_batch(store);
    }
}

/* The submitter and the completion meet here; true for whoever comes second, and so goes on. Most
 * often that is the submitter, and it sees so without an exchange. */
static bool is_second(struct plsi_batch *batch)
{
    return atomic_load_explicit(&batch->turn, memory_order_acquire) == 1 ||
           atomic_exchange_explicit(&batch->turn, 1, memory_order_acq_rel) == 1;
}

static void on_written(void *arg, enum pls_code code)
{
    pls_store *store = arg;
    store->batch.code = code;
    if (is_second(&store->batch)) {
        end_write(store);
        write_on(store, take_batch(store, false), WRITES_MAX);
    }
}

static void submit(pls_store *store)
{
    struct plsi_batch *batch = &store->batch;
    struct plsi_blob *blob = batch->segment->blob;
    atomic_store_explicit(&batch->turn, 0, memory_order_relaxed); /* nobody else looks yet */
    fill(batch);
    bool first = batch->at == batch->offset;
    enum pls_code code = first ? plsi_room_take(store->dir, batch->bytes) : PLS_OK;
    if (first && code == PLS_OK) {
        code = reserve_entries(batch);
    }
    if (code != PLS_OK) {
        on_written(store, code);
    } else {
        blob->ops->append(blob, batch->at, batch->iov, batch->n_iov, on_written, store);
    }
}

/* The writer is a caller, who has more to do: where others go on and on, an I/O thread takes over.
 */
static void write_on(pls_store *store, enum next next, unsigned most)
{
    for (unsigned n = 1; next == WRITE; n++) {
        submit(store);
        if (!is_second(&store->batch)) {
            return;
        }
        end_write(store);
        next = take_batch(store, n >= most);
    }
    if (next == NEEDS_SEGMENT) {
        pls_dir_run(store->dir, &store->rotate_job);
    } else if (next == HAND_OVER) {
        pls_dir_run(store->dir, &store->write_job);
    }
}

void plsi_write_job(struct pls_job *job)
{
    pls_store *store = (pls_store *)((char *)job - offsetof(pls_store, write_job));
    write_on(store, take_batch(store, false), WRITES_MAX);
}

void plsi_append_resume(pls_store *store, enum pls_code code)
{
    if (code != PLS_OK) {
        pthread_mutex_lock(&store->queue_lock);
        struct plsi_appends failed = store->queue;
        store->queue = (struct plsi_appends){0};
        pthread_mutex_unlock(&store->queue_lock);
        plsi_appends_fail(&failed, code);
    }
    write_on(store, take_batch(store, false), WRITES_MAX);
}

static void set_prefix(const struct pls_ref *ref, uint8_t prefix[4])
{
    uint32_t length = htole32(ref->length);
    memcpy(prefix, &length, sizeof length);
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
    set_prefix(&append->ref, append->prefix);
    append->bytes = plsi_record_bytes(append->ref.length);
    return PLS_OK;
}

/* The same for each record. */
static enum pls_code measure_batch(const pls_store *store, struct pls_append *append)
{
    if (append->n_records == 0 || append->n_records > PLS_BATCH_MAX) {
        return PLS_INVALID_ARGUMENT;
    }
    append->bytes = 0;
    for (size_t i = 0; i < append->n_records; i++) {
        struct pls_record *record = &append->records[i];
        if (record->payload.iov_len > store->dir->options.payload_max_bytes) {
            return PLS_PAYLOAD_TOO_LARGE;
        }
        record->ref.length = (uint32_t)record->payload.iov_len;
        record->ref.crc32c = plsi_crc32c_iov(&record->payload, 1);
        set_prefix(&record->ref, record->prefix);
        append->bytes += plsi_record_bytes(record->ref.length);
    }
    return PLS_OK;
}

/* Of one that is not taken the code is told, and it goes to `refused`. Under queue_lock. */
static void push_or_refuse(pls_store *store, struct pls_append *append,
                           struct plsi_appends *refused)
{
    append->refusal = plsi_store_check_writer(store, append->epoch, NULL);
    plsi_appends_push(append->refusal == PLS_OK ? &store->queue : refused, append);
}

/* What the caller is to do, where nobody writes what is in the queue. Under queue_lock. */
static enum next become_writer(pls_store *store)
{
    if (plsi_has_writer(store) || store->queue.first == NULL) {
        return NOTHING;
    }
    atomic_store_explicit(&store->writing, true, memory_order_relaxed);
    return take_queued(store, false);
}

/* Of the appends that were queued just now, whether each may be left to the syncer: it writes them
 * with all that have come until its next sync, at once. Under queue_lock. */
static bool is_left(const pls_store *store, struct pls_append *const *appends, size_t n)
{
    bool left = store->syncing && store->queue.n <= LEFT_MAX;
    for (size_t i = 0; i < n && left; i++) {
        left = appends[i]->durability == PLS_SYNCED && appends[i]->bytes <= LEFT_BYTES;
    }
    return left;
}

void plsi_append_left(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    enum next next = become_writer(store);
    pthread_mutex_unlock(&store->queue_lock);
    write_on(store, next, 1);
}

static void queue_appends(pls_store *store, struct pls_append *const *appends, size_t n)
{
    struct plsi_appends refused = {0};
    struct pls_append *append;
    plsi_pace_called(&store->dir->pace);
    pthread_mutex_lock(&store->queue_lock);
    for (size_t i = 0; i < n; i++) {
        push_or_refuse(store, appends[i], &refused);
    }
    bool left = is_left(store, appends, n);
    enum next next = left ? NOTHING : become_writer(store);
    if (left) {
        plsi_sync_wake(store);
    }
    pthread_mutex_unlock(&store->queue_lock);
    write_on(store, next, WRITES_MAX);
    while ((append = plsi_appends_pop(&refused)) != NULL) {
        append->done(append, append->refusal);
    }
}

#define AT_ONCE 64u

static void append_several(pls_store *store, struct pls_append *const *appends, size_t n)
{
    struct pls_append *good[AT_ONCE];
    size_t n_good = 0;
    for (size_t i = 0; i < n; i++) {
        struct pls_append *append = appends[i];
        append->records = NULL;
        enum pls_code code = measure(store, append);
        if (code != PLS_OK) {
            append->done(append, code);
        } else {
            good[n_good++] = append;
        }
        if (n_good == AT_ONCE || (i + 1 == n && n_good > 0)) {
            queue_appends(store, good, n_good);
            n_good = 0;
        }
    }
}

void pls_append(pls_store *store, struct pls_append *append)
{
    append_several(store, &append, 1);
}

/* Lets the processor's other thread go on, where there is one. */
static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * A write takes some microseconds. Who waits for it does the next one, and has its own appends done
 * on its own thread; who does not, leaves them to the other thread, which then answers calls that
 * are this one's: each in the other's way.
 */
static void await_writer(const pls_store *store)
{
    for (unsigned i = 0; i < PATIENCE && plsi_has_writer(store); i++) {
        relax();
    }
}

void pls_append_several(pls_store *store, struct pls_append *const *appends, size_t n)
{
    await_writer(store);
    append_several(store, appends, n);
}

void pls_append_batch(pls_store *store, struct pls_append *append, struct pls_record *records,
                      size_t n)
{
    append->records = records;
    append->n_records = n;
    enum pls_code code = measure_batch(store, append);
    if (code != PLS_OK) {
        append->done(append, code);
        return;
    }
    queue_appends(store, &append, 1);
}
