#include "segment.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plsi_segment *plsi_segment_create(struct plsi_blocks *blocks, uint32_t id,
                                         struct plsi_blob *blob, struct plsi_blob *index_file)
{
    struct plsi_segment *segment = calloc(1, sizeof *segment);
    struct plsi_index *index = plsi_index_create(blocks, id, blob, index_file);
    if (segment == NULL || index == NULL) {
        plsi_index_destroy(index);
        free(segment);
        blob->ops->release(blob);
        return NULL;
    }
    atomic_init(&segment->references, 1);
    pthread_mutex_init(&segment->sync_lock, NULL);
    segment->id = id;
    segment->blob = blob;
    segment->index = index;
    return segment;
}

struct plsi_segment *plsi_segment_hold(struct plsi_segment *segment)
{
    atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    return segment;
}

void plsi_segment_release(struct plsi_segment *segment)
{
    if (segment == NULL ||
        atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    plsi_index_destroy(segment->index);
    segment->blob->ops->release(segment->blob);
    plsi_runs_fini(&segment->recent.runs);
    pthread_mutex_destroy(&segment->sync_lock);
    free(segment);
}

enum pls_code plsi_segment_sync(struct plsi_segment *segment)
{
    /* The kernel tells of a failure once: who syncs beside the one that is told would hear that all
     * is well, before the segment is known to be suspect. */
    pthread_mutex_lock(&segment->sync_lock);
    if (!atomic_load(&segment->suspect)) {
        /* Cleared first: a write that ends while the sync runs sets it again. */
        atomic_store(&segment->unsynced, false);
        if (segment->blob->ops->sync(segment->blob) != PLS_OK) {
            plsi_segment_suspect(segment);
        }
    }
    pthread_mutex_unlock(&segment->sync_lock);
    return atomic_load(&segment->suspect) ? PLS_IO : PLS_OK;
}

void plsi_segment_suspect(struct plsi_segment *segment)
{
    atomic_store(&segment->suspect, true);
    plsi_index_mark_suspect(segment->index);
}

enum pls_code plsi_segment_finish(struct plsi_segment *segment, bool synced)
{
    bool suspect = segment->was_suspect || atomic_load(&segment->suspect);
    if (suspect || atomic_load(&segment->finished)) {
        return PLS_OK;
    }
    enum pls_code code = synced ? PLS_OK : plsi_segment_sync(segment);
    if (code == PLS_OK) {
        code = plsi_index_finish(segment->index, atomic_load(&segment->bytes));
    }
    atomic_store(&segment->finished, code == PLS_OK);
    return code;
}

void plsi_segment_name(uint32_t id, char name[PLSI_FILE_NAME])
{
    snprintf(name, PLSI_FILE_NAME, "payload_%04" PRIu32 ".dat", id);
}

void plsi_output_name(uint32_t id, char name[PLSI_FILE_NAME])
{
    snprintf(name, PLSI_FILE_NAME, "compact_%04" PRIu32 ".tmp", id);
}

void plsi_index_name(uint32_t id, char name[PLSI_FILE_NAME])
{
    snprintf(name, PLSI_FILE_NAME, "index_%04" PRIu32 ".idx", id);
}

/* The number that stands where the id belongs; whether it is written as we write it, the caller
 * sees. */
static bool id_in(const char *name, uint32_t *id)
{
    const char *digits = strchr(name, '_') + 1;
    uint64_t value = 0;
    for (const char *c = digits; *c >= '0' && *c <= '9'; c++) {
        value = value * 10 + (uint64_t)(*c - '0');
        if (value > UINT32_MAX) {
            return false;
        }
    }
    *id = (uint32_t)value;
    return true;
}

enum plsi_file_kind plsi_file_kind(const char *name, uint32_t *id)
{
    static const struct {
        const char *begins;
        void (*spell)(uint32_t id, char name[PLSI_FILE_NAME]);
        enum plsi_file_kind kind, otherwise;
    } kinds[] = {
        {"payload_", plsi_segment_name, PLSI_FILE_SEGMENT, PLSI_FILE_PAYLOAD},
        {"compact_", plsi_output_name, PLSI_FILE_OUTPUT, PLSI_FILE_OTHER},
        {"index_", plsi_index_name, PLSI_FILE_INDEX, PLSI_FILE_OTHER},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strncmp(name, kinds[i].begins, strlen(kinds[i].begins)) == 0) {
            char expected[PLSI_FILE_NAME];
            if (!id_in(name, id)) {
                return kinds[i].otherwise;
            }
            kinds[i].spell(*id, expected);
            return strcmp(name, expected) == 0 ? kinds[i].kind : kinds[i].otherwise;
        }
    }
    return PLSI_FILE_OTHER;
}

/* -- the table --------------------------------------------------------------------------------- */

void plsi_table_init(struct plsi_table *table)
{
    *table = (struct plsi_table){0};
    pthread_rwlock_init(&table->lock, NULL);
}

void plsi_table_fini(struct plsi_table *table)
{
    for (size_t i = 0; i < table->n; i++) {
        plsi_segment_release(table->segments[i]);
    }
    free(table->segments);
    plsi_relocations_release(table->relocations);
    pthread_rwlock_destroy(&table->lock);
}

enum pls_code plsi_table_reserve(struct plsi_table *table, size_t n)
{
    enum pls_code code = PLS_OK;
    pthread_rwlock_wrlock(&table->lock);
    if (table->room < table->n + n) {
        size_t room = table->n + n + 16;
        struct plsi_segment **segments =
            realloc(table->segments, room * sizeof(struct plsi_segment *));
        if (segments == NULL) {
            code = PLS_NO_MEMORY;
        } else {
            table->segments = segments;
            table->room = room;
        }
    }
    pthread_rwlock_unlock(&table->lock);
    return code;
}

/* The place of the first segment with an id not below `id`. */
static size_t place_of(const struct plsi_table *table, uint32_t id)
{
    size_t low = 0, high = table->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->segments[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_at(const struct plsi_table *table, size_t place, uint32_t id)
{
    return place < table->n && table->segments[place]->id == id;
}

void plsi_table_add(struct plsi_table *table, struct plsi_segment *segment)
{
    pthread_rwlock_wrlock(&table->lock);
    size_t place = place_of(table, segment->id);
    assert(table->n < table->room && !is_at(table, place, segment->id));
    memmove(&table->segments[place + 1], &table->segments[place],
            (table->n - place) * sizeof(struct plsi_segment *));
    table->segments[place] = segment;
    table->n++;
    pthread_rwlock_unlock(&table->lock);
}

void plsi_table_remove(struct plsi_table *table, uint32_t id)
{
    struct plsi_segment *removed = NULL;
    pthread_rwlock_wrlock(&table->lock);
    size_t place = place_of(table, id);
    if (is_at(table, place, id)) {
        removed = table->segments[place];
        table->n--;
        memmove(&table->segments[place], &table->segments[place + 1],
                (table->n - place) * sizeof(struct plsi_segment *));
    }
    pthread_rwlock_unlock(&table->lock);
    plsi_segment_release(removed);
}

struct plsi_segment *plsi_table_find(struct plsi_table *table, uint32_t id)
{
    pthread_rwlock_rdlock(&table->lock);
    size_t place = place_of(table, id);
    struct plsi_segment *found =
        is_at(table, place, id) ? plsi_segment_hold(table->segments[place]) : NULL;
    pthread_rwlock_unlock(&table->lock);
    return found;
}

void plsi_table_set_relocations(struct plsi_table *table, struct plsi_relocations *relocations)
{
    pthread_rwlock_wrlock(&table->lock);
    struct plsi_relocations *before = table->relocations;
    table->relocations = relocations;
    pthread_rwlock_unlock(&table->lock);
    plsi_relocations_release(before);
}

struct plsi_relocations *plsi_table_relocations(struct plsi_table *table)
{
    pthread_rwlock_rdlock(&table->lock);
    struct plsi_relocations *relocations =
        table->relocations != NULL ? plsi_relocations_hold(table->relocations) : NULL;
    pthread_rwlock_unlock(&table->lock);
    return relocations;
}

struct plsi_segment **plsi_table_hold_all(struct plsi_table *table, uint32_t last, size_t *n)
{
    *n = 0;
    pthread_rwlock_rdlock(&table->lock);
    struct plsi_segment **segments = malloc((table->n + 1) * sizeof(struct plsi_segment *));
    while (segments != NULL && *n < table->n && table->segments[*n]->id <= last) {
        segments[*n] = plsi_segment_hold(table->segments[*n]);
        ++*n;
    }
    pthread_rwlock_unlock(&table->lock);
    return segments;
}

void plsi_table_release_all(struct plsi_segment **segments, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        plsi_segment_release(segments[i]);
    }
    free(segments);
}
