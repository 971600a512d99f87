#include "blocks.h"

#include "bytes.h"
#include "checksum.h"

void plsi_blocks_init(struct plsi_blocks *blocks)
{
    for (int i = 0; i < PLSI_BLOCK_SETS; i++) {
        blocks->sets[i] = (struct plsi_block_set){.oldest = 0};
        pthread_mutex_init(&blocks->sets[i].lock, NULL);
    }
    pthread_mutex_init(&blocks->spare_lock, NULL);
    blocks->n_spares = 0;
    atomic_init(&blocks->files, 0);
}

void plsi_blocks_fini(struct plsi_blocks *blocks)
{
    for (int i = 0; i < PLSI_BLOCK_SETS; i++) {
        for (int way = 0; way < PLSI_BLOCK_WAYS; way++) {
            plsi_buffer_release(blocks->sets[i].ways[way].block);
        }
        pthread_mutex_destroy(&blocks->sets[i].lock);
    }
    while (blocks->n_spares > 0) {
        plsi_buffer_release(blocks->spares[--blocks->n_spares]);
    }
    pthread_mutex_destroy(&blocks->spare_lock);
}

struct plsi_buffer *plsi_blocks_create(struct plsi_blocks *blocks)
{
    struct plsi_buffer *spare = NULL;
    pthread_mutex_lock(&blocks->spare_lock);
    if (blocks->n_spares > 0) {
        spare = blocks->spares[--blocks->n_spares];
    }
    pthread_mutex_unlock(&blocks->spare_lock);
    return spare != NULL ? spare : plsi_buffer_create(PLSI_BLOCK);
}

/* Takes one that is in no set any more, so that nobody begins to hold it; or NULL. */
static void give_back(struct plsi_blocks *blocks, struct plsi_buffer *block)
{
    if (block != NULL && plsi_buffer_is_sole(block)) {
        pthread_mutex_lock(&blocks->spare_lock);
        if (blocks->n_spares < PLSI_BLOCK_SPARES) {
            blocks->spares[blocks->n_spares++] = block;
            block = NULL;
        }
        pthread_mutex_unlock(&blocks->spare_lock);
    }
    plsi_buffer_release(block);
}

uint64_t plsi_blocks_file(struct plsi_blocks *blocks)
{
    return atomic_fetch_add(&blocks->files, 1);
}

/* Neighbouring blocks of a file lie in different sets, and so do the first blocks of files. */
static struct plsi_block_set *set_of(struct plsi_blocks *blocks, uint64_t file, uint64_t number)
{
    uint64_t mixed = file * UINT64_C(0x9e3779b97f4a7c15);
    return &blocks->sets[((mixed >> 32) + number) % PLSI_BLOCK_SETS];
}

static struct plsi_cached *find(struct plsi_block_set *set, uint64_t file, uint64_t number)
{
    for (int way = 0; way < PLSI_BLOCK_WAYS; way++) {
        struct plsi_cached *cached = &set->ways[way];
        if (cached->block != NULL && cached->number == number && cached->file == file) {
            return cached;
        }
    }
    return NULL;
}

struct plsi_buffer *plsi_blocks_find(struct plsi_blocks *blocks, uint64_t file, uint64_t number)
{
    struct plsi_block_set *set = set_of(blocks, file, number);
    pthread_mutex_lock(&set->lock);
    struct plsi_cached *cached = find(set, file, number);
    struct plsi_buffer *block = cached != NULL ? plsi_buffer_hold(cached->block) : NULL;
    pthread_mutex_unlock(&set->lock);
    return block;
}

const uint8_t *plsi_blocks_look(struct plsi_blocks *blocks, uint64_t file, uint64_t number,
                                struct plsi_block_set **set)
{
    *set = set_of(blocks, file, number);
    pthread_mutex_lock(&(*set)->lock);
    struct plsi_cached *cached = find(*set, file, number);
    if (cached == NULL) {
        pthread_mutex_unlock(&(*set)->lock);
        return NULL;
    }
    return cached->block->bytes;
}

void plsi_blocks_looked(struct plsi_block_set *set)
{
    pthread_mutex_unlock(&set->lock);
}

void plsi_blocks_add(struct plsi_blocks *blocks, uint64_t file, uint64_t number,
                     struct plsi_buffer *block)
{
    struct plsi_block_set *set = set_of(blocks, file, number);
    struct plsi_buffer *replaced = NULL;
    pthread_mutex_lock(&set->lock);
    if (find(set, file, number) == NULL) {
        struct plsi_cached *cached = &set->ways[set->oldest++ % PLSI_BLOCK_WAYS];
        replaced = cached->block;
        *cached =
            (struct plsi_cached){.file = file, .number = number, .block = plsi_buffer_hold(block)};
    }
    pthread_mutex_unlock(&set->lock);
    give_back(blocks, replaced);
}

void plsi_block_close(uint8_t block[PLSI_BLOCK])
{
    struct plsi_bytes c = {block + PLSI_BLOCK_BODY};
    plsi_put32(&c, plsi_crc32c(0, block, PLSI_BLOCK_BODY));
}

bool plsi_block_is_whole(const uint8_t block[PLSI_BLOCK])
{
    struct plsi_bytes c = {(uint8_t *)block + PLSI_BLOCK_BODY};
    return plsi_get32(&c) == plsi_crc32c(0, block, PLSI_BLOCK_BODY);
}

bool plsi_block_read(struct plsi_blob *blob, uint64_t offset, enum plsi_wait wait,
                     uint8_t block[PLSI_BLOCK], enum pls_code *code)
{
    size_t got;
    if (!blob->ops->read(blob, offset, block, PLSI_BLOCK, wait, &got, code)) {
        return false;
    }
    if (*code != PLS_OK) {
        *code = PLS_IO;
    } else if (got != PLSI_BLOCK || !plsi_block_is_whole(block)) {
        *code = PLS_DAMAGED;
    }
    return true;
}
