/*
 * Where the records of a segment begin and what their checksums are: one entry a record, in file
 * order, each record beginning where the one before it ends.
 *
 * The entries lie in a file beside the segment, in blocks of 255 (FORMAT.md), and are found there
 * by binary search through the directory's cache of blocks; only the last, unfilled block is in
 * memory. The file is derived: it is written behind the data and needs no sync of its own. What of
 * it is missing or damaged is made again from the data, a block when it is looked at, all of it at
 * open.
 *
 *   state      entries lie                        moved there by
 *   growing    whole blocks in the file, the      plsi_index_create, plsi_index_resume
 *              rest in memory
 *   in memory  where they lay when a write of     plsi_index_write_behind, plsi_index_finish,
 *              the file failed, later ones in     plsi_index_keep_in_memory
 *              memory; the next open makes the
 *              file anew
 *   finished   all in the file, marked complete   plsi_index_finish; plsi_index_load
 *
 * One writer adds, any number of readers look up at the same time.
 */
#ifndef PLSI_INDEX_H
#define PLSI_INDEX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "blocks.h"
#include "payloadstore/error.h"

#define PLSI_INDEX_A_BLOCK 255u /* entries */

struct plsi_entry {
    uint64_t offset; /* of the length prefix */
    uint32_t length; /* of the payload */
    uint32_t crc32c; /* of the payload */
};

#define PLSI_NOT_WALKED UINT64_MAX

/* The file's first block. */
struct plsi_index_mark {
    bool complete;        /* entries and segment were synced before this was written */
    bool suspect;         /* a sync of the segment failed */
    bool of_another;      /* whole, and another segment's */
    uint64_t entries;     /* where it is complete, how many there are, */
    uint64_t bytes;       /* the size of the segment they were made for, */
    uint64_t end;         /* and where its last record ends */
    uint64_t walked_from; /* see the index */
};

struct plsi_index {
    struct plsi_blocks *blocks; /* the directory's */
    struct plsi_blob *data;     /* the segment's, borrowed */
    struct plsi_blob *file;     /* NULL: none could be made, and everything stays in memory */
    uint32_t segment;
    /*
     * From this offset on some entries are not from appends: a walk found them by their prefixes,
     * and a prefix that is off leads past the next records. PLSI_NOT_WALKED; set before there are
     * readers.
     */
    uint64_t walked_from;
    bool failed; /* the writer's: the file is not written any more */
    atomic_uint_fast64_t count;
    pthread_mutex_t mark_lock; /* guards the file's first block; held over a disk wait */
    bool suspect;              /* as marked; guarded by mark_lock */
    pthread_mutex_t lock;      /* a leaf; guards everything below */
    uint64_t number;           /* the file's, in the cache */
    uint64_t filed;     /* entries in the file: whole blocks, but at the end of a finished one */
    uint64_t filed_end; /* where the last of them ends */
    struct plsi_entry *tail; /* the entries behind those */
    uint64_t n_tail, room;
};

/* Empty. Takes the file, on failure too; NULL where memory has run out. */
struct plsi_index *plsi_index_create(struct plsi_blocks *blocks, uint32_t segment,
                                     struct plsi_blob *data, struct plsi_blob *file);
/* Takes NULL. */
void plsi_index_destroy(struct plsi_index *index);

/* -- one writer -- */

/* Makes sure that the next n entries can be added. NO_MEMORY. */
enum pls_code plsi_index_reserve(struct plsi_index *index, uint64_t n);
/* Adds behind the last entry, for which there is room. */
void plsi_index_add(struct plsi_index *index, const struct plsi_entry *entry);
/* The same for many at once: each is set, number i from 0 behind the last one, where nobody sees it
 * yet; then n are added together. */
void plsi_index_prepare(struct plsi_index *index, uint64_t i, const struct plsi_entry *entry);
void plsi_index_publish(struct plsi_index *index, uint64_t n);
/* Writes the blocks that are full. What it returns is for the log: the entries stay where they are.
 */
enum pls_code plsi_index_write_behind(struct plsi_index *index);
/*
 * All entries to the file, synced; then the mark that it is complete for a segment of that size,
 * which the caller has synced before.
 */
enum pls_code plsi_index_finish(struct plsi_index *index, uint64_t bytes);
/* The file stays as it is, unmarked: what was found this time may not be all there is. */
void plsi_index_keep_in_memory(struct plsi_index *index);
/* Grows again. */
enum pls_code plsi_index_resume(struct plsi_index *index);
/* Forgets the entries from `count` on. Only where no reader knows the index yet. */
enum pls_code plsi_index_cut(struct plsi_index *index, uint64_t count);

/* -- the mark; any thread -- */

/* Gives a new file its mark, which says nothing yet: version, and room on the disk for what it may
 * have to say later. */
enum pls_code plsi_index_begin_file(struct plsi_blob *file, uint32_t segment);
/* *mark says nothing where the file has none that is whole. BAD_FORMAT: of a version unknown here.
 * IO, *error as it was: the disk did not read it. */
enum pls_code plsi_index_read_mark(struct plsi_blob *file, uint32_t segment,
                                   struct plsi_index_mark *mark, struct pls_error *error);
/* Whether the mark may be believed of a file and a segment of these sizes. */
bool plsi_index_is_complete(const struct plsi_index_mark *mark, uint64_t file_bytes,
                            uint64_t segment_bytes);
/* Takes over a complete file. */
void plsi_index_load(struct plsi_index *index, const struct plsi_index_mark *mark);
/* From now on entries come from a walk: noted in the file, as far as that can be written. */
void plsi_index_mark_walked(struct plsi_index *index, uint64_t offset);
/* Notes on the device, as far as it can, that a sync of the segment failed. */
enum pls_code plsi_index_mark_suspect(struct plsi_index *index);

/* -- any number of readers -- */

uint64_t plsi_index_count(const struct plsi_index *index);

/* Whether a record begins at `offset`. */
struct plsi_found {
    uint64_t i; /* its number */
    struct plsi_entry entry;
};

/*
 * False, with nothing done, where wait is PLSI_NO_WAIT and it would have to wait; else *code: OK,
 * NO_RECORD; DAMAGED: neither the file nor the data can tell; NO_MEMORY.
 */
bool plsi_index_find(struct plsi_index *index, uint64_t offset, enum plsi_wait wait,
                     struct plsi_found *found, enum pls_code *code);

/* Entries by number, best in ascending order: holds on to the block it read last. One thread. */
struct plsi_cursor {
    struct plsi_index *index;
    uint64_t number; /* of the block */
    struct plsi_buffer *block;
};
void plsi_cursor_init(struct plsi_cursor *cursor, struct plsi_index *index);
/* Takes a zeroed one. */
void plsi_cursor_fini(struct plsi_cursor *cursor);
/* Entry number i < count. DAMAGED, NO_MEMORY. Waits for the disk. */
enum pls_code plsi_cursor_get(struct plsi_cursor *cursor, uint64_t i, struct plsi_entry *entry);

/* -- the file's layout -- */

/* Entry number i of a block. */
struct plsi_entry plsi_block_entry(const uint8_t *block, uint64_t i);
/* Where block `number` lies, the mark not counted. */
uint64_t plsi_index_block_at(uint64_t number);

#endif
