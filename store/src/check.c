#include "check.h"

#include <endian.h>
#include <string.h>

#include "checksum.h"

/* Whether anybody knows the checksum of record i: the index, or who told `claimed`. */
static bool known_crc(const struct plsi_check *check, uint64_t i, uint32_t *crc)
{
    const struct plsi_index *index = check->segment->index;
    if (i >= index->n_walked) {
        *crc = plsi_index_at(index, i)->crc32c;
        return true;
    }
    *crc = check->claimed != NULL ? check->claimed[i] : 0;
    return *crc != 0;
}

struct pls_ref plsi_check_ref(const struct plsi_check *check, uint64_t i)
{
    const struct plsi_entry *entry = plsi_index_at(check->segment->index, i);
    struct pls_ref ref = {
        .file_id = check->segment->id, .offset = entry->offset, .length = entry->length};
    known_crc(check, i, &ref.crc32c);
    return ref;
}

static bool read_bytes(const struct plsi_check *check, uint64_t offset, size_t length)
{
    struct plsi_blob *blob = check->segment->blob;
    size_t got;
    enum pls_code code;
    blob->ops->read(blob, offset, check->buffer, length, PLSI_MAY_WAIT, &got, &code);
    return code == PLS_OK && got == length;
}

/* -- a run of neighbouring records ------------------------------------------------------------- */

uint32_t plsi_check_crc(const struct plsi_check *check, uint64_t i, size_t at)
{
    return plsi_crc32c(0, check->buffer + at + PLSI_PREFIX,
                       plsi_index_at(check->segment->index, i)->length);
}

/* Checks record i, which lies at `at` in the buffer. */
static bool is_intact(const struct plsi_check *check, uint64_t i, size_t at)
{
    uint32_t prefix, crc;
    memcpy(&prefix, check->buffer + at, sizeof prefix);
    return le32toh(prefix) == plsi_index_at(check->segment->index, i)->length &&
           (!known_crc(check, i, &crc) || plsi_check_crc(check, i, at) == crc);
}

enum pls_code plsi_check_run(const struct plsi_check *check, uint64_t first, uint64_t last,
                             size_t length, plsi_damage_fn *damaged, void *arg, bool *whole)
{
    const struct plsi_index *index = check->segment->index;
    uint64_t start = plsi_index_at(index, first)->offset;
    enum pls_code code = PLS_OK;
    size_t at = 0;
    *whole = read_bytes(check, start, length);
    for (uint64_t i = first; i < last && code == PLS_OK; i++) {
        size_t record = PLSI_PREFIX + (size_t)plsi_index_at(index, i)->length;
        /* Where the run cannot be read as a whole, each record is tried by itself, to name the one
         * at fault. */
        bool intact = *whole ? is_intact(check, i, at)
                             : read_bytes(check, start + at, record) && is_intact(check, i, 0);
        if (!intact) {
            code = damaged(arg, i);
        }
        at += record;
    }
    return code;
}

/* -- one record larger than the buffer --------------------------------------------------------- */

size_t plsi_check_piece(const struct plsi_check *check, struct plsi_pieces *pieces)
{
    size_t left = pieces->length - pieces->done;
    size_t part = left < check->room ? left : check->room;
    size_t head = pieces->done == 0 ? PLSI_PREFIX : 0;
    if (part == 0 || pieces->unreadable) {
        return 0;
    }
    uint64_t offset = plsi_index_at(check->segment->index, pieces->i)->offset + pieces->done;
    if (!read_bytes(check, offset, part)) {
        pieces->unreadable = true;
        return 0;
    }
    if (head > 0) {
        memcpy(&pieces->prefix, check->buffer, sizeof pieces->prefix);
    }
    pieces->crc = plsi_crc32c(pieces->crc, check->buffer + head, part - head);
    pieces->done += part;
    return part;
}

bool plsi_check_pieces_intact(const struct plsi_check *check, const struct plsi_pieces *pieces)
{
    uint32_t crc;
    return !pieces->unreadable &&
           le32toh(pieces->prefix) == plsi_index_at(check->segment->index, pieces->i)->length &&
           (!known_crc(check, pieces->i, &crc) || pieces->crc == crc);
}
