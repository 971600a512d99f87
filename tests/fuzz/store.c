/*
 * The store's own files, as another program or a bad disk may leave them, with checksums that are
 * right: those that are wrong are found at once. Byte 0 says which:
 *
 *   0  store.state: the body
 *   1  a relocation table
 *   2  an index; bytes 1-2 its segment's size
 *
 * The last two are blocks: a byte how many of its bytes are given, in units of 16, and these; 255:
 * a damaged one. Behind an index's mark and its blocks the rest is the segment.
 *
 * Each is refused or read, and what is read from a state can be written and read again.
 */
#include "blocks.h"
#include "bytes.h"
#include "checksum.h"
#include "fuzz.h"
#include "index.h"
#include "relocations.h"
#include "state.h"

#define BLOCKS_MAX 8u
#define UNIT       16u
#define DAMAGED    255u

/* -- a backend in memory ---------------------------------------------------------------------- */

struct file {
    struct plsi_blob base; /* first */
    const uint8_t *bytes;
    size_t size;
};

static struct plsi_backend backend;
static uint8_t blocks_of_file[BLOCKS_MAX * PLSI_BLOCK];
static struct file the_file;
static struct file the_data;
static uint8_t meta[PLSI_META_MAX];
static size_t meta_length;

static void release(struct plsi_blob *blob)
{
    (void)blob;
}

static bool read_file(struct plsi_blob *blob, uint64_t offset, void *data, size_t length,
                      enum plsi_wait wait, size_t *got, enum pls_code *code)
{
    const struct file *file = (const struct file *)blob;
    size_t left = offset < file->size ? file->size - (size_t)offset : 0;

    (void)wait;
    *got = length < left ? length : left;
    memcpy(data, file->bytes + (left > 0 ? offset : 0), *got);
    *code = PLS_OK;
    return true;
}

static enum pls_code open_file(struct plsi_backend *self, const char *name, struct plsi_blob **blob,
                               uint64_t *size, struct pls_error *error)
{
    (void)self;
    (void)name;
    (void)error;
    *blob = &the_file.base;
    *size = the_file.size;
    return PLS_OK;
}

static enum pls_code get_meta(struct plsi_backend *self, const char *name, void *data,
                              size_t *length, bool *found, struct pls_error *error)
{
    (void)self;
    (void)name;
    (void)error;
    memcpy(data, meta, meta_length);
    *length = meta_length;
    *found = true;
    return PLS_OK;
}

static enum pls_code put_meta(struct plsi_backend *self, const char *name, const void *data,
                              size_t length, struct pls_error *error)
{
    (void)self;
    (void)name;
    (void)error;
    insist(length <= sizeof(meta));
    memcpy(meta, data, length);
    meta_length = length;
    return PLS_OK;
}

static const struct plsi_backend_ops ops = {
    .open = open_file,
    .get_meta = get_meta,
    .put_meta = put_meta,
    .release = release,
    .read = read_file,
};

/* -- store.state ------------------------------------------------------------------------------ */

static void check_state(struct input *in)
{
    static uint8_t first[PLSI_META_MAX];
    struct plsi_bytes c = {meta};
    struct plsi_state state;
    size_t length;
    size_t first_length;
    const uint8_t *body = take(in, sizeof(meta) - 20, &length);
    bool found = false;

    plsi_put_bytes(&c, "PLSSTATE", 8);
    plsi_put32(&c, 1);
    plsi_put32(&c, (uint32_t)length);
    plsi_put_bytes(&c, body, length);
    plsi_put32(&c, plsi_crc32c(0, meta, 16 + length));
    meta_length = length + 20;
    if (plsi_state_read(&backend, &state, &found, NULL) != PLS_OK) {
        return;
    }
    insist(found && state.n_open <= PLSI_OPEN_SEALS_MAX && strlen(state.owner) <= PLS_OWNER_MAX);
    (void)plsi_state_seal_is_open(&state, &state.seal);
    insist(plsi_state_write(&backend, &state, NULL) == PLS_OK);
    first_length = meta_length;
    memcpy(first, meta, meta_length);
    insist(plsi_state_read(&backend, &state, &found, NULL) == PLS_OK);
    insist(plsi_state_write(&backend, &state, NULL) == PLS_OK);
    insist(meta_length == first_length && memcmp(meta, first, meta_length) == 0);
    plsi_state_open_seal(&state);
    plsi_state_close_seals(&state, state.seal.sealed_id);
    insist(plsi_state_write(&backend, &state, NULL) == PLS_OK);
    insist(plsi_state_read(&backend, &state, &found, NULL) == PLS_OK);
}

/* -- files of blocks -------------------------------------------------------------------------- */

static void take_blocks(struct input *in, unsigned n)
{
    unsigned i = 0;

    memset(blocks_of_file, 0, sizeof(blocks_of_file));
    for (; i < n && in->left > 0; i++) {
        uint8_t *block = blocks_of_file + (size_t)i * PLSI_BLOCK;
        unsigned units = take_byte(in);
        size_t length;
        const uint8_t *bytes = take(in, (size_t)units * UNIT, &length);
        if (units < DAMAGED) {
            memcpy(block, bytes, length);
            plsi_block_close(block);
        } else {
            memset(block, 1, PLSI_BLOCK);
        }
    }
    the_file = (struct file){{&ops}, blocks_of_file, (size_t)i * PLSI_BLOCK};
}

static struct plsi_blocks cache; /* anew for each input, so that libFuzzer sees no leak in it */

static void check_table(struct input *in)
{
    struct plsi_relocations *table;
    struct plsi_table_cursor cursor;
    struct plsi_moved moved;
    struct plsi_moved found;
    struct pls_error error;
    enum pls_code code;
    uint64_t before = 0;
    uint64_t i;

    take_blocks(in, BLOCKS_MAX);
    code = plsi_relocations_open(&backend, &cache, PLSI_RELOCATIONS_FILE, &table, &error);
    if (code != PLS_OK) {
        insist(code == PLS_BAD_FORMAT && error.text[0] != '\0' && table == NULL);
        return;
    }
    insist(plsi_relocations_bytes(table->n_segments, table->n_entries) == the_file.size);
    for (uint32_t s = 0; s < table->n_segments; s++) {
        insist(plsi_relocations_role(table, table->segments[s].id) == table->segments[s].role);
    }
    plsi_table_cursor_init(&cursor, table);
    while (cursor.next < table->n_entries) {
        before = cursor.next;
        if (!plsi_table_cursor_next(&cursor, &moved, &code)) {
            insist(code == PLS_DAMAGED);
            plsi_table_cursor_skip(&cursor);
        } else {
            code = plsi_relocations_find(table, moved.old_file, moved.old_offset, &found, &i);
            insist(code != PLS_OK || (i < table->n_entries && found.old_file == moved.old_file &&
                                      found.old_offset == moved.old_offset));
        }
        insist(cursor.next > before);
    }
    plsi_relocations_release(table);
}

static void look_up(struct plsi_index *index, uint64_t count)
{
    struct plsi_cursor cursor;
    struct plsi_entry entry;
    struct plsi_found found;
    enum pls_code code;

    plsi_cursor_init(&cursor, index);
    for (uint64_t i = 0; i < count; i += 1 + count / 100) {
        if (plsi_cursor_get(&cursor, i, &entry) == PLS_OK) {
            insist(plsi_index_find(index, entry.offset, PLSI_MAY_WAIT, &found, &code));
            insist(code != PLS_OK || found.entry.offset == entry.offset);
        }
    }
    plsi_cursor_fini(&cursor);
}

static void check_index(struct input *in)
{
    unsigned high = take_byte(in);
    size_t segment_bytes = high << 8 | take_byte(in);
    struct plsi_index_mark mark;
    struct plsi_index *index;
    enum pls_code code;

    take_blocks(in, 3);
    the_data = (struct file){{&ops}, in->at, in->left};
    code = plsi_index_read_mark(&the_file.base, 0, &mark, NULL);
    insist(code == PLS_OK || code == PLS_BAD_FORMAT);
    if (code != PLS_OK || !plsi_index_is_complete(&mark, the_file.size, segment_bytes)) {
        return;
    }
    insist(mark.entries * sizeof(uint32_t) <= segment_bytes);
    index = plsi_index_create(&cache, 0, &the_data.base, &the_file.base);
    insist(index != NULL);
    plsi_index_load(index, &mark);
    look_up(index, mark.entries);
    plsi_index_destroy(index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    backend.ops = &ops;
    switch (take_byte(&in) % 3) {
    case 0:
        check_state(&in);
        break;
    case 1:
        plsi_blocks_init(&cache);
        check_table(&in);
        plsi_blocks_fini(&cache);
        break;
    default:
        plsi_blocks_init(&cache);
        check_index(&in);
        plsi_blocks_fini(&cache);
        break;
    }
    return 0;
}
