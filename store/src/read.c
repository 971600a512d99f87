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

#define RUN_RECORDS 64u          /* read at once */
#define RUN_BYTES   (256u << 10) /* which one view may keep in memory */

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

bool plsi_segment_read(struct plsi_segment *segment, const struct pls_ref *ref, enum plsi_wait wait,
                       struct pls_view *view, enum pls_code *code)
{
    struct expected expected;
    if (!locate(segment, ref, wait, &expected, code)) {
        return false;
    }
    if (*code != PLS_OK) {
        return true;
    }
    size_t length = (size_t)plsi_record_bytes(ref->length);
    struct plsi_buffer *buffer = plsi_buffer_create(length);
    if (buffer == NULL) {
        *code = PLS_NO_MEMORY;
        return true;
    }
    struct plsi_blob *blob = segment->blob;
    size_t got;
    if (!blob->ops->read(blob, ref->offset, buffer->bytes, length, wait, &got, code)) {
        plsi_buffer_release(buffer);
        return false;
    }
    if (*code != PLS_OK || got < length) {
        *code = PLS_DAMAGED; /* the disk's own error, or the file was cut short under us */
    } else {
        *code = check(ref, buffer->bytes, &expected);
    }
    if (*code != PLS_OK) {
        plsi_buffer_release(buffer);
        return true;
    }
    *view = (struct pls_view){
        .data = buffer->bytes + PLSI_PREFIX, .length = ref->length, .owner = buffer};
    return true;
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
        plsi_segment_read(read->segment, &now, PLSI_MAY_WAIT, &read->view, &code);
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
    if (read->segment != NULL &&
        plsi_segment_read(read->segment, &read->ref, PLSI_NO_WAIT, &read->view, &code)) {
        finish(read, code);
        return;
    }
    read->job.run = read_waiting; /* for the disk: the bytes', or the relocation table's */
    pls_dir_run(store->dir, &read->job);
}

/* -- many at once ------------------------------------------------------------------------------ */

static size_t bytes_of(const struct pls_read *read)
{
    return (size_t)plsi_record_bytes(read->ref.length);
}

/* How many of the n reads, from the first on, are of records side by side, and their bytes. */
static size_t run_length(const struct pls_read *reads, size_t n, size_t *bytes)
{
    size_t i = 1;
    *bytes = bytes_of(&reads[0]);
    while (i < n && i < RUN_RECORDS && reads[i].ref.file_id == reads[0].ref.file_id &&
           reads[i].ref.offset == reads[0].ref.offset + *bytes &&
           *bytes + bytes_of(&reads[i]) <= RUN_BYTES) {
        *bytes += bytes_of(&reads[i]);
        i++;
    }
    return i;
}

static bool locate_run(const struct plsi_segment *segment, const struct pls_read *reads, size_t n,
                       struct expected *expected)
{
    enum pls_code code = PLS_OK;
    for (size_t i = 0; i < n && code == PLS_OK; i++) {
        if (!locate(segment, &reads[i].ref, PLSI_NO_WAIT, &expected[i], &code)) {
            return false;
        }
    }
    return code == PLS_OK;
}

/* The bytes of a run; NULL where they are not in memory, or not all there, or memory has run out.
 */
static struct plsi_buffer *read_run_bytes(struct plsi_segment *segment, uint64_t offset,
                                          size_t bytes)
{
    struct plsi_buffer *buffer = plsi_buffer_create(bytes);
    struct plsi_blob *blob = segment->blob;
    enum pls_code code;
    size_t got;
    if (buffer != NULL &&
        blob->ops->read(blob, offset, buffer->bytes, bytes, PLSI_NO_WAIT, &got, &code) &&
        code == PLS_OK && got == bytes) {
        return buffer;
    }
    plsi_buffer_release(buffer);
    return NULL;
}

/* Checks and answers each. */
static void finish_run(struct pls_read *reads, size_t n, const struct expected *expected,
                       struct plsi_buffer *buffer)
{
    uint8_t *record = buffer->bytes;
    for (size_t i = 0; i < n; i++) {
        struct pls_read *read = &reads[i];
        size_t bytes = bytes_of(read);
        enum pls_code code = check(&read->ref, record, &expected[i]);
        read->segment = NULL;
        read->view = (struct pls_view){0};
        if (code == PLS_OK) {
            read->view = (struct pls_view){.data = record + PLSI_PREFIX,
                                           .length = read->ref.length,
                                           .owner = plsi_buffer_hold(buffer)};
        }
        record += bytes;
        finish(read, code);
    }
}

/* False, with nothing done, where it takes a single read to say what each is. */
static bool read_run(pls_store *store, struct pls_read *reads, size_t n, size_t bytes)
{
    struct expected expected[RUN_RECORDS];
    struct plsi_buffer *buffer = NULL;
    if (n == 1 || plsi_store_check(store, NULL) != PLS_OK || !plsi_ref_possible(&reads[0].ref)) {
        return false; /* if the first is a possible ref, so are those that lie behind it */
    }
    struct plsi_segment *segment = plsi_table_find(&store->table, reads[0].ref.file_id);
    if (segment == NULL) {
        return false;
    }
    if (locate_run(segment, reads, n, expected)) {
        buffer = read_run_bytes(segment, reads[0].ref.offset, bytes);
    }
    plsi_segment_release(segment);
    if (buffer == NULL) {
        return false;
    }
    finish_run(reads, n, expected, buffer);
    plsi_buffer_release(buffer);
    return true;
}

void pls_read_batch(pls_store *store, struct pls_read *reads, size_t n)
{
    size_t length, bytes;
    plsi_pace_called(&store->dir->pace);
    for (size_t i = 0; i < n; i += length) {
        length = run_length(&reads[i], n - i, &bytes);
        if (read_run(store, &reads[i], length, bytes)) {
            continue;
        }
        for (size_t k = i; k < i + length; k++) {
            pls_read(store, &reads[k]);
        }
    }
}
