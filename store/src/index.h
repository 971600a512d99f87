/*
 * Where the records of a segment begin: one entry a record, in file order.
 *
 * One writer adds, any number of readers look up at the same time, without a lock: entries never
 * move and never change, and are published by the count. Reference-counted, since a compaction's
 * map needs it after the segment is gone.
 */
#ifndef PLSI_INDEX_H
#define PLSI_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "payloadstore/error.h"

struct plsi_entry {
    uint64_t offset; /* of the length prefix */
    uint32_t length; /* of the payload */
    uint32_t crc32c; /* of the payload; meaningless below n_walked */
};

#define PLSI_INDEX_CHUNKS 40

struct plsi_index {
    atomic_uint references;
    /* Chunk k has 64 << k entries: few bytes for a short segment, no entry ever moved. */
    struct plsi_entry *chunks[PLSI_INDEX_CHUNKS];
    uint64_t room;     /* entries the chunks have; the writer's */
    uint64_t n_walked; /* the first entries come from a walk, their checksums are not known */
    atomic_uint_fast64_t count;
};

/* Empty, with one reference; NULL where memory has run out. */
struct plsi_index *plsi_index_create(void);
struct plsi_index *plsi_index_hold(struct plsi_index *index);
void plsi_index_release(struct plsi_index *index);

/* Makes sure that the next n entries can be added. NO_MEMORY. */
enum pls_code plsi_index_reserve(struct plsi_index *index, uint64_t n);

/* Adds behind the last entry, for which there is room. */
void plsi_index_add(struct plsi_index *index, const struct plsi_entry *entry);

/* Forgets the entries from `count` on. Only where no reader knows the index yet. */
void plsi_index_cut(struct plsi_index *index, uint64_t count);

uint64_t plsi_index_count(const struct plsi_index *index);

/* The entry number i < count. */
const struct plsi_entry *plsi_index_at(const struct plsi_index *index, uint64_t i);

/* Whether a record begins at `offset`; its number in *i. */
bool plsi_index_find(const struct plsi_index *index, uint64_t offset, uint64_t *i);

#endif
