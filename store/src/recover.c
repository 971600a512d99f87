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
 *   a state that says deleted    the deletion is finished; the name keeps epoch and next id
 *   the active segment as the    it goes on being active
 *   clean close left it, and no
 *   segment above it
 *   anything else                appends start in a new segment; nothing is ever cut
 *   a bad record                 the segment's walk ends there; what lies behind it is read by
 *                                refs with a checksum
 *   a payload_ name that is no   counted as usage, logged, left alone
 *   segment's
 */
#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "log.h"
#include "store.h"

#define WINDOW (64u << 10)

/* -- walking a segment ------------------------------------------------------------------------- */

struct walk {
    struct plsi_segment *segment;
    uint64_t bytes;     /* of the file */
    uint64_t offset;    /* of the next record */
    uint64_t empty_run; /* empty records, in a row, before it */
    bool unreadable;    /* the disk, not the record, ended the walk */
    uint64_t at;        /* what the window holds: `filled` bytes from here */
    size_t filled;
    uint8_t window[WINDOW];
};

/* The length prefix at the walk's offset; false where it cannot be read. */
static bool prefix_at(struct walk *walk, uint32_t *length)
{
    if (walk->offset < walk->at || walk->offset + PLSI_PREFIX > walk->at + walk->filled) {
        struct plsi_blob *blob = walk->segment->blob;
        enum pls_code code;
        walk->at = walk->offset;
        blob->ops->read(blob, walk->at, walk->window, WINDOW, PLSI_MAY_WAIT, &walk->filled, &code);
        if (code != PLS_OK || walk->filled < PLSI_PREFIX) {
            walk->unreadable = true;
            walk->filled = 0;
            return false;
        }
    }
    memcpy(length, walk->window + (walk->offset - walk->at), sizeof *length);
    *length = le32toh(*length);
    return true;
}

static bool is_record(const struct walk *walk, uint32_t length)
{
    return length <= PLS_PAYLOAD_LIMIT &&
           walk->bytes - walk->offset >= PLSI_PREFIX + (uint64_t)length;
}

static enum pls_code walk_records(struct walk *walk)
{
    struct plsi_index *index = walk->segment->index;
    uint32_t length;
    while (walk->bytes - walk->offset >= PLSI_PREFIX && prefix_at(walk, &length) &&
           is_record(walk, length)) {
        if (plsi_index_reserve(index, 1) != PLS_OK) {
            return PLS_NO_MEMORY;
        }
        plsi_index_add(index, &(struct plsi_entry){.offset = walk->offset, .length = length});
        walk->offset += PLSI_PREFIX + (uint64_t)length;
        walk->empty_run = length == 0 ? walk->empty_run + 1 : 0;
    }
    return PLS_OK;
}

static void log_walk(const pls_store *store, const struct walk *walk)
{
    if (walk->offset < walk->bytes) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "bad_record",
                 "segment %" PRIu32 " %s at byte %" PRIu64 " of %" PRIu64
                 ": what lies behind it is read by refs with a checksum only",
                 walk->segment->id, walk->unreadable ? "cannot be read" : "has no whole record",
                 walk->offset, walk->bytes);
    } else if (walk->empty_run > 0 && !store->state.clean) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "zero_tail",
                 "segment %" PRIu32 " ends in %" PRIu64 " zero words, kept as empty records",
                 walk->segment->id, walk->empty_run);
    }
}

static enum pls_code walk_segment(pls_store *store, struct plsi_segment *segment, uint64_t bytes,
                                  struct pls_error *error)
{
    struct walk *walk = malloc(sizeof *walk);
    if (walk == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    *walk = (struct walk){.segment = segment, .bytes = bytes};
    enum pls_code code = walk_records(walk);
    if (code == PLS_OK) {
        log_walk(store, walk);
    }
    atomic_store(&segment->bytes, bytes);
    atomic_store(&segment->end, walk->offset);
    segment->index->n_walked = plsi_index_count(segment->index);
    free(walk);
    return code == PLS_OK ? PLS_OK : plsi_fail(error, code, "out of memory");
}

/* -- the directory ----------------------------------------------------------------------------- */

/* What the listing found. */
struct found {
    pls_store *store;
    uint32_t *ids;
    size_t n, room;
    bool outputs;
    bool no_memory;
};

static bool note_id(struct found *found, uint32_t id)
{
    if (found->n == found->room) {
        size_t room = found->room * 2 + 16;
        uint32_t *ids = realloc(found->ids, room * sizeof *ids);
        if (ids == NULL) {
            found->no_memory = true;
            return false;
        }
        found->ids = ids;
        found->room = room;
    }
    found->ids[found->n++] = id;
    return true;
}

static bool note_file(void *arg, const char *name, uint64_t size)
{
    struct found *found = arg;
    uint32_t id;
    (void)size;
    switch (plsi_file_kind(name, &id)) {
    case PLSI_FILE_SEGMENT:
        return note_id(found, id);
    case PLSI_FILE_OUTPUT:
        found->outputs = true;
        break;
    case PLSI_FILE_PAYLOAD:
        plsi_log(found->store->dir, PLS_LOG_WARNING, found->store->name, "stray_file",
                 "%s is not the name of a segment; it is left alone", name);
        break;
    case PLSI_FILE_OTHER:
        break;
    }
    return true;
}

static bool remove_output(void *arg, const char *name, uint64_t size)
{
    pls_store *store = arg;
    uint32_t id;
    (void)size;
    if (plsi_file_kind(name, &id) == PLSI_FILE_OUTPUT) {
        struct pls_error error;
        if (store->backend->ops->remove(store->backend, name, &error) != PLS_OK) {
            plsi_log(store->dir, PLS_LOG_WARNING, store->name, "recovered", "%s", error.text);
        } else {
            plsi_log(store->dir, PLS_LOG_INFO, store->name, "recovered",
                     "deleted %s, which a compaction left unfinished", name);
        }
    }
    return true;
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* `known`: there is a store.state, and so what looks like an unfinished output is one. */
static enum pls_code list_files(struct found *found, bool known, struct pls_error *error)
{
    pls_store *store = found->store;
    const struct plsi_backend_ops *ops = store->backend->ops;
    enum pls_code code = ops->list(store->backend, note_file, found, error);
    if (code == PLS_OK && found->no_memory) {
        code = plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    if (code == PLS_OK && known) {
        code = ops->remove(store->backend, PLSI_RELOCATIONS_TEMPORARY, error);
    }
    if (code == PLS_OK && found->outputs && known) {
        code = ops->list(store->backend, remove_output, store, error);
    }
    if (found->n > 0) {
        qsort(found->ids, found->n, sizeof *found->ids, by_id);
    }
    return code;
}

static enum pls_code load_segment(pls_store *store, uint32_t id, struct pls_error *error)
{
    char name[PLSI_FILE_NAME];
    plsi_segment_name(id, name);
    struct plsi_blob *blob;
    uint64_t bytes;
    enum pls_code code = store->backend->ops->open(store->backend, name, &blob, &bytes, error);
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_segment *segment = plsi_segment_create(id, blob);
    if (segment == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    code = bytes > PLSI_SEGMENT_BYTES_LIMIT
               ? plsi_fail(error, PLS_BAD_FORMAT, "%s is impossibly large", name)
               : walk_segment(store, segment, bytes, error);
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
    enum pls_code code = plsi_table_reserve(&store->table, found->n);
    if (code != PLS_OK) {
        return plsi_fail(error, code, "out of memory");
    }
    for (size_t i = 0; i < found->n && code == PLS_OK; i++) {
        code = load_segment(store, found->ids[i], error);
    }
    return code;
}

/* -- the last compaction ----------------------------------------------------------------------- */

/* Its table is read through from now on; what it had still to do is done. */
static enum pls_code take_relocations(pls_store *store, bool known, struct pls_error *error)
{
    struct plsi_relocations *table;
    enum pls_code code =
        plsi_relocations_open(store->backend, PLSI_RELOCATIONS_FILE, &table, error);
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

static enum pls_code finish_deletion(pls_store *store, const struct found *found,
                                     struct pls_error *error)
{
    const struct plsi_backend_ops *ops = store->backend->ops;
    enum pls_code code = ops->remove(store->backend, PLSI_RELOCATIONS_FILE, error);
    for (size_t i = 0; i < found->n && code == PLS_OK; i++) {
        char name[PLSI_FILE_NAME];
        plsi_segment_name(found->ids[i], name);
        code = ops->remove(store->backend, name, error);
    }
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

static void settle_next_id(pls_store *store, const struct found *found)
{
    uint64_t next = store->state.next_id;
    if (found->n > 0 && found->ids[found->n - 1] >= next) {
        next = (uint64_t)found->ids[found->n - 1] + 1;
    }
    if (store->state.sealed && store->state.seal.compaction_id >= next) {
        next = (uint64_t)store->state.seal.compaction_id + 1;
    }
    store->next_id = next;
}

/* After a clean close the segment with the highest id goes on, if nobody has touched it since. */
static void settle_active(pls_store *store, const struct found *found)
{
    if (!store->state.clean || found->n == 0 || found->ids[found->n - 1] != store->state.clean_id) {
        return;
    }
    struct plsi_segment *last = plsi_table_find(&store->table, store->state.clean_id);
    if (atomic_load(&last->bytes) == store->state.clean_bytes &&
        atomic_load(&last->end) == store->state.clean_bytes) {
        store->resume = last;
    } else {
        plsi_segment_release(last);
    }
}

static enum pls_code settle(pls_store *store, bool known, bool create, struct found *found,
                            struct pls_error *error)
{
    enum pls_code code = PLS_OK;
    if (!known && found->n == 0 && !create) {
        return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
    }
    if (!known) {
        code = plsi_state_init(&store->state, error);
        if (code == PLS_OK) {
            code = plsi_state_write(store->backend, &store->state, error);
        }
    } else if (store->state.deleted) {
        code = finish_deletion(store, found, error);
        found->n = 0;
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
    /* A store has a segment from its beginning on. */
    return found->n == 0 ? plsi_next_segment(store, error) : PLS_OK;
}

enum pls_code plsi_recover(pls_store *store, bool create, struct pls_error *error)
{
    struct found found = {.store = store};
    bool known;
    enum pls_code code = plsi_state_read(store->backend, &store->state, &known, error);
    if (code == PLS_OK && !(known && store->state.deleted)) {
        code = take_relocations(store, known, error);
    }
    if (code == PLS_OK) {
        code = list_files(&found, known, error);
    }
    if (code == PLS_OK) {
        code = settle(store, known, create, &found, error);
    }
    free(found.ids);
    return code;
}
