#include "check.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"

enum pls_code plsi_check_init(struct plsi_check *check, size_t room)
{
    *check = (struct plsi_check){.room = room};
    check->buffer = malloc(room);
    check->records = malloc(PLSI_SPAN_RECORDS * sizeof *check->records);
    if (check->buffer == NULL || check->records == NULL) {
        plsi_check_fini(check);
        return PLS_NO_MEMORY;
    }
    return PLS_OK;
}

void plsi_check_fini(struct plsi_check *check)
{
    plsi_check_segment(check, NULL);
    free(check->buffer);
    free(check->records);
    check->buffer = NULL;
    check->records = NULL;
}

void plsi_check_segment(struct plsi_check *check, struct plsi_segment *segment)
{
    plsi_cursor_fini(&check->cursor);
    check->segment = segment;
    if (segment != NULL) {
        plsi_cursor_init(&check->cursor, segment->index);
    }
}

static bool read_bytes(const struct plsi_check *check, uint64_t offset, size_t length)
{
    struct plsi_blob *blob = check->segment->blob;
    size_t got;
    enum pls_code code;
    blob->ops->read(blob, offset, check->buffer, length, PLSI_MAY_WAIT, &got, &code);
    return code == PLS_OK && got == length;
}

struct pls_ref plsi_check_ref(const struct plsi_check *check, const struct plsi_record *record)
{
    return (struct pls_ref){.file_id = check->segment->id,
                            .offset = record->entry.offset,
                            .length = record->entry.length,
                            .crc32c = record->entry.crc32c};
}

/* -- a span ------------------------------------------------------------------------------------ */

void plsi_span_begin(struct plsi_check *check)
{
    check->n = 0;
    check->length = 0;
}

enum pls_code plsi_span_add(struct plsi_check *check, uint64_t i, bool *added)
{
    struct plsi_record record = {.i = i};
    *added = false;
    if (check->n == PLSI_SPAN_RECORDS) {
        return PLS_OK;
    }
    enum pls_code code = plsi_cursor_get(&check->cursor, i, &record.entry);
    if (code != PLS_OK) {
        return code;
    }
    uint64_t start = check->n > 0 ? check->records[0].entry.offset : record.entry.offset;
    uint64_t gap = record.entry.offset - (start + check->length);
    uint64_t length = record.entry.offset + plsi_record_bytes(record.entry.length) - start;
    if (check->n > 0 && (gap > PLSI_SPAN_GAP || length > check->room)) {
        return PLS_OK;
    }
    check->records[check->n++] = record;
    check->length = length;
    *added = true;
    return PLS_OK;
}

/* Checks a record that lies at `at` in the buffer. */
static bool is_intact(const struct plsi_check *check, const struct plsi_record *record, uint64_t at)
{
    uint32_t prefix;
    memcpy(&prefix, check->buffer + at, sizeof prefix);
    return le32toh(prefix) == record->entry.length &&
           plsi_crc32c(0, check->buffer + at + PLSI_PREFIX, record->entry.length) ==
               record->entry.crc32c;
}

enum pls_code plsi_check_span(const struct plsi_check *check, plsi_damage_fn *damaged, void *arg,
                              bool *whole)
{
    uint64_t start = check->records[0].entry.offset;
    enum pls_code code = PLS_OK;
    *whole = read_bytes(check, start, (size_t)check->length);
    for (size_t k = 0; k < check->n && code == PLS_OK; k++) {
        const struct plsi_record *record = &check->records[k];
        uint64_t offset = record->entry.offset;
        /* Where the span cannot be read as a whole, each record is tried by itself, to name the one
         * at fault. */
        bool intact =
            *whole ? is_intact(check, record, offset - start)
                   : read_bytes(check, offset, (size_t)plsi_record_bytes(record->entry.length)) &&
                         is_intact(check, record, 0);
        if (!intact) {
            code = damaged(arg, record);
        }
    }
    return code;
}

/* -- one record larger than the buffer --------------------------------------------------------- */

size_t plsi_check_piece(const struct plsi_check *check, struct plsi_pieces *pieces)
{
    uint64_t left = plsi_record_bytes(pieces->record.entry.length) - pieces->done;
    size_t part = left < check->room ? (size_t)left : check->room;
    size_t head = pieces->done == 0 ? PLSI_PREFIX : 0;
    if (part == 0 || pieces->unreadable) {
        return 0;
    }
    if (!read_bytes(check, pieces->record.entry.offset + pieces->done, part)) {
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

bool plsi_check_pieces_intact(const struct plsi_pieces *pieces)
{
    return !pieces->unreadable && le32toh(pieces->prefix) == pieces->record.entry.length &&
           pieces->crc == pieces->record.entry.crc32c;
}
