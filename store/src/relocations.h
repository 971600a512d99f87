/*
 * The relocation table: where the records that a compaction moved lie now, by every name they are
 * still asked for.
 *
 * A file of 4 KiB blocks, each closed by a checksum: segments, then entries in ascending order of
 * their old names, then a foot. FORMAT.md has it byte by byte.
 *
 * It is written once, synced, and renamed into place: that rename is the compaction's commit. It is
 * never changed after that, and replaced by the next compaction's. A reader holds it while it looks
 * something up.
 *
 * Threads: a finished table may be read by any number of threads. Nothing of it is kept in memory
 * but its segments, and blocks in the directory's cache.
 */
#ifndef PLSI_RELOCATIONS_H
#define PLSI_RELOCATIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "blocks.h"
#include "payloadstore/payloadstore.h"

#define PLSI_RELOCATIONS_FILE      "relocations.tab"
#define PLSI_RELOCATIONS_TEMPORARY "relocations.tmp"

enum plsi_role {
    PLSI_ROLE_OUTPUT = 1, /* made by the compaction: there before any source may go */
    PLSI_ROLE_SOURCE = 2, /* to be deleted */
    PLSI_ROLE_KEPT = 3    /* sealed, and left in place */
};

struct plsi_table_segment {
    uint32_t id;
    enum plsi_role role;
    uint64_t bytes;
};

/* One name of a record, and where the record lies. */
struct plsi_moved {
    uint32_t old_file, new_file;
    uint64_t old_offset, new_offset;
    uint32_t length;
    uint32_t crc32c;
    bool given; /* by the caller of the compaction: it is in the map of the answer */
};

/* Where the record lies, as a ref. */
struct pls_ref plsi_moved_to(const struct plsi_moved *moved);

struct plsi_relocations {
    atomic_uint references;
    struct plsi_blob *blob;
    struct plsi_blocks *blocks; /* the directory's */
    uint64_t number;            /* the file's, in the cache */
    struct pls_seal seal;
    struct pls_compact_summary summary;
    struct plsi_table_segment *segments; /* by id, ascending */
    uint32_t n_segments;
    uint64_t n_entries;
};

struct plsi_relocations *plsi_relocations_hold(struct plsi_relocations *table);
/* Takes NULL. */
void plsi_relocations_release(struct plsi_relocations *table);

/* Bytes of a table's file. */
uint64_t plsi_relocations_bytes(uint32_t n_segments, uint64_t n_entries);

/* *table is NULL where there is no such file. BAD_FORMAT: damaged, or of a version unknown here. */
enum pls_code plsi_relocations_open(struct plsi_backend *backend, struct plsi_blocks *blocks,
                                    const char *name, struct plsi_relocations **table,
                                    struct pls_error *error);

/* The role a segment had in the compaction; 0: none. */
enum plsi_role plsi_relocations_role(const struct plsi_relocations *table, uint32_t id);

/*
 * Looks a name up; its number in *i. Waits for the disk. OK, NO_RECORD: not moved under that name,
 * DAMAGED: the table is damaged there, IO: the disk did not read it this time.
 */
enum pls_code plsi_relocations_find(const struct plsi_relocations *table, uint32_t file,
                                    uint64_t offset, struct plsi_moved *moved, uint64_t *i);

/* Entries in order, a block in memory at a time. */
struct plsi_table_cursor {
    const struct plsi_relocations *table;
    uint64_t next;     /* number of the entry that comes next */
    uint64_t block_of; /* what `block` holds: the entries from here on; UINT64_MAX: nothing */
    uint8_t block[PLSI_BLOCK];
};
void plsi_table_cursor_init(struct plsi_table_cursor *cursor, const struct plsi_relocations *table);
/* False at the end, and, with *code DAMAGED or IO, where the table cannot be read. */
bool plsi_table_cursor_next(struct plsi_table_cursor *cursor, struct plsi_moved *moved,
                            enum pls_code *code);
/* On to the next block, where this one cannot be read. */
void plsi_table_cursor_skip(struct plsi_table_cursor *cursor);

/* -- writing ----------------------------------------------------------------------------------- */

/* Makes a table under its temporary name: begin, entries in ascending order, end. */
struct plsi_table_writer {
    struct plsi_backend *backend;
    struct plsi_relocations *table;
    uint64_t offset; /* in the file, of the block being filled */
    size_t filled;   /* bytes of it */
    uint8_t block[PLSI_BLOCK];
};

/* Takes the array `segments`, on failure too. */
enum pls_code plsi_table_writer_begin(struct plsi_table_writer *writer,
                                      struct plsi_backend *backend, struct plsi_blocks *blocks,
                                      const struct pls_seal *seal,
                                      struct plsi_table_segment *segments, uint32_t n_segments,
                                      struct pls_error *error);
enum pls_code plsi_table_writer_add(struct plsi_table_writer *writer,
                                    const struct plsi_moved *moved, struct pls_error *error);
/* Writes the foot and syncs. The table, as it can be read from now on, in *table. */
enum pls_code plsi_table_writer_end(struct plsi_table_writer *writer,
                                    const struct pls_compact_summary *summary,
                                    struct plsi_relocations **table, struct pls_error *error);
/* Deletes what was written. */
void plsi_table_writer_abandon(struct plsi_table_writer *writer);

#endif
