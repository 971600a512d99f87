/*
 * The blocks of index files and relocation tables that were read last: a cache of bounded size, one
 * a data directory.
 *
 * Such a file is blocks of 4096 bytes, the last four of each the CRC-32C of what is before them. A
 * block in the cache was checked when it was read. It is known by its file's number, which is never
 * used twice, so that nothing has to be thrown out when a file goes; what a full set needs room for
 * replaces its oldest. Replaced blocks nobody holds are what new ones are made of: given back to
 * the allocator, each would lie idle in the arena of whichever thread it was made on.
 *
 * Threads: any, at the same time.
 */
#ifndef PLSI_BLOCKS_H
#define PLSI_BLOCKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "buffer.h"

#define PLSI_BLOCK      4096u
#define PLSI_BLOCK_BODY (PLSI_BLOCK - 4u) /* bytes of a block before its checksum */

#define PLSI_BLOCK_SETS 512 /* with PLSI_BLOCK_WAYS blocks each: 8 MiB when full */
#define PLSI_BLOCK_WAYS 4

#define PLSI_BLOCK_SPARES 16 /* more than are in the making at once, but for a storm of reads */

struct plsi_block_set {
    pthread_mutex_t lock; /* a leaf; guards the set */
    unsigned oldest;
    struct plsi_cached {
        uint64_t file, number;
        struct plsi_buffer *block; /* held; NULL: empty */
    } ways[PLSI_BLOCK_WAYS];
};

struct plsi_blocks {
    atomic_uint_fast64_t files; /* numbers given out */
    struct plsi_block_set sets[PLSI_BLOCK_SETS];
    pthread_mutex_t spare_lock; /* a leaf; guards what is below */
    unsigned n_spares;
    struct plsi_buffer *spares[PLSI_BLOCK_SPARES];
};

void plsi_blocks_init(struct plsi_blocks *blocks);
void plsi_blocks_fini(struct plsi_blocks *blocks);

/* A number for a file, or for one whose blocks have changed. */
uint64_t plsi_blocks_file(struct plsi_blocks *blocks);

/* Memory for a block, PLSI_BLOCK bytes that hold anything, with one reference; NULL where memory
 * has run out. */
struct plsi_buffer *plsi_blocks_create(struct plsi_blocks *blocks);

/* Held for the caller; NULL where it is not there. */
struct plsi_buffer *plsi_blocks_find(struct plsi_blocks *blocks, uint64_t file, uint64_t number);
void plsi_blocks_add(struct plsi_blocks *blocks, uint64_t file, uint64_t number,
                     struct plsi_buffer *block);

/* For a short look, cheaper than holding it: the block's bytes, and *set, which stays locked until
 * plsi_blocks_looked; NULL, and nothing is locked, where it is not there. */
const uint8_t *plsi_blocks_look(struct plsi_blocks *blocks, uint64_t file, uint64_t number,
                                struct plsi_block_set **set);
void plsi_blocks_looked(struct plsi_block_set *set);

/* Sets a block's checksum. */
void plsi_block_close(uint8_t block[PLSI_BLOCK]);
bool plsi_block_is_whole(const uint8_t block[PLSI_BLOCK]);

/*
 * Reads the block at `offset`. False where wait is PLSI_NO_WAIT and it is not in memory; else
 * *code: OK; IO: the disk did not read it, and may yet; DAMAGED: these are not the bytes that were
 * written.
 */
bool plsi_block_read(struct plsi_blob *blob, uint64_t offset, enum plsi_wait wait,
                     uint8_t block[PLSI_BLOCK], enum pls_code *code);

#endif
