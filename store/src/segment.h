/*
 * A segment: the records of one file, and the table of a store's segments.
 *
 *   state     takes appends   moved there by
 *   active    yes             rotate.c, seal.c, recover.c (after a clean close)
 *   sealed    no              the next segment becoming active; its index is finished (finish.c)
 *   suspect   no              plsi_segment_suspect: a sync failed (sync.c), or a write could not be
 *                             undone (append.c)
 *   removed   no              commit.c, delete.c; its file stays open while somebody holds it
 *
 * Reference-counted: the table holds one, each running read, append and sync another.
 */
#ifndef PLSI_SEGMENT_H
#define PLSI_SEGMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "index.h"
#include "payloadstore/payloadstore.h"
#include "recent.h"
#include "relocations.h"

#define PLSI_PREFIX              4u           /* bytes of a record before its payload */
#define PLSI_SEGMENT_BYTES_LIMIT (1ull << 62) /* no offset comes near to wrapping */
#define PLSI_FILE_NAME           32           /* room for a segment file's name */

/* Bytes of a record with a payload of that length. */
static inline uint64_t plsi_record_bytes(uint32_t length)
{
    return PLSI_PREFIX + (uint64_t)length;
}

struct plsi_segment {
    atomic_uint references;
    uint32_t id;
    struct plsi_blob *blob;
    struct plsi_index *index;
    /* Bytes up to the end of the last whole record: what was found at open, and what was appended
     * since. */
    atomic_uint_fast64_t end;
    /* Bytes of the file; greater than `end` where a crash left something behind the last good
     * record. */
    atomic_uint_fast64_t bytes;
    atomic_bool unsynced; /* written to since the last sync */
    atomic_bool suspect;
    atomic_bool full;          /* too full for the batch that was next: it takes no more */
    pthread_mutex_t sync_lock; /* one sync at a time; held over a disk wait */
    uint64_t tail;             /* bytes behind the last good record that were found at open */
    bool was_suspect;          /* before this start: to be rewritten whatever its garbage share */
    atomic_bool finished;      /* synced, its index marked complete */
    struct plsi_segment *next_to_finish; /* guarded by the store's queue_lock */
    struct plsi_recent recent; /* when its records were appended, as far as that is known */
};

/* Takes the blob and the index's file (NULL: none could be made), on failure too. NULL where memory
 * has run out. */
struct plsi_segment *plsi_segment_create(struct plsi_blocks *blocks, uint32_t id,
                                         struct plsi_blob *blob, struct plsi_blob *index_file);
struct plsi_segment *plsi_segment_hold(struct plsi_segment *segment);
/* Takes NULL. */
void plsi_segment_release(struct plsi_segment *segment);

/* Syncs. IO at once where it is suspect, or another sync failed: what is lost stays lost. */
enum pls_code plsi_segment_sync(struct plsi_segment *segment);
/* Takes no more appends; noted on the device, as far as it can be. */
void plsi_segment_suspect(struct plsi_segment *segment);
/* Syncs, where the caller has not, writes the index out, syncs and marks it. What it returns is for
 * the log: the next open walks a segment that is not marked. One at a time, once nothing is added
 * any more. */
enum pls_code plsi_segment_finish(struct plsi_segment *segment, bool synced);

/* "payload_0007.dat", "payload_12345.dat" */
void plsi_segment_name(uint32_t id, char name[PLSI_FILE_NAME]);
/* "compact_0007.tmp": an output before it is published. */
void plsi_output_name(uint32_t id, char name[PLSI_FILE_NAME]);
/* "index_0007.idx" */
void plsi_index_name(uint32_t id, char name[PLSI_FILE_NAME]);

enum plsi_file_kind {
    PLSI_FILE_OTHER,   /* not ours to touch */
    PLSI_FILE_PAYLOAD, /* begins with payload_, and is no segment: counts as usage */
    PLSI_FILE_SEGMENT, /* exactly what plsi_segment_name writes */
    PLSI_FILE_OUTPUT,  /* exactly what plsi_output_name writes */
    PLSI_FILE_INDEX    /* exactly what plsi_index_name writes */
};
enum plsi_file_kind plsi_file_kind(const char *name, uint32_t *id);

/* -- the table --------------------------------------------------------------------------------- */

/*
 * A commit adds the outputs, then sets the relocations, then removes the sources: whoever does not
 * find a segment any more finds the relocations that say where its records are.
 */
struct plsi_table {
    pthread_rwlock_t lock;          /* a leaf; guards everything below */
    struct plsi_segment **segments; /* by id, ascending */
    size_t n, room;
    struct plsi_relocations *relocations; /* held; NULL before the first compaction */
};

void plsi_table_init(struct plsi_table *table);
/* Releases the segments. */
void plsi_table_fini(struct plsi_table *table);

/* Makes room for n more, so that the next n adds succeed. NO_MEMORY. */
enum pls_code plsi_table_reserve(struct plsi_table *table, size_t n);
/* Takes the caller's reference. There is room, and no segment of that id. */
void plsi_table_add(struct plsi_table *table, struct plsi_segment *segment);
/* Gives the table's reference back. Does nothing where the id is not in the table. */
void plsi_table_remove(struct plsi_table *table, uint32_t id);
/* Held for the caller; NULL where there is none. */
struct plsi_segment *plsi_table_find(struct plsi_table *table, uint32_t id);
/* Puts the table of the last compaction (taken) in the place of the one before. */
void plsi_table_set_relocations(struct plsi_table *table, struct plsi_relocations *relocations);
/* Held for the caller; NULL where there is none. */
struct plsi_relocations *plsi_table_relocations(struct plsi_table *table);
/* Every segment with an id up to `last`, held, in id order; *n of them. NULL where memory has run
 * out. */
struct plsi_segment **plsi_table_hold_all(struct plsi_table *table, uint32_t last, size_t *n);
void plsi_table_release_all(struct plsi_segment **segments, size_t n);

#endif
