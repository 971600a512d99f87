/*
 * Opening a store: what lies in its directory, and what it means.
 *
 *   found                        done
 *   no store.state, but segments another program's directory: it gets a state
 *   store.state.tmp              left alone; the next replacement overwrites it
 *   relocations.tab whose work   it is finished (redo.c)
 *   the state does not call done
 *   relocations.tab, no          the store stays closed: to redo its work might delete what another
 *   store.state                  program wrote since
 *   compact_NNNN.tmp,            never committed: deleted, beside a state
 *   relocations.tmp
 *   seal_NNNN.ages of no open    deleted, beside a state
 *   seal, seal_NNNN.ages.tmp
 *   a state that says deleted    the deletion is finished; the name keeps epoch and next id
 *   the active segment as the    it goes on being active
 *   clean close left it, and no
 *   segment above it
 *   anything else                appends start in a new segment; nothing is ever cut
 *   a segment whose index is     taken as it is: nothing of it is read but the index's mark
 *   marked complete for its size
 *   any other segment            walked, its index made anew (reindex.c)
 *   an index without its         the segment has vanished: logged, the index deleted
 *   segment
 *   no segment where there must  logged (missing.c); its refs are not found, the rest goes on
 *   be one
 *   a payload_ name that is no   counted as usage, logged, left alone
 *   segment's
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ages.h"
#include "error.h"
#include "log.h"
#include "store.h"

/* -- the directory ----------------------------------------------------------------------------- */

struct ids {
    uint32_t *ids;
    size_t n, room;
};

/* What the listing found. */
struct found {
    pls_store *store;
    struct ids segments, outputs, indexes; /* ascending, once all are found */
    uint64_t above_lost;                   /* one more than the id of any segment that vanished */
    bool ages;
    bool no_memory;
};

static bool note_id(struct found *found, struct ids *list, uint32_t id)
{
    if (list->n == list->room) {
        size_t room = list->room * 2 + 16;
        uint32_t *ids = realloc(list->ids, room * sizeof *ids);
        if (ids == NULL) {
            found->no_memory = true;
            return false;
        }
        list->ids = ids;
        list->room = room;
    }
    list->ids[list->n++] = id;
    return true;
}

static bool note_file(void *arg, const char *name, uint64_t size)
{
    struct found *found = arg;
    uint32_t id;
    (void)size;
    switch (plsi_file_kind(name, &id)) {
    case PLSI_FILE_SEGMENT:
        return note_id(found, &found->segments, id);
    case PLSI_FILE_OUTPUT:
        return note_id(found, &found->outputs, id);
    case PLSI_FILE_INDEX:
        return note_id(found, &found->indexes, id);
    case PLSI_FILE_PAYLOAD:
        plsi_log(found->store->dir, PLS_LOG_WARNING, found->store->name, "stray_file",
                 "%s is not the name of a segment; it is left alone", name);
        break;
    case PLSI_FILE_OTHER:
        found->ages |= plsi_ages_is_file(name, &id);
        break;
    }
    return true;
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort(struct ids *list)
{
    if (list->n > 0) {
        qsort(list->ids, list->n, sizeof *list->ids, by_id);
    }
}

static bool has(const struct ids *list, uint32_t id)
{
    return list->n > 0 && bsearch(&id, list->ids, list->n, sizeof id, by_id) != NULL;
}

static enum pls_code list_files(struct found *found, struct pls_error *error)
{
    pls_store *store = found->store;
    enum pls_code code = store->backend->ops->list(store->backend, note_file, found, error);
    sort(&found->segments);
    sort(&found->outputs);
    sort(&found->indexes);
    return code == PLS_OK && found->no_memory ? plsi_fail(error, PLS_NO_MEMORY, "out of memory")
                                              : code;
}

/* -- what is left over ------------------------------------------------------------------------- */

static void remove_left_over(pls_store *store, const char *name, const char *why)
{
    struct pls_error error;
    if (store->backend->ops->remove(store->backend, name, &error) != PLS_OK) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "recovered", "%s", error.text);
    } else if (why != NULL) {
        plsi_log(store->dir, PLS_LOG_INFO, store->name, "recovered", "deleted %s, %s", name, why);
    }
}

/* An index goes before the output it belongs to, so that it is not taken for a lost segment's. */
static void remove_outputs(const struct found *found)
{
    for (size_t i = 0; i < found->outputs.n; i++) {
        char name[PLSI_FILE_NAME];
        uint32_t id = found->outputs.ids[i];
        if (!has(&found->segments, id)) {
            plsi_index_name(id, name);
            remove_left_over(found->store, name, NULL);
        }
        plsi_output_name(id, name);
        remove_left_over(found->store, name, "which a compaction left unfinished");
    }
}

/* Whether the index of a segment that is not there was that of a whole one. */
static bool was_complete(pls_store *store, const char *name, uint32_t id)
{
    struct plsi_index_mark mark = {0};
    struct plsi_blob *file;
    uint64_t size;
    if (store->backend->ops->open(store->backend, name, &file, &size, NULL) == PLS_OK) {
        plsi_index_read_mark(file, id, &mark, NULL);
        file->ops->release(file);
    }
    return mark.complete;
}

static void remove_lost_indexes(struct found *found)
{
    pls_store *store = found->store;
    for (size_t i = 0; i < found->indexes.n; i++) {
        char name[PLSI_FILE_NAME];
        uint32_t id = found->indexes.ids[i];
        if (has(&found->segments, id) || has(&found->outputs, id)) {
            continue;
        }
        plsi_index_name(id, name);
        if (was_complete(store, name, id)) {
            found->above_lost = (uint64_t)id + 1;
            plsi_log(store->dir, PLS_LOG_ERROR, store->name, "segment_missing",
                     "segment %" PRIu32 " is gone, its index is still here: refs into it are lost",
                     id);
        }
        remove_left_over(store, name, NULL);
    }
}

/* Only beside a store.state: else what looks like one of these files may be somebody else's. */
static enum pls_code remove_left_overs(struct found *found, struct pls_error *error)
{
    pls_store *store = found->store;
    enum pls_code code =
        store->backend->ops->remove(store->backend, PLSI_RELOCATIONS_TEMPORARY, error);
    if (code == PLS_OK) {
        remove_outputs(found);
    }
    if (code == PLS_OK && !store->state.deleted) {
        remove_lost_indexes(found);
    }
    if (code == PLS_OK && found->ages) {
        code = store->backend->ops->list(store->backend, plsi_ages_sweep, store, error);
    }
    return code;
}

/* -- the segments ------------------------------------------------------------------------------ */

/* The index's file, as it is, of *bytes, or new; NULL, logged, where none can be had. One that is
 * there and cannot be opened is not made anew: what it knows nobody else does. */
static struct plsi_blob *open_index(pls_store *store, uint32_t id, uint64_t *bytes)
{
    char name[PLSI_FILE_NAME];
    struct plsi_blob *file;
    struct pls_error error;
    plsi_index_name(id, name);
    *bytes = 0;
    switch (store->backend->ops->open(store->backend, name, &file, bytes, &error)) {
    case PLS_OK:
        return file;
    case PLS_NO_RECORD:
        return plsi_segment_index_file(store, id);
    default:
        *bytes = 0;
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "index_failed", "%s; it stays in memory",
                 error.text);
        return NULL;
    }
}

/* Takes the index as it is, where it was marked complete for this segment; else makes it. */
static enum pls_code take_index(pls_store *store, struct plsi_segment *segment, uint64_t bytes,
                                uint64_t index_bytes, struct pls_error *error)
{
    struct plsi_index_mark mark = {.walked_from = PLSI_NOT_WALKED};
    enum pls_code code = index_bytes > 0
                             ? plsi_index_read_mark(segment->index->file, segment->id, &mark, error)
                             : PLS_OK;
    if (code == PLS_IO) {
        plsi_index_keep_in_memory(segment->index); /* it may say suspect */
    } else if (code != PLS_OK) {
        return code;
    }
    segment->was_suspect = mark.suspect;
    segment->index->suspect = mark.suspect;
    segment->index->walked_from = mark.walked_from;
    if (!plsi_index_is_complete(&mark, index_bytes, bytes)) {
        return plsi_reindex(store, segment, bytes, index_bytes > 0 && !mark.of_another, error);
    }
    plsi_index_load(segment->index, &mark);
    atomic_store(&segment->bytes, bytes);
    atomic_store(&segment->end, mark.end);
    segment->tail = bytes - mark.end;
    atomic_store(&segment->finished, true);
    return PLS_OK;
}

static enum pls_code load_segment(pls_store *store, uint32_t id, struct pls_error *error)
{
    char name[PLSI_FILE_NAME];
    plsi_segment_name(id, name);
    struct plsi_blob *blob;
    uint64_t bytes, index_bytes;
    enum pls_code code = store->backend->ops->open(store->backend, name, &blob, &bytes, error);
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_blob *index_file = open_index(store, id, &index_bytes);
    struct plsi_segment *segment = plsi_segment_create(&store->dir->blocks, id, blob, index_file);
    if (segment == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    code = bytes > PLSI_SEGMENT_BYTES_LIMIT
               ? plsi_fail(error, PLS_BAD_FORMAT, "%s is impossibly large", name)
               : take_index(store, segment, bytes, index_bytes, error);
    if (code != PLS_OK) {
        plsi_segment_release(segment);
        return code;
    }
    plsi_table_add(&store->table, segment);
    return PLS_OK;
}

static enum pls_code load_segments(pls_store *store, const struct found *found,
                                   struct pls_error *error)
{
    enum pls_code code = plsi_table_reserve(&store->table, found->segments.n);
    if (code != PLS_OK) {
        return plsi_fail(error, code, "out of memory");
    }
    for (size_t i = 0; i < found->segments.n && code == PLS_OK; i++) {
        code = load_segment(store, found->segments.ids[i], error);
    }
    return code;
}

/* -- the last compaction ----------------------------------------------------------------------- */

/* Its table is read through from now on; what it had still to do is done. */
static enum pls_code take_relocations(pls_store *store, bool known, struct pls_error *error)
{
    struct plsi_relocations *table;
    enum pls_code code = plsi_relocations_open(store->backend, &store->dir->blocks,
                                               PLSI_RELOCATIONS_FILE, &table, error);
    if (code != PLS_OK || table == NULL) {
        return code;
    }
    plsi_table_set_relocations(&store->table, table);
    if (!known) {
        return plsi_fail(error, PLS_BAD_FORMAT,
                         PLSI_RELOCATIONS_FILE " is there without " PLSI_STATE_FILE
                                               ": nobody knows whether its deletions were made");
    }
    if (plsi_redo_is_done(&store->state, table)) {
        return PLS_OK;
    }
    code = plsi_redo(store, table, error);
    if (code == PLS_OK) {
        plsi_log(store->dir, PLS_LOG_INFO, store->name, "recovered",
                 "finished the compaction of seal %" PRIu32, table->seal.sealed_id);
    }
    return code;
}

/* -- a deleted name ---------------------------------------------------------------------------- */

static enum pls_code finish_deletion(pls_store *store, struct found *found, struct pls_error *error)
{
    const struct plsi_backend_ops *ops = store->backend->ops;
    enum pls_code code = ops->remove(store->backend, PLSI_RELOCATIONS_FILE, error);
    for (size_t i = 0; i < found->indexes.n && code == PLS_OK; i++) {
        char name[PLSI_FILE_NAME];
        plsi_index_name(found->indexes.ids[i], name);
        code = ops->remove(store->backend, name, error);
    }
    for (size_t i = 0; i < found->segments.n && code == PLS_OK; i++) {
        code = plsi_remove_segment(store, found->segments.ids[i], error);
    }
    found->segments.n = 0;
    return code == PLS_OK ? ops->sync_names(store->backend, error) : code;
}

/* The name comes to life again, with epoch and ids going on where they were. */
static enum pls_code revive(pls_store *store, struct pls_error *error)
{
    struct plsi_state fresh;
    enum pls_code code = plsi_state_init(&fresh, error);
    if (code != PLS_OK) {
        return code;
    }
    fresh.next_id = store->state.next_id;
    fresh.epoch = store->state.epoch;
    code = plsi_state_write(store->backend, &fresh, error);
    if (code == PLS_OK) {
        store->state = fresh;
    }
    return code;
}

/* -- settling ---------------------------------------------------------------------------------- */

static uint32_t last_id(const struct found *found)
{
    return found->segments.ids[found->segments.n - 1];
}

static void settle_next_id(pls_store *store, const struct found *found)
{
    uint64_t next = store->state.next_id;
    if (found->segments.n > 0 && last_id(found) >= next) {
        next = (uint64_t)last_id(found) + 1;
    }
    if (found->above_lost > next) {
        next = found->above_lost;
    }
    if (store->state.sealed && store->state.seal.compaction_id >= next) {
        next = (uint64_t)store->state.seal.compaction_id + 1;
    }
    store->next_id = next;
}

/* After a clean close the segment with the highest id goes on, if nobody has touched it since. */
static void settle_active(pls_store *store, const struct found *found)
{
    if (!store->state.clean || found->segments.n == 0 || last_id(found) != store->state.clean_id) {
        return;
    }
    struct plsi_segment *last = plsi_table_find(&store->table, store->state.clean_id);
    if (atomic_load(&last->bytes) == store->state.clean_bytes &&
        atomic_load(&last->end) == store->state.clean_bytes && !last->was_suspect) {
        store->resume = last;
    } else {
        plsi_segment_release(last);
    }
}

/* What was walked is marked complete by and by; the resumed segment goes on growing. */
static void finish_segments(pls_store *store)
{
    for (size_t i = 0; i < store->table.n; i++) {
        struct plsi_segment *segment = store->table.segments[i];
        if (!atomic_load(&segment->finished) && segment != store->resume) {
            plsi_finish_submit(store, segment);
        }
    }
}

static enum pls_code settle(pls_store *store, bool known, bool create, struct found *found,
                            struct pls_error *error)
{
    enum pls_code code = PLS_OK;
    if (!known && found->segments.n == 0 && !create) {
        return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
    }
    if (!known) {
        code = plsi_state_init(&store->state, error);
        if (code == PLS_OK) {
            code = plsi_state_write(store->backend, &store->state, error);
        }
    } else if (store->state.deleted) {
        code = finish_deletion(store, found, error);
        if (code == PLS_OK && !create) {
            return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
        }
        code = code == PLS_OK ? revive(store, error) : code;
    }
    if (code == PLS_OK) {
        code = load_segments(store, found, error);
    }
    if (code != PLS_OK) {
        return code;
    }
    atomic_store(&store->epoch, store->state.epoch);
    settle_next_id(store, found);
    settle_active(store, found);
    finish_segments(store);
    plsi_log_missing(store);
    /* A store has a segment from its beginning on. */
    return found->segments.n == 0 ? plsi_next_segment(store, error) : PLS_OK;
}

enum pls_code plsi_recover(pls_store *store, bool create, struct pls_error *error)
{
    struct found found = {.store = store};
    bool known;
    enum pls_code code = plsi_state_read(store->backend, &store->state, &known, error);
    if (code == PLS_OK) {
        /* What is read from here on is answered for: a process may have died between a rename and
         * its sync, and the power fail next. */
        code = store->backend->ops->sync_names(store->backend, error);
    }
    if (code == PLS_OK && !(known && store->state.deleted)) {
        code = take_relocations(store, known, error);
    }
    if (code == PLS_OK) {
        code = list_files(&found, error);
    }
    if (code == PLS_OK && known) {
        code = remove_left_overs(&found, error);
    }
    if (code == PLS_OK) {
        code = settle(store, known, create, &found, error);
    }
    free(found.segments.ids);
    free(found.outputs.ids);
    free(found.indexes.ids);
    return code;
}
