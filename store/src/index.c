#include "index.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_CHUNK 64 /* entries */

struct plsi_index *plsi_index_create(void)
{
    struct plsi_index *index = calloc(1, sizeof *index);
    if (index != NULL) {
        atomic_init(&index->references, 1);
    }
    return index;
}

struct plsi_index *plsi_index_hold(struct plsi_index *index)
{
    atomic_fetch_add_explicit(&index->references, 1, memory_order_relaxed);
    return index;
}

void plsi_index_release(struct plsi_index *index)
{
    if (index == NULL ||
        atomic_fetch_sub_explicit(&index->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (int k = 0; k < PLSI_INDEX_CHUNKS; k++) {
        free(index->chunks[k]);
    }
    free(index);
}

/* The chunk that entry i lies in, and how many entries lie before that chunk: 64 * (2^k - 1). */
static int chunk_of(uint64_t i, uint64_t *before)
{
    int k = 63 - __builtin_clzll(i / FIRST_CHUNK + 1);
    *before = FIRST_CHUNK * ((1ull << k) - 1);
    return k;
}

enum pls_code plsi_index_reserve(struct plsi_index *index, uint64_t n)
{
    while (index->room < plsi_index_count(index) + n) {
        uint64_t before;
        int k = chunk_of(index->room, &before);
        uint64_t entries = (uint64_t)FIRST_CHUNK << k;
        index->chunks[k] = malloc(entries * sizeof *index->chunks[k]);
        if (index->chunks[k] == NULL) {
            return PLS_NO_MEMORY;
        }
        index->room = before + entries;
    }
    return PLS_OK;
}

void plsi_index_add(struct plsi_index *index, const struct plsi_entry *entry)
{
    uint64_t i = plsi_index_count(index);
    uint64_t before;
    int k = chunk_of(i, &before);
    assert(i < index->room);
    index->chunks[k][i - before] = *entry;
    atomic_store_explicit(&index->count, i + 1, memory_order_release);
}

void plsi_index_cut(struct plsi_index *index, uint64_t count)
{
    assert(count <= plsi_index_count(index));
    atomic_store_explicit(&index->count, count, memory_order_release);
}

uint64_t plsi_index_count(const struct plsi_index *index)
{
    return atomic_load_explicit(&index->count, memory_order_acquire);
}

const struct plsi_entry *plsi_index_at(const struct plsi_index *index, uint64_t i)
{
    uint64_t before;
    int k = chunk_of(i, &before);
    return &index->chunks[k][i - before];
}

bool plsi_index_find(const struct plsi_index *index, uint64_t offset, uint64_t *i)
{
    uint64_t low = 0, high = plsi_index_count(index);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t there = plsi_index_at(index, middle)->offset;
        if (there == offset) {
            *i = middle;
            return true;
        }
        if (there < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}
