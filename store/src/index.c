#include "index.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "error.h"
#include "segment.h"
#include "walk.h"

#define MAGIC       "PLSINDEX"
#define VERSION     1u
#define ENTRY_BYTES 16u
#define GUESSES     4 /* by interpolation, before the search only halves */

enum { COMPLETE = 1, SUSPECT = 2 };

/* What a search knows of an index, taken at once. */
struct filed {
    uint64_t file; /* its number in the cache */
    uint64_t entries, end;
};

/* -- the layout -------------------------------------------------------------------------------- */

uint64_t plsi_index_block_at(uint64_t number)
{
    return (number + 1) * PLSI_BLOCK;
}

struct plsi_entry plsi_block_entry(const uint8_t *block, uint64_t i)
{
    struct plsi_entry entry;
    struct plsi_bytes c = {(uint8_t *)block + i * ENTRY_BYTES};
    entry.offset = plsi_get64(&c);
    entry.length = plsi_get32(&c);
    entry.crc32c = plsi_get32(&c);
    return entry;
}

static void encode_block(uint8_t *block, const struct plsi_entry *entries, uint64_t n)
{
    struct plsi_bytes c = {block};
    memset(block, 0, PLSI_BLOCK);
    for (uint64_t i = 0; i < n; i++) {
        plsi_put64(&c, entries[i].offset);
        plsi_put32(&c, entries[i].length);
        plsi_put32(&c, entries[i].crc32c);
    }
    plsi_block_close(block);
}

static uint64_t end_of(const struct plsi_entry *entry)
{
    return entry->offset + plsi_record_bytes(entry->length);
}

/* -- making and freeing ------------------------------------------------------------------------ */

struct plsi_index *plsi_index_create(struct plsi_blocks *blocks, uint32_t segment,
                                     struct plsi_blob *data, struct plsi_blob *file)
{
    struct plsi_index *index = calloc(1, sizeof *index);
    if (index == NULL) {
        if (file != NULL) {
            file->ops->release(file);
        }
        return NULL;
    }
    index->blocks = blocks;
    index->data = data;
    index->file = file;
    index->segment = segment;
    index->walked_from = PLSI_NOT_WALKED;
    index->failed = file == NULL;
    index->number = plsi_blocks_file(blocks);
    pthread_mutex_init(&index->mark_lock, NULL);
    pthread_mutex_init(&index->lock, NULL);
    return index;
}

void plsi_index_destroy(struct plsi_index *index)
{
    if (index == NULL) {
        return;
    }
    if (index->file != NULL) {
        index->file->ops->release(index->file);
    }
    pthread_mutex_destroy(&index->lock);
    pthread_mutex_destroy(&index->mark_lock);
    free(index->tail);
    free(index);
}

/* -- one writer -------------------------------------------------------------------------------- */

/* Only the writer changes the tail and its room: it may look at them without the lock. */
enum pls_code plsi_index_reserve(struct plsi_index *index, uint64_t n)
{
    uint64_t needed = index->n_tail + n;
    if (needed <= index->room) {
        return PLS_OK;
    }
    uint64_t room = index->room * 2 > needed ? index->room * 2 : needed;
    pthread_mutex_lock(&index->lock);
    struct plsi_entry *tail = realloc(index->tail, room * sizeof *tail);
    if (tail != NULL) {
        index->tail = tail;
        index->room = room;
    }
    pthread_mutex_unlock(&index->lock);
    return tail != NULL ? PLS_OK : PLS_NO_MEMORY;
}

void plsi_index_prepare(struct plsi_index *index, uint64_t i, const struct plsi_entry *entry)
{
    assert(index->n_tail + i < index->room);
    index->tail[index->n_tail + i] = *entry;
}

void plsi_index_publish(struct plsi_index *index, uint64_t n)
{
    uint64_t count = atomic_load_explicit(&index->count, memory_order_relaxed);
    pthread_mutex_lock(&index->lock);
    index->n_tail += n;
    atomic_store_explicit(&index->count, count + n, memory_order_release);
    pthread_mutex_unlock(&index->lock);
}

void plsi_index_add(struct plsi_index *index, const struct plsi_entry *entry)
{
    plsi_index_prepare(index, 0, entry);
    plsi_index_publish(index, 1);
}

/* The first n entries of the tail are in the file now. */
static void drop_from_tail(struct plsi_index *index, uint64_t n)
{
    pthread_mutex_lock(&index->lock);
    index->filed_end = end_of(&index->tail[n - 1]);
    index->filed += n;
    index->n_tail -= n;
    memmove(index->tail, index->tail + n, index->n_tail * sizeof *index->tail);
    pthread_mutex_unlock(&index->lock);
}

/* Writes the first n entries of the tail, a block's worth at most, behind the blocks there are. */
static enum pls_code write_block(struct plsi_index *index, uint64_t n)
{
    uint64_t number = index->filed / PLSI_INDEX_A_BLOCK;
    struct plsi_buffer *block = plsi_blocks_create(index->blocks);
    if (block == NULL) {
        return PLS_NO_MEMORY;
    }
    encode_block(block->bytes, index->tail, n);
    enum pls_code code =
        index->file->ops->put(index->file, plsi_index_block_at(number), block->bytes, PLSI_BLOCK);
    if (code == PLS_OK) {
        plsi_blocks_add(index->blocks, index->number, number, block); /* most likely read soon */
        drop_from_tail(index, n);
    }
    plsi_buffer_release(block);
    return code;
}

enum pls_code plsi_index_write_behind(struct plsi_index *index)
{
    enum pls_code code = PLS_OK;
    while (!index->failed && code == PLS_OK && index->n_tail >= PLSI_INDEX_A_BLOCK) {
        code = write_block(index, PLSI_INDEX_A_BLOCK);
    }
    index->failed = index->failed || code != PLS_OK;
    return code;
}

static uint64_t blocks_of(uint64_t entries)
{
    return entries / PLSI_INDEX_A_BLOCK + (entries % PLSI_INDEX_A_BLOCK != 0);
}

static enum pls_code put_mark(struct plsi_blob *file, uint32_t segment,
                              const struct plsi_index_mark *mark)
{
    uint8_t block[PLSI_BLOCK] = {0};
    struct plsi_bytes c = {block};
    plsi_put_bytes(&c, MAGIC, 8);
    plsi_put32(&c, VERSION);
    plsi_put32(&c, segment);
    plsi_put32(&c, (mark->complete ? COMPLETE : 0u) | (mark->suspect ? SUSPECT : 0u));
    plsi_put32(&c, 0);
    plsi_put64(&c, mark->entries);
    plsi_put64(&c, mark->bytes);
    plsi_put64(&c, mark->end);
    plsi_put64(&c, mark->walked_from);
    plsi_block_close(block);
    return file->ops->put(file, 0, block, sizeof block);
}

enum pls_code plsi_index_begin_file(struct plsi_blob *file, uint32_t segment)
{
    return put_mark(file, segment, &(struct plsi_index_mark){.walked_from = PLSI_NOT_WALKED});
}

static enum pls_code write_mark(struct plsi_index *index, struct plsi_index_mark mark)
{
    mark.walked_from = index->walked_from;
    return put_mark(index->file, index->segment, &mark);
}

static enum pls_code mark_complete(struct plsi_index *index, uint64_t bytes)
{
    struct plsi_index_mark mark = {
        .complete = true, .entries = index->filed, .bytes = bytes, .end = index->filed_end};
    pthread_mutex_lock(&index->mark_lock);
    enum pls_code code = index->suspect ? PLS_IO : write_mark(index, mark);
    pthread_mutex_unlock(&index->mark_lock);
    return code;
}

enum pls_code plsi_index_finish(struct plsi_index *index, uint64_t bytes)
{
    if (index->failed) {
        return PLS_IO;
    }
    enum pls_code code = plsi_index_write_behind(index);
    if (code == PLS_OK && index->n_tail > 0) {
        code = write_block(index, index->n_tail);
    }
    if (code == PLS_OK) {
        code =
            index->file->ops->truncate(index->file, plsi_index_block_at(blocks_of(index->filed)));
    }
    if (code == PLS_OK) {
        code = index->file->ops->sync(index->file);
    }
    if (code == PLS_OK) {
        code = mark_complete(index, bytes);
    }
    index->failed = code != PLS_OK;
    return code;
}

/* -- the mark ---------------------------------------------------------------------------------- */

enum pls_code plsi_index_read_mark(struct plsi_blob *file, uint32_t segment,
                                   struct plsi_index_mark *mark, struct pls_error *error)
{
    uint8_t block[PLSI_BLOCK];
    enum pls_code code;
    *mark = (struct plsi_index_mark){.walked_from = PLSI_NOT_WALKED};
    plsi_block_read(file, 0, PLSI_MAY_WAIT, block, &code);
    if (code != PLS_OK || memcmp(block, MAGIC, 8) != 0) {
        return code == PLS_IO ? PLS_IO : PLS_OK;
    }
    struct plsi_bytes c = {block + 8};
    uint32_t version = plsi_get32(&c);
    if (version != VERSION) {
        return plsi_fail(error, PLS_BAD_FORMAT,
                         "the index of segment %" PRIu32 " has version %" PRIu32
                         ", this program knows version %u",
                         segment, version, VERSION);
    }
    if (plsi_get32(&c) != segment) {
        mark->of_another = true;
        return PLS_OK;
    }
    uint32_t flags = plsi_get32(&c);
    plsi_get32(&c);
    mark->complete = flags & COMPLETE;
    mark->suspect = flags & SUSPECT;
    mark->entries = plsi_get64(&c);
    mark->bytes = plsi_get64(&c);
    mark->end = plsi_get64(&c);
    mark->walked_from = plsi_get64(&c);
    return PLS_OK;
}

bool plsi_index_is_complete(const struct plsi_index_mark *mark, uint64_t file_bytes,
                            uint64_t segment_bytes)
{
    return mark->complete && mark->bytes == segment_bytes && mark->end <= segment_bytes &&
           mark->entries <= mark->end / PLSI_PREFIX && (mark->entries > 0 || mark->end == 0) &&
           blocks_of(mark->entries) < file_bytes / PLSI_BLOCK;
}

void plsi_index_load(struct plsi_index *index, const struct plsi_index_mark *mark)
{
    index->filed = mark->entries;
    index->filed_end = mark->end;
    index->walked_from = mark->walked_from;
    atomic_store(&index->count, mark->entries);
}

void plsi_index_mark_walked(struct plsi_index *index, uint64_t offset)
{
    if (offset >= index->walked_from) {
        return;
    }
    pthread_mutex_lock(&index->mark_lock);
    index->walked_from = offset;
    if (!index->failed) {
        write_mark(index, (struct plsi_index_mark){.suspect = index->suspect});
    }
    pthread_mutex_unlock(&index->mark_lock);
}

enum pls_code plsi_index_mark_suspect(struct plsi_index *index)
{
    if (index->file == NULL) {
        return PLS_IO;
    }
    pthread_mutex_lock(&index->mark_lock);
    index->suspect = true;
    enum pls_code code = write_mark(index, (struct plsi_index_mark){.suspect = true});
    pthread_mutex_unlock(&index->mark_lock);
    return code == PLS_OK ? index->file->ops->sync(index->file) : code;
}

/* -- a block, from the cache, the file, or the data -------------------------------------------- */

static uint64_t entries_in(uint64_t number, uint64_t entries)
{
    uint64_t first = number * PLSI_INDEX_A_BLOCK;
    return entries - first < PLSI_INDEX_A_BLOCK ? entries - first : PLSI_INDEX_A_BLOCK;
}

/* How many blocks before `number` up to and with the last whole one, and where its last record
 * ends. */
static uint64_t whole_before(struct plsi_index *index, uint64_t number, const struct filed *filed,
                             uint64_t *end)
{
    uint8_t block[PLSI_BLOCK];
    enum pls_code code;
    for (; number > 0; number--) {
        struct plsi_buffer *made = plsi_blocks_find(index->blocks, filed->file, number - 1);
        if (made == NULL) {
            plsi_block_read(index->file, plsi_index_block_at(number - 1), PLSI_MAY_WAIT, block,
                            &code);
        }
        if (made != NULL || code == PLS_OK) {
            struct plsi_entry last =
                plsi_block_entry(made != NULL ? made->bytes : block, PLSI_INDEX_A_BLOCK - 1);
            plsi_buffer_release(made);
            *end = end_of(&last);
            return number;
        }
    }
    *end = 0;
    return 0;
}

/* The next n records, their checksums those of the bytes as they are now. */
static bool walk_entries(struct plsi_walk *walk, struct plsi_entry *entries, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        entries[i].offset = walk->offset;
        if (!plsi_walk_length(walk, &entries[i].length) ||
            !plsi_walk_crc(walk, entries[i].length, &entries[i].crc32c)) {
            return false;
        }
        plsi_walk_skip(walk, entries[i].length);
    }
    return true;
}

static bool walk_over(struct plsi_walk *walk, uint64_t n)
{
    uint32_t length;
    for (; n > 0 && plsi_walk_length(walk, &length); n--) {
        plsi_walk_skip(walk, length);
    }
    return n == 0;
}

/* Whether a block that was made anew ends where the next one begins: else a prefix led astray. */
static bool ends_right(struct plsi_index *index, uint64_t number, const struct filed *filed,
                       uint64_t end)
{
    uint8_t block[PLSI_BLOCK];
    enum pls_code code;
    if (number + 1 == blocks_of(filed->entries)) {
        return end == filed->end;
    }
    plsi_block_read(index->file, plsi_index_block_at(number + 1), PLSI_MAY_WAIT, block, &code);
    return code != PLS_OK || plsi_block_entry(block, 0).offset == end;
}

/* A block made from the data once more. */
static enum pls_code rebuild(struct plsi_index *index, uint64_t number, const struct filed *filed,
                             uint8_t *block)
{
    struct plsi_entry entries[PLSI_INDEX_A_BLOCK];
    uint64_t offset;
    uint64_t damaged = number - whole_before(index, number, filed, &offset);
    uint64_t n = entries_in(number, filed->entries);
    struct plsi_walk *walk = plsi_walk_create(index->data, offset, filed->end);
    if (walk == NULL) {
        return PLS_NO_MEMORY;
    }
    bool good = walk_over(walk, damaged * PLSI_INDEX_A_BLOCK) && walk_entries(walk, entries, n) &&
                ends_right(index, number, filed, walk->offset);
    free(walk);
    if (good) {
        encode_block(block, entries, n);
    }
    return good ? PLS_OK : PLS_DAMAGED;
}

static bool load_block(struct plsi_index *index, uint64_t number, const struct filed *filed,
                       enum plsi_wait wait, struct plsi_buffer **out, enum pls_code *code)
{
    *code = PLS_OK;
    *out = plsi_blocks_find(index->blocks, filed->file, number);
    if (*out != NULL) {
        return true;
    }
    struct plsi_buffer *block = plsi_blocks_create(index->blocks);
    if (block == NULL) {
        *code = PLS_NO_MEMORY;
        return true;
    }
    if (!plsi_block_read(index->file, plsi_index_block_at(number), wait, block->bytes, code) ||
        (*code != PLS_OK && wait == PLSI_NO_WAIT)) {
        plsi_buffer_release(block);
        return false;
    }
    if (*code != PLS_OK) {
        *code = rebuild(index, number, filed, block->bytes);
    }
    if (*code != PLS_OK) {
        plsi_buffer_release(block);
        return true;
    }
    plsi_blocks_add(index->blocks, filed->file, number, block);
    *out = block;
    return true;
}

/* -- grows again, or is cut -------------------------------------------------------------------- */

/* The first `keep` entries of the file's block `number` become the tail. */
static enum pls_code take_back(struct plsi_index *index, uint64_t number, uint64_t keep)
{
    struct filed filed = {index->number, index->filed, index->filed_end};
    struct plsi_buffer *block;
    enum pls_code code;
    load_block(index, number, &filed, PLSI_MAY_WAIT, &block, &code);
    if (code != PLS_OK) {
        return code;
    }
    pthread_mutex_lock(&index->lock);
    uint64_t room = PLSI_INDEX_A_BLOCK;
    struct plsi_entry *tail = malloc(room * sizeof *tail);
    if (tail != NULL) {
        for (uint64_t i = 0; i < keep; i++) {
            tail[i] = plsi_block_entry(block->bytes, i);
        }
        free(index->tail);
        index->tail = tail;
        index->room = room;
        index->n_tail = keep;
        index->filed = number * PLSI_INDEX_A_BLOCK;
        index->filed_end = plsi_block_entry(block->bytes, 0).offset;
        index->number = plsi_blocks_file(index->blocks); /* the block will be another one */
    }
    pthread_mutex_unlock(&index->lock);
    plsi_buffer_release(block);
    return tail != NULL ? PLS_OK : PLS_NO_MEMORY;
}

void plsi_index_keep_in_memory(struct plsi_index *index)
{
    index->failed = true;
}

enum pls_code plsi_index_resume(struct plsi_index *index)
{
    uint64_t keep = index->filed % PLSI_INDEX_A_BLOCK;
    return keep == 0 ? PLS_OK : take_back(index, index->filed / PLSI_INDEX_A_BLOCK, keep);
}

enum pls_code plsi_index_cut(struct plsi_index *index, uint64_t count)
{
    assert(count <= plsi_index_count(index));
    if (count >= index->filed) {
        index->n_tail = count - index->filed;
    } else {
        enum pls_code code =
            take_back(index, count / PLSI_INDEX_A_BLOCK, count % PLSI_INDEX_A_BLOCK);
        if (code != PLS_OK) {
            return code;
        }
    }
    atomic_store(&index->count, count);
    return PLS_OK;
}

/* -- readers ----------------------------------------------------------------------------------- */

uint64_t plsi_index_count(const struct plsi_index *index)
{
    return atomic_load_explicit(&index->count, memory_order_acquire);
}

static bool find_in_tail(const struct plsi_index *index, uint64_t offset, struct plsi_found *found)
{
    uint64_t low = 0, high = index->n_tail;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (index->tail[middle].offset < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == index->n_tail || index->tail[low].offset != offset) {
        return false;
    }
    *found = (struct plsi_found){.i = index->filed + low, .entry = index->tail[low]};
    return true;
}

static bool find_in_block(const uint8_t *block, uint64_t n, uint64_t offset,
                          struct plsi_found *found)
{
    uint64_t low = 0, high = n;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        found->entry = plsi_block_entry(block, middle);
        if (found->entry.offset == offset) {
            found->i = middle;
            return true;
        }
        if (found->entry.offset < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* The blocks that may hold an offset, low..high-1, and the offsets they span. */
struct span {
    uint64_t low, high;
    uint64_t from, to;
};

/* Records of one store are of like size: a guess by proportion is mostly right. After some that
 * were not, the search halves. */
static uint64_t guess(const struct span *span, uint64_t offset, int round)
{
    uint64_t n = span->high - span->low;
    if (round >= GUESSES || span->to <= span->from) {
        return span->low + n / 2;
    }
    double share = (double)(offset - span->from) / (double)(span->to - span->from);
    uint64_t at = (uint64_t)(share * (double)n);
    return span->low + (at < n ? at : n - 1);
}

/* Narrows the span by a block that was looked into; true where the offset lies within it. */
static bool narrow(struct span *span, uint64_t number, const uint8_t *block, uint64_t n,
                   uint64_t offset)
{
    struct plsi_entry first = plsi_block_entry(block, 0), last = plsi_block_entry(block, n - 1);
    if (offset < first.offset) {
        span->high = number;
        span->to = first.offset;
        return false;
    }
    if (offset >= end_of(&last)) {
        span->low = number + 1;
        span->from = end_of(&last);
        return false;
    }
    return true;
}

/* Looks for the offset in block `number`; true where the search is at its end, *code. */
static bool look_into(struct span *span, uint64_t number, const struct filed *filed,
                      const uint8_t *block, uint64_t offset, struct plsi_found *found,
                      enum pls_code *code)
{
    uint64_t n = entries_in(number, filed->entries);
    if (!narrow(span, number, block, n, offset)) {
        return false;
    }
    if (find_in_block(block, n, offset, found)) {
        found->i += number * PLSI_INDEX_A_BLOCK;
        *code = PLS_OK;
    }
    return true;
}

static bool find_filed(struct plsi_index *index, const struct filed *filed, uint64_t offset,
                       enum plsi_wait wait, struct plsi_found *found, enum pls_code *code)
{
    struct span span = {.high = blocks_of(filed->entries), .to = filed->end};
    struct plsi_block_set *set;
    struct plsi_buffer *held;
    bool ended = offset >= filed->end;
    *code = PLS_NO_RECORD;
    for (int round = 0; span.low < span.high && !ended; round++) {
        uint64_t number = guess(&span, offset, round);
        const uint8_t *block = plsi_blocks_look(index->blocks, filed->file, number, &set);
        if (block != NULL) {
            ended = look_into(&span, number, filed, block, offset, found, code);
            plsi_blocks_looked(set);
            continue;
        }
        if (!load_block(index, number, filed, wait, &held, code)) {
            return false;
        }
        if (*code != PLS_OK) {
            return true;
        }
        *code = PLS_NO_RECORD;
        ended = look_into(&span, number, filed, held->bytes, offset, found, code);
        plsi_buffer_release(held);
    }
    return true;
}

bool plsi_index_find(struct plsi_index *index, uint64_t offset, enum plsi_wait wait,
                     struct plsi_found *found, enum pls_code *code)
{
    pthread_mutex_lock(&index->lock);
    struct filed filed = {index->number, index->filed, index->filed_end};
    bool in_tail = index->n_tail > 0 && offset >= index->tail[0].offset;
    *code = in_tail && find_in_tail(index, offset, found) ? PLS_OK : PLS_NO_RECORD;
    pthread_mutex_unlock(&index->lock);
    return in_tail || find_filed(index, &filed, offset, wait, found, code);
}

/* -- by number --------------------------------------------------------------------------------- */

void plsi_cursor_init(struct plsi_cursor *cursor, struct plsi_index *index)
{
    *cursor = (struct plsi_cursor){.index = index};
}

void plsi_cursor_fini(struct plsi_cursor *cursor)
{
    plsi_buffer_release(cursor->block);
    cursor->block = NULL;
}

/* Makes the cursor hold the block of entry i; *entry is set, and no block held, where it is in
 * memory. */
static enum pls_code seek(struct plsi_cursor *cursor, uint64_t i, struct plsi_entry *entry)
{
    struct plsi_index *index = cursor->index;
    enum pls_code code = PLS_OK;
    plsi_cursor_fini(cursor);
    pthread_mutex_lock(&index->lock);
    struct filed filed = {index->number, index->filed, index->filed_end};
    if (i >= filed.entries) {
        assert(i - filed.entries < index->n_tail);
        *entry = index->tail[i - filed.entries];
    }
    pthread_mutex_unlock(&index->lock);
    if (i < filed.entries) {
        cursor->number = i / PLSI_INDEX_A_BLOCK;
        load_block(index, cursor->number, &filed, PLSI_MAY_WAIT, &cursor->block, &code);
    }
    return code;
}

enum pls_code plsi_cursor_get(struct plsi_cursor *cursor, uint64_t i, struct plsi_entry *entry)
{
    if (cursor->block == NULL || cursor->number != i / PLSI_INDEX_A_BLOCK) {
        enum pls_code code = seek(cursor, i, entry);
        if (code != PLS_OK || cursor->block == NULL) {
            return code;
        }
    }
    *entry = plsi_block_entry(cursor->block->bytes, i % PLSI_INDEX_A_BLOCK);
    return PLS_OK;
}
