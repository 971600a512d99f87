/*
 * Read: find the record, one pread of prefix and payload, check, hand out a view.
 *
 * First without waiting, on the caller's thread; where the bytes are not in memory, again on an I/O
 * thread. Of a batch (pls_read_batch) records that lie side by side are read at once, into one
 * buffer; where anything about them is out of the ordinary, each goes the way of a single one.
 */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "buffer.h"
#include "checksum.h"
#include "store.h"

#define RUN_BYTES (256u << 10) /* which one view may keep in memory */

#define READ_OF(job_) ((struct pls_read *)((char *)(job_)-offsetof(struct pls_read, job)))

/* What the record must look like, as far as anybody knows. */
struct expected {
    uint32_t crc32c[2];
    int n_crcs;
    bool indexed; /* a record begins there for certain */
};

static void finish(struct pls_read *read, enum pls_code code)
{
    plsi_segment_release(read->segment);
    read->segment = NULL;
    read->done(read, code);
}

/* Whether a record may lie there that the index does not name: behind its last one, or where a walk
 * may have been led past it. */
static bool may_be_unnamed(const struct plsi_segment *segment, uint64_t offset)
{
    return offset >= atomic_load(&segment->end) || offset >= segment->index->walked_from;
}

/*
 * Whether a record of that length begins there, *code: OK, NO_RECORD, DAMAGED, NO_MEMORY. What was
 * appended the index knows; where a crash left a hole, a length is damaged, another program wrote
 * or the index is lost, a ref with a checksum is a reason to look. False where it would have to
 * wait.
 */
static bool locate(const struct plsi_segment *segment, const struct pls_ref *ref,
                   enum plsi_wait wait, struct expected *expected, enum pls_code *code)
{
    struct plsi_found found;
    *expected = (struct expected){.n_crcs = 0};
    if (ref->crc32c != 0) {
        expected->crc32c[expected->n_crcs++] = ref->crc32c;
    }
    if (!plsi_index_find(segment->index, ref->offset, wait, &found, code)) {
        return false;
    }
    uint64_t bytes = atomic_load(&segment->bytes);
    bool inside = ref->offset < bytes && bytes - ref->offset >= plsi_record_bytes(ref->length);
    bool look = inside && ref->crc32c != 0;
    if (*code == PLS_OK) {
        expected->indexed = true;
        expected->crc32c[expected->n_crcs++] = found.entry.crc32c;
        *code = found.entry.length == ref->length ? PLS_OK : PLS_NO_RECORD;
    } else if (*code == PLS_DAMAGED) {
        expected->indexed = true; /* if it is not what the ref says, nobody can tell what it is */
        *code = look ? PLS_OK : PLS_DAMAGED;
    } else if (*code == PLS_NO_RECORD) {
        *code = look && may_be_unnamed(segment, ref->offset) ? PLS_OK : PLS_NO_RECORD;
    }
    return true;
}

/* Bytes are there: are they the record? */
static enum pls_code check(const struct pls_ref *ref, const uint8_t *record,
                           const struct expected *expected)
{
    uint32_t prefix;
    memcpy(&prefix, record, sizeof prefix);
    enum pls_code differs = expected->indexed ? PLS_DAMAGED : PLS_NO_RECORD;
    if (le32toh(prefix) != ref->length) {
        return differs;
    }
    uint32_t crc = expected->n_crcs > 0 ? plsi_crc32c(0, record + PLSI_PREFIX, ref->length) : 0;
    for (int i = 0; i < expected->n_crcs; i++) {
        if (crc != expected->crc32c[i]) {
            return differs;
        }
    }
    return PLS_OK;
}

/* Of a record that was located: its bytes, checked. */
static bool read_checked(struct plsi_blob *blob, const struct pls_ref *ref, enum plsi_wait wait,
                         const struct expected *expected, uint8_t *bytes, enum pls_code *code)
{
    size_t length = (size_t)plsi_record_bytes(ref->length), got;
    if (!blob->ops->read(blob, ref->offset, bytes, length, wait, &got, code)) {
        return false;
    }
    if (*code != PLS_OK || got < length) {
        *code = PLS_DAMAGED; /* the disk's own error, or the file was cut short under us */
    } else {
        *code = check(ref, bytes, expected);
    }
    return true;
}

/* The payload of a record that was read: into the caller's room, where `owner` is NULL. */
static struct pls_view view_of(const struct pls_ref *ref, const uint8_t *bytes,
                               struct plsi_buffer *owner)
{
    return (struct pls_view){.data = bytes + PLSI_PREFIX, .length = ref->length, .owner = owner};
}

bool plsi_segment_read(struct plsi_segment *segment, const struct pls_ref *ref, uint8_t *room,
                       enum plsi_wait wait, struct pls_view *view, enum pls_code *code)
{
    struct expected expected;
    if (!locate(segment, ref, wait, &expected, code)) {
        return false;
    }
    if (*code != PLS_OK) {
        return true;
    }
    struct plsi_buffer *buffer =
        room != NULL ? NULL : plsi_buffer_create((size_t)plsi_record_bytes(ref->length));
    if (room == NULL && buffer == NULL) {
        *code = PLS_NO_MEMORY;
        return true;
    }
    uint8_t *bytes = room != NULL ? room : buffer->bytes;
    bool read = read_checked(segment->blob, ref, wait, &expected, bytes, code);
    if (read && *code == PLS_OK) {
        *view = view_of(ref, bytes, buffer);
    } else {
        plsi_buffer_release(buffer);
    }
    return read;
}

static void read_waiting(struct pls_job *job)
{
    struct pls_read *read = READ_OF(job);
    struct pls_ref now = read->ref;
    enum pls_code code = PLS_OK;
    if (read->segment == NULL) {
        code = plsi_resolve(read->store, &read->ref, &read->segment, &now);
    }
    if (code == PLS_OK) {
        assert(read->segment != NULL); /* what plsi_resolve promises */
        plsi_segment_read(read->segment, &now, read->room, PLSI_MAY_WAIT, &read->view, &code);
    }
    finish(read, code);
}

bool plsi_ref_possible(const struct pls_ref *ref)
{
    return ref->length <= PLS_PAYLOAD_LIMIT && ref->offset < PLSI_SEGMENT_BYTES_LIMIT;
}

void pls_read(pls_store *store, struct pls_read *read)
{
    plsi_pace_called(&store->dir->pace);
    read->view = (struct pls_view){0};
    read->segment = NULL;
    enum pls_code code = plsi_store_check(store, NULL);
    if (code == PLS_OK && !plsi_ref_possible(&read->ref)) {
        code = PLS_INVALID_REF;
    }
    if (code != PLS_OK) {
        finish(read, code);
        return;
    }
    read->store = store;
    read->segment = plsi_table_find(&store->table, read->ref.file_id);
    if (read->segment != NULL && plsi_segment_read(read->segment, &read->ref, read->room,
                                                   PLSI_NO_WAIT, &read->view, &code)) {
        finish(read, code);
        return;
    }
    read->job.run = read_waiting; /* for the disk: the bytes', or the relocation table's */
    pls_dir_run(store->dir, &read->job);
}

/* -- many at once ------------------------------------------------------------------------------ */

/* Records that lie side by side, read at once. */
struct run {
    size_t first, n; /* of the reads */
    size_t bytes;
    struct plsi_segment *segment;
    struct plsi_buffer *buffer; /* NULL: they go to the callers' rooms */
};

/* What of a batch is read at a time. */
struct batch {
    pls_store *store;
    struct pls_read *reads;
    size_t n_runs, n_iov, n_held;
    struct run runs[PLSI_PIECES];
    struct plsi_piece pieces[PLSI_PIECES]; /* one a run */
    struct iovec iov[PLSI_PIECES];
    struct plsi_segment *held[PLSI_PIECES]; /* neighbours differ */
    struct expected expected[PLSI_PIECES];  /* of each read */
};

static size_t bytes_of(const struct pls_read *read)
{
    return (size_t)plsi_record_bytes(read->ref.length);
}

static bool is_beside(const struct pls_read *first, const struct pls_read *read, size_t bytes)
{
    return read->ref.file_id == first->ref.file_id &&
           read->ref.offset == first->ref.offset + bytes &&
           (read->room != NULL) == (first->room != NULL);
}

/* How many of the n reads, from the first on, are of records side by side, and their bytes. */
static size_t run_length(const struct pls_read *reads, size_t n, size_t *bytes)
{
    size_t i = 1;
    *bytes = bytes_of(&reads[0]);
    while (i < n && is_beside(reads, &reads[i], *bytes) &&
           *bytes + bytes_of(&reads[i]) <= RUN_BYTES) {
        *bytes += bytes_of(&reads[i]);
        i++;
    }
    return i;
}

/* NULL where there is none; held as long as the batch. */
static struct plsi_segment *segment_of(struct batch *batch, uint32_t id)
{
    if (batch->n_held > 0 && batch->held[batch->n_held - 1]->id == id) {
        return batch->held[batch->n_held - 1];
    }
    struct plsi_segment *segment = plsi_table_find(&batch->store->table, id);
    if (segment != NULL) {
        batch->held[batch->n_held++] = segment;
    }
    return segment;
}

static bool locate_run(struct batch *batch, const struct run *run)
{
    enum pls_code code = PLS_OK;
    for (size_t i = run->first; i < run->first + run->n && code == PLS_OK; i++) {
        if (!locate(run->segment, &batch->reads[i].ref, PLSI_NO_WAIT, &batch->expected[i], &code)) {
            return false;
        }
    }
    return code == PLS_OK;
}

/* Where the run's bytes are to go. False where memory has run out. */
static bool give_room(struct batch *batch, struct run *run)
{
    const struct pls_read *reads = &batch->reads[run->first];
    struct plsi_piece *piece = &batch->pieces[batch->n_runs];
    *piece = (struct plsi_piece){.blob = run->segment->blob,
                                 .offset = reads->ref.offset,
                                 .iov = &batch->iov[batch->n_iov],
                                 .length = run->bytes};
    if (reads->room == NULL) {
        run->buffer = plsi_buffer_create(run->bytes);
        if (run->buffer == NULL) {
            return false;
        }
        piece->iov[piece->n_iov++] = (struct iovec){run->buffer->bytes, run->bytes};
    } else {
        for (size_t i = 0; i < run->n; i++) {
            piece->iov[piece->n_iov++] = (struct iovec){reads[i].room, bytes_of(&reads[i])};
        }
    }
    batch->n_iov += (size_t)piece->n_iov;
    return true;
}

/* False, with nothing done, where it takes a single read to say what each is. */
static bool begin_run(struct batch *batch, struct run run)
{
    const struct pls_ref *first = &batch->reads[run.first].ref;
    if (!plsi_ref_possible(first)) {
        return false; /* if the first is a possible ref, so are those that lie behind it */
    }
    run.segment = segment_of(batch, first->file_id);
    if (run.segment == NULL || !locate_run(batch, &run) || !give_room(batch, &run)) {
        return false;
    }
    batch->runs[batch->n_runs++] = run;
    return true;
}

/* Checks and answers each. */
static void finish_run(struct batch *batch, struct run *run)
{
    uint8_t *record = run->buffer != NULL ? run->buffer->bytes : NULL;
    for (size_t i = run->first; i < run->first + run->n; i++) {
        struct pls_read *read = &batch->reads[i];
        size_t bytes = bytes_of(read);
        uint8_t *at = record != NULL ? record : read->room;
        enum pls_code code = check(&read->ref, at, &batch->expected[i]);
        read->segment = NULL;
        read->view = (struct pls_view){0};
        if (code == PLS_OK) {
            read->view =
                view_of(&read->ref, at, run->buffer != NULL ? plsi_buffer_hold(run->buffer) : NULL);
        }
        record = record != NULL ? record + bytes : NULL;
        finish(read, code);
    }
    plsi_buffer_release(run->buffer);
}

static void read_each(pls_store *store, struct pls_read *reads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pls_read(store, &reads[i]);
    }
}

/* Nothing that runs elsewhere holds on to the batch. */
static void end_batch(struct batch *batch)
{
    for (size_t i = 0; i < batch->n_runs; i++) {
        struct run *run = &batch->runs[i];
        if (batch->pieces[i].there) {
            finish_run(batch, run);
        } else {
            plsi_buffer_release(run->buffer);
            read_each(batch->store, &batch->reads[run->first], run->n);
        }
    }
    while (batch->n_held > 0) {
        plsi_segment_release(batch->held[--batch->n_held]);
    }
}

/* Up to PLSI_PIECES reads. */
static void read_some(pls_store *store, struct pls_read *reads, size_t n)
{
    struct batch batch;
    struct run run;
    batch.store = store;
    batch.reads = reads;
    batch.n_runs = batch.n_iov = batch.n_held = 0;
    for (size_t i = 0; i < n; i += run.n) {
        run = (struct run){.first = i};
        run.n = run_length(&reads[i], n - i, &run.bytes);
        if (!begin_run(&batch, run)) {
            read_each(store, &reads[i], run.n);
        }
    }
    if (batch.n_runs > 0) {
        batch.pieces[0].blob->ops->read_pieces(batch.pieces, batch.n_runs);
    }
    end_batch(&batch);
}

void pls_read_batch(pls_store *store, struct pls_read *reads, size_t n)
{
    plsi_pace_called(&store->dir->pace);
    if (plsi_store_check(store, NULL) != PLS_OK) {
        read_each(store, reads, n);
        return;
    }
    while (n > 0) {
        size_t some = n < PLSI_PIECES ? n : PLSI_PIECES;
        read_some(store, reads, some);
        reads += some;
        n -= some;
    }
}
