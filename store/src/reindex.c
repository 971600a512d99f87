/*
 * The index of a segment that was not marked complete: after a crash, from another program, or
 * where the file is missing or damaged.
 *
 *   found at a record                  done
 *   a prefix, and a whole old entry    the entry is kept, its checksum from when the payload was
 *   like it                            appended
 *   a prefix, and no such entry        an entry with the checksum of the bytes as they are; from
 *                                      here on a ref with a checksum that no entry names is looked
 *                                      for in the data
 *   no whole record, or another        the old entry is kept: the record reads as damaged, those
 *   prefix than a whole old entry's    behind it as what they are
 *   no whole record, no such entry     the end: what lies behind is read by refs with a checksum
 *   the disk does not read it          as above, but the index stays in memory, and its file as it
 *                                      was: the next open tries again
 *
 * The index ahead of the data: entries that lie behind the end of the file are not taken over. The
 * index behind the data: it ends earlier, and the prefixes go on. The new entries go to the old
 * ones' places: a block is read before it is written.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "error.h"
#include "log.h"
#include "store.h"
#include "walk.h"

/* A block of the old index at a time. */
struct old {
    struct plsi_blob *file; /* NULL: there is none */
    uint64_t number;        /* of the block; UINT64_MAX: none yet */
    bool whole;
    uint8_t block[PLSI_BLOCK];
};

struct reindex {
    pls_store *store;
    struct plsi_segment *segment;
    struct plsi_walk *walk;
    struct old old;
    uint64_t n_bad;     /* records that only the old index knows */
    uint64_t empty_run; /* empty records, in a row, before the walk's offset */
};

/* Whether the old index has record number i where the walk stands, and within the file. */
static bool old_entry(struct reindex *re, uint64_t i, struct plsi_entry *entry)
{
    struct old *old = &re->old;
    uint64_t number = i / PLSI_INDEX_A_BLOCK;
    if (old->file != NULL && old->number != number) {
        enum pls_code code;
        plsi_block_read(old->file, plsi_index_block_at(number), PLSI_MAY_WAIT, old->block, &code);
        old->whole = code == PLS_OK;
        old->number = number;
    }
    if (!old->whole) {
        return false;
    }
    *entry = plsi_block_entry(old->block, i % PLSI_INDEX_A_BLOCK);
    return entry->offset == re->walk->offset && plsi_walk_fits(re->walk, entry->length);
}

/* The entry of record number i; false at the end. A payload that the disk does not read has no sum
 * that fits: its record is damaged, until an open finds that it reads. */
static bool next_entry(struct reindex *re, uint64_t i, struct plsi_entry *entry)
{
    uint32_t length = 0;
    bool has_prefix = plsi_walk_length(re->walk, &length);
    if (old_entry(re, i, entry)) {
        re->n_bad += !has_prefix || length != entry->length;
        return true;
    }
    *entry = (struct plsi_entry){.offset = re->walk->offset, .length = length};
    if (!has_prefix) {
        return false;
    }
    plsi_walk_crc(re->walk, length, &entry->crc32c);
    plsi_index_mark_walked(re->segment->index, re->walk->offset);
    return true;
}

static enum pls_code walk_records(struct reindex *re)
{
    struct plsi_index *index = re->segment->index;
    struct plsi_entry entry;
    for (uint64_t i = 0; next_entry(re, i, &entry); i++) {
        if (re->walk->unreadable) {
            plsi_index_keep_in_memory(index);
        }
        if (plsi_index_reserve(index, 1) != PLS_OK) {
            return PLS_NO_MEMORY;
        }
        plsi_index_add(index, &entry);
        plsi_index_write_behind(index); /* where it fails, the entries stay in memory */
        plsi_walk_skip(re->walk, entry.length);
        re->empty_run = entry.length == 0 ? re->empty_run + 1 : 0;
    }
    if (re->walk->unreadable) {
        plsi_index_keep_in_memory(index); /* the next open tries again */
    }
    return PLS_OK;
}

static void log_walk(const struct reindex *re)
{
    const pls_store *store = re->store;
    const struct plsi_walk *walk = re->walk;
    uint32_t id = re->segment->id;
    if (re->n_bad > 0) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "bad_record",
                 "segment %" PRIu32 " has %" PRIu64 " records whose prefix is damaged", id,
                 re->n_bad);
    }
    if (walk->offset < walk->bytes) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "bad_record",
                 "segment %" PRIu32 " %s at byte %" PRIu64 " of %" PRIu64
                 ": what lies behind it is read by refs with a checksum only",
                 id, walk->unreadable ? "cannot be read" : "has no whole record", walk->offset,
                 walk->bytes);
    } else if (re->empty_run > 0 && !store->state.clean) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "zero_tail",
                 "segment %" PRIu32 " ends in %" PRIu64 " zero words, kept as empty records", id,
                 re->empty_run);
    }
}

enum pls_code plsi_reindex(pls_store *store, struct plsi_segment *segment, uint64_t bytes, bool old,
                           struct pls_error *error)
{
    struct reindex *re = malloc(sizeof *re);
    struct plsi_walk *walk = plsi_walk_create(segment->blob, 0, bytes);
    enum pls_code code = PLS_NO_MEMORY;
    if (re != NULL && walk != NULL) {
        *re = (struct reindex){.store = store, .segment = segment, .walk = walk};
        re->old.file = old ? segment->index->file : NULL;
        re->old.number = UINT64_MAX;
        code = walk_records(re);
    }
    if (code == PLS_OK) {
        log_walk(re);
        atomic_store(&segment->bytes, bytes);
        atomic_store(&segment->end, walk->offset);
        atomic_store(&segment->unsynced, true); /* as far as anybody knows */
        segment->tail = bytes - walk->offset;
    }
    free(walk);
    free(re);
    return code == PLS_OK ? PLS_OK : plsi_fail(error, code, "out of memory");
}
