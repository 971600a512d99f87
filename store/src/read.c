/*
 * Read: find the record, one pread of prefix and payload, check, hand out a view.
 *
 * First without waiting, on the caller's thread; where the bytes are not in memory, again on an I/O
 * thread.
 */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "buffer.h"
#include "checksum.h"
#include "store.h"

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
