#include "relocations.h"

#include <inttypes.h>
#include <stdlib.h>

#include "bytes.h"
#include "error.h"

#define MAGIC            "PLSRELOC"
#define VERSION          1u
#define SEGMENT_BYTES    16u
#define SEGMENTS_A_BLOCK (PLSI_BLOCK_BODY / SEGMENT_BYTES)
#define ENTRY_BYTES      32u
#define ENTRIES_A_BLOCK  (PLSI_BLOCK_BODY / ENTRY_BYTES)
#define GIVEN            0x80000000u
#define SHORT_OF_ROOM    1u  /* of the foot's flags */
#define UNREADABLE_RUN   16u /* blocks in a row, beyond which nothing is looked for */

/* -- the layout -------------------------------------------------------------------------------- */

static uint64_t blocks_for(uint64_t n, uint64_t a_block)
{
    return n / a_block + (n % a_block != 0);
}

static uint64_t entries_start(uint32_t n_segments)
{
    return blocks_for(n_segments, SEGMENTS_A_BLOCK) * PLSI_BLOCK;
}

uint64_t plsi_relocations_bytes(uint32_t n_segments, uint64_t n_entries)
{
    return entries_start(n_segments) + blocks_for(n_entries, ENTRIES_A_BLOCK) * PLSI_BLOCK +
           PLSI_BLOCK;
}

/* -- reading ----------------------------------------------------------------------------------- */

struct plsi_relocations *plsi_relocations_hold(struct plsi_relocations *table)
{
    atomic_fetch_add_explicit(&table->references, 1, memory_order_relaxed);
    return table;
}

void plsi_relocations_release(struct plsi_relocations *table)
{
    if (table == NULL ||
        atomic_fetch_sub_explicit(&table->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    table->blob->ops->release(table->blob);
    free(table->segments);
    free(table);
}

static enum pls_code read_block(struct plsi_blob *blob, uint64_t offset, uint8_t block[PLSI_BLOCK])
{
    enum pls_code code;
    plsi_block_read(blob, offset, PLSI_MAY_WAIT, block, &code);
    return code;
}

static bool read_foot(struct plsi_relocations *table, uint64_t bytes, struct pls_error *error)
{
    uint8_t block[PLSI_BLOCK];
    if (bytes < PLSI_BLOCK || bytes % PLSI_BLOCK != 0 ||
        read_block(table->blob, bytes - PLSI_BLOCK, block) != PLS_OK ||
        memcmp(block, MAGIC, 8) != 0) {
        plsi_fail(error, PLS_BAD_FORMAT, PLSI_RELOCATIONS_FILE " is damaged");
        return false;
    }
    struct plsi_bytes c = {block + 8};
    uint32_t version = plsi_get32(&c);
    if (version != VERSION) {
        plsi_fail(error, PLS_BAD_FORMAT,
                  PLSI_RELOCATIONS_FILE " has version %" PRIu32 ", this program knows version %u",
                  version, VERSION);
        return false;
    }
    table->n_segments = plsi_get32(&c);
    table->n_entries = plsi_get64(&c);
    table->seal.sealed_id = plsi_get32(&c);
    table->seal.compaction_id = plsi_get32(&c);
    uint64_t *fields[] = {&table->summary.live_records,     &table->summary.relocated_records,
                          &table->summary.relocated_bytes,  &table->summary.kept_segments,
                          &table->summary.deleted_segments, &table->summary.reclaimed_bytes};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i] = plsi_get64(&c);
    }
    table->summary.short_of_room = (plsi_get32(&c) & SHORT_OF_ROOM) != 0;
    if (table->n_entries > bytes ||
        plsi_relocations_bytes(table->n_segments, table->n_entries) != bytes) {
        plsi_fail(error, PLS_BAD_FORMAT, PLSI_RELOCATIONS_FILE " is not as long as it says");
        return false;
    }
    return true;
}

static bool read_segments(struct plsi_relocations *table, struct pls_error *error)
{
    uint8_t block[PLSI_BLOCK];
    struct plsi_bytes c = {block};
    table->segments = calloc((size_t)table->n_segments + 1, sizeof *table->segments);
    if (table->segments == NULL) {
        plsi_fail(error, PLS_NO_MEMORY, "out of memory");
        return false;
    }
    for (uint32_t i = 0; i < table->n_segments; i++) {
        uint64_t at = (uint64_t)(i / SEGMENTS_A_BLOCK) * PLSI_BLOCK;
        if (i % SEGMENTS_A_BLOCK == 0) {
            if (read_block(table->blob, at, block) != PLS_OK) {
                plsi_fail(error, PLS_BAD_FORMAT, PLSI_RELOCATIONS_FILE " is damaged");
                return false;
            }
            c.at = block;
        }
        table->segments[i].id = plsi_get32(&c);
        table->segments[i].role = (enum plsi_role)plsi_get32(&c);
        table->segments[i].bytes = plsi_get64(&c);
        if (i > 0 && table->segments[i - 1].id >= table->segments[i].id) {
            plsi_fail(error, PLS_BAD_FORMAT,
                      PLSI_RELOCATIONS_FILE " lists its segments in no order");
            return false;
        }
    }
    return true;
}

enum pls_code plsi_relocations_open(struct plsi_backend *backend, struct plsi_blocks *blocks,
                                    const char *name, struct plsi_relocations **table,
                                    struct pls_error *error)
{
    struct pls_error local;
    struct pls_error *cause = error != NULL ? error : &local;
    struct plsi_blob *blob;
    uint64_t bytes;
    *table = NULL;
    enum pls_code code = backend->ops->open(backend, name, &blob, &bytes, cause);
    if (code == PLS_NO_RECORD) {
        return plsi_ok(error);
    }
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_relocations *opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        blob->ops->release(blob);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    atomic_init(&opened->references, 1);
    opened->blob = blob;
    opened->blocks = blocks;
    opened->number = plsi_blocks_file(blocks);
    if (!read_foot(opened, bytes, cause) || !read_segments(opened, cause)) {
        plsi_relocations_release(opened);
        return cause->code;
    }
    *table = opened;
    return PLS_OK;
}

struct pls_ref plsi_moved_to(const struct plsi_moved *moved)
{
    return (struct pls_ref){.file_id = moved->new_file,
                            .offset = moved->new_offset,
                            .length = moved->length,
                            .crc32c = moved->crc32c};
}

enum plsi_role plsi_relocations_role(const struct plsi_relocations *table, uint32_t id)
{
    uint32_t low = 0, high = table->n_segments;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->segments[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < table->n_segments && table->segments[low].id == id;
    return found ? table->segments[low].role : (enum plsi_role)0;
}

static void decode_entry(const uint8_t *block, uint64_t i, struct plsi_moved *moved)
{
    struct plsi_bytes c = {(uint8_t *)block + i * ENTRY_BYTES};
    moved->old_file = plsi_get32(&c);
    moved->new_file = plsi_get32(&c);
    moved->old_offset = plsi_get64(&c);
    moved->new_offset = plsi_get64(&c);
    uint32_t length = plsi_get32(&c);
    moved->length = length & ~GIVEN;
    moved->given = (length & GIVEN) != 0;
    moved->crc32c = plsi_get32(&c);
}

static int compare_name(const struct plsi_moved *moved, uint32_t file, uint64_t offset)
{
    if (moved->old_file != file) {
        return moved->old_file < file ? -1 : 1;
    }
    return (moved->old_offset > offset) - (moved->old_offset < offset);
}

static uint64_t entries_at(const struct plsi_relocations *table, uint64_t block_number)
{
    return entries_start(table->n_segments) + block_number * PLSI_BLOCK;
}

/* A block of entries, from the cache or the file; held for the caller where OK. */
static enum pls_code hold_entries(const struct plsi_relocations *table, uint64_t block_number,
                                  struct plsi_buffer **block)
{
    *block = plsi_blocks_find(table->blocks, table->number, block_number);
    if (*block != NULL) {
        return PLS_OK;
    }
    *block = plsi_blocks_create(table->blocks);
    if (*block == NULL) {
        return PLS_IO;
    }
    enum pls_code code = read_block(table->blob, entries_at(table, block_number), (*block)->bytes);
    if (code == PLS_OK) {
        plsi_blocks_add(table->blocks, table->number, block_number, *block);
    } else {
        plsi_buffer_release(*block);
    }
    return code;
}

/* Within a block that begins at entry `first`. */
static bool find_in_block(const struct plsi_relocations *table, const uint8_t *block,
                          uint64_t first, uint32_t file, uint64_t offset, struct plsi_moved *moved,
                          uint64_t *i)
{
    uint64_t low = 0, high = table->n_entries - first;
    high = high < ENTRIES_A_BLOCK ? high : ENTRIES_A_BLOCK;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        decode_entry(block, middle, moved);
        int order = compare_name(moved, file, offset);
        if (order == 0) {
            *i = first + middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* The first block from number `from` on that can be read, held for the caller; `to` where there is
 * none. Not looked for to the end: a disk that reads nothing is to be found out soon. */
static uint64_t readable_from(const struct plsi_relocations *table, uint64_t from, uint64_t to,
                              struct plsi_buffer **block, enum pls_code *unread)
{
    enum pls_code code;
    uint64_t end = to - from < UNREADABLE_RUN ? to : from + UNREADABLE_RUN;
    while (from < end && (code = hold_entries(table, from, block)) != PLS_OK) {
        *unread = *unread == PLS_IO ? PLS_IO : code;
        from++;
    }
    return from < end ? from : to;
}

enum pls_code plsi_relocations_find(const struct plsi_relocations *table, uint32_t file,
                                    uint64_t offset, struct plsi_moved *moved, uint64_t *i)
{
    uint64_t low = 0, high = blocks_for(table->n_entries, ENTRIES_A_BLOCK);
    enum pls_code unread = PLS_NO_RECORD; /* why a block that may hold it was not looked at */
    /* The last block whose first name is not above the one looked for, if it holds it, holds it
     * alone. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        enum pls_code skipped = unread;
        struct plsi_buffer *block;
        uint64_t at = readable_from(table, middle, high, &block, &skipped);
        bool above = false;
        if (at < high) {
            bool found =
                find_in_block(table, block->bytes, at * ENTRIES_A_BLOCK, file, offset, moved, i);
            struct plsi_moved first;
            decode_entry(block->bytes, 0, &first);
            plsi_buffer_release(block);
            if (found) {
                return PLS_OK;
            }
            above = compare_name(&first, file, offset) < 0;
        }
        if (above) {
            low = at + 1;
        } else {
            high = middle;
            unread = skipped;
        }
    }
    return unread;
}

void plsi_table_cursor_init(struct plsi_table_cursor *cursor, const struct plsi_relocations *table)
{
    cursor->table = table;
    cursor->next = 0;
    cursor->block_of = UINT64_MAX;
}

bool plsi_table_cursor_next(struct plsi_table_cursor *cursor, struct plsi_moved *moved,
                            enum pls_code *code)
{
    *code = PLS_OK;
    if (cursor->table == NULL || cursor->next >= cursor->table->n_entries) {
        return false;
    }
    uint64_t first = cursor->next / ENTRIES_A_BLOCK * ENTRIES_A_BLOCK;
    if (cursor->block_of != first) {
        cursor->block_of = UINT64_MAX;
        *code = read_block(cursor->table->blob, entries_at(cursor->table, first / ENTRIES_A_BLOCK),
                           cursor->block);
        if (*code != PLS_OK) {
            return false;
        }
        cursor->block_of = first;
    }
    decode_entry(cursor->block, cursor->next - first, moved);
    cursor->next++;
    return true;
}

void plsi_table_cursor_skip(struct plsi_table_cursor *cursor)
{
    cursor->next = (cursor->next / ENTRIES_A_BLOCK + 1) * ENTRIES_A_BLOCK;
}

/* -- writing ----------------------------------------------------------------------------------- */

/* Closes the block with its checksum and appends it. */
static enum pls_code flush_block(struct plsi_table_writer *writer, struct pls_error *error)
{
    if (writer->filled == 0) {
        return PLS_OK;
    }
    memset(writer->block + writer->filled, 0, PLSI_BLOCK_BODY - writer->filled);
    plsi_block_close(writer->block);
    enum pls_code code =
        plsi_append_and_wait(writer->table->blob, writer->offset, writer->block, PLSI_BLOCK);
    if (code != PLS_OK) {
        return plsi_fail(error, code, "writing the relocation table: %s", pls_strerror(code));
    }
    writer->offset += PLSI_BLOCK;
    writer->filled = 0;
    return PLS_OK;
}

/* Where the next `bytes` go, a full block being written first; NULL where that fails. */
static uint8_t *make_room(struct plsi_table_writer *writer, size_t bytes, enum pls_code *code,
                          struct pls_error *error)
{
    *code = writer->filled + bytes > PLSI_BLOCK_BODY ? flush_block(writer, error) : PLS_OK;
    if (*code != PLS_OK) {
        return NULL;
    }
    uint8_t *at = writer->block + writer->filled;
    writer->filled += bytes;
    return at;
}

static enum pls_code write_segments(struct plsi_table_writer *writer, struct pls_error *error)
{
    enum pls_code code = PLS_OK;
    for (uint32_t i = 0; i < writer->table->n_segments && code == PLS_OK; i++) {
        struct plsi_bytes c = {make_room(writer, SEGMENT_BYTES, &code, error)};
        if (c.at != NULL) {
            plsi_put32(&c, writer->table->segments[i].id);
            plsi_put32(&c, (uint32_t)writer->table->segments[i].role);
            plsi_put64(&c, writer->table->segments[i].bytes);
        }
    }
    return code == PLS_OK ? flush_block(writer, error) : code;
}

enum pls_code plsi_table_writer_begin(struct plsi_table_writer *writer,
                                      struct plsi_backend *backend, struct plsi_blocks *blocks,
                                      const struct pls_seal *seal,
                                      struct plsi_table_segment *segments, uint32_t n_segments,
                                      struct pls_error *error)
{
    *writer = (struct plsi_table_writer){.backend = backend};
    struct plsi_relocations *table = calloc(1, sizeof *table);
    struct plsi_blob *blob = NULL;
    if (table == NULL || segments == NULL) {
        free(table);
        free(segments);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    enum pls_code code = backend->ops->remove(backend, PLSI_RELOCATIONS_TEMPORARY, error);
    if (code == PLS_OK) {
        code = backend->ops->create(backend, PLSI_RELOCATIONS_TEMPORARY, &blob, error);
    }
    if (code != PLS_OK) {
        free(table);
        free(segments);
        return code;
    }
    atomic_init(&table->references, 1);
    table->blob = blob;
    table->blocks = blocks;
    table->number = plsi_blocks_file(blocks);
    table->seal = *seal;
    table->segments = segments;
    table->n_segments = n_segments;
    writer->table = table;
    code = write_segments(writer, error);
    if (code != PLS_OK) {
        plsi_table_writer_abandon(writer);
    }
    return code;
}

enum pls_code plsi_table_writer_add(struct plsi_table_writer *writer,
                                    const struct plsi_moved *moved, struct pls_error *error)
{
    enum pls_code code;
    struct plsi_bytes c = {make_room(writer, ENTRY_BYTES, &code, error)};
    if (c.at != NULL) {
        plsi_put32(&c, moved->old_file);
        plsi_put32(&c, moved->new_file);
        plsi_put64(&c, moved->old_offset);
        plsi_put64(&c, moved->new_offset);
        plsi_put32(&c, moved->length | (moved->given ? GIVEN : 0));
        plsi_put32(&c, moved->crc32c);
        writer->table->n_entries++;
    }
    return code;
}

static enum pls_code write_foot(struct plsi_table_writer *writer, struct pls_error *error)
{
    const struct plsi_relocations *table = writer->table;
    enum pls_code code = flush_block(writer, error);
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_bytes c = {writer->block};
    plsi_put_bytes(&c, MAGIC, 8);
    plsi_put32(&c, VERSION);
    plsi_put32(&c, table->n_segments);
    plsi_put64(&c, table->n_entries);
    plsi_put32(&c, table->seal.sealed_id);
    plsi_put32(&c, table->seal.compaction_id);
    const uint64_t fields[] = {table->summary.live_records,     table->summary.relocated_records,
                               table->summary.relocated_bytes,  table->summary.kept_segments,
                               table->summary.deleted_segments, table->summary.reclaimed_bytes};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        plsi_put64(&c, fields[i]);
    }
    plsi_put32(&c, table->summary.short_of_room ? SHORT_OF_ROOM : 0);
    writer->filled = (size_t)(c.at - writer->block);
    return flush_block(writer, error);
}

enum pls_code plsi_table_writer_end(struct plsi_table_writer *writer,
                                    const struct pls_compact_summary *summary,
                                    struct plsi_relocations **table, struct pls_error *error)
{
    writer->table->summary = *summary;
    enum pls_code code = write_foot(writer, error);
    if (code == PLS_OK && writer->table->blob->ops->sync(writer->table->blob) != PLS_OK) {
        code = plsi_fail(error, PLS_IO, "syncing the relocation table");
    }
    if (code != PLS_OK) {
        return code;
    }
    *table = writer->table;
    writer->table = NULL;
    return PLS_OK;
}

void plsi_table_writer_abandon(struct plsi_table_writer *writer)
{
    plsi_relocations_release(writer->table);
    writer->table = NULL;
    writer->backend->ops->remove(writer->backend, PLSI_RELOCATIONS_TEMPORARY, NULL);
}
