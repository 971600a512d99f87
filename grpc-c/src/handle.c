/* Slots of calls, and the handles that name them. */
#include "handle.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "core.h"

#define INDEX_BITS  24u
#define INDEX_MASK  (((uintptr_t)1 << INDEX_BITS) - 1)
#define CHUNK_SLOTS 256u
#define CHUNKS_MAX  ((1u << INDEX_BITS) / CHUNK_SLOTS)

_Static_assert(sizeof(void *) == 8, "a handle takes 64 bits");

/* Chunks are published once and never go. */
static _Atomic(struct gci_slot *) chunks[CHUNKS_MAX];

static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER; /* lists, n_slots; under no other */
static struct gci_slot *unowned;
static uint32_t n_slots; /* in published chunks */

static struct gci_slot *slot_at(uintptr_t index)
{
    struct gci_slot *chunk =
        atomic_load_explicit(&chunks[index / CHUNK_SLOTS], memory_order_acquire);

    return chunk == NULL ? NULL : &chunk[index % CHUNK_SLOTS];
}

/* Under the lists' lock. */
static void add_chunk(void)
{
    struct gci_slot *chunk = n_slots <= INDEX_MASK ? calloc(CHUNK_SLOTS, sizeof(*chunk)) : NULL;

    if (chunk == NULL) {
        return;
    }
    for (uint32_t i = CHUNK_SLOTS; i-- > 0;) {
        pthread_mutex_init(&chunk[i].lock, NULL);
        chunk[i].index = n_slots + i;
        chunk[i].generation = 1; /* so that NULL is no handle */
        chunk[i].next = unowned;
        unowned = &chunk[i];
    }
    atomic_store_explicit(&chunks[n_slots / CHUNK_SLOTS], chunk, memory_order_release);
    n_slots += CHUNK_SLOTS;
}

static struct gci_slot *pop(struct gci_slot **list)
{
    struct gci_slot *slot = *list;

    if (slot != NULL) {
        *list = slot->next;
    }
    return slot;
}

struct gci_slot *gci_slot_take(struct gci_slots *slots, const char *path)
{
    struct gci_slot *slot;

    pthread_mutex_lock(&lists_lock);
    slot = pop(&slots->free);
    if (slot == NULL) {
        if (unowned == NULL) {
            add_chunk();
        }
        slot = pop(&unowned);
    }
    pthread_mutex_unlock(&lists_lock);
    if (slot != NULL) {
        pthread_mutex_lock(&slot->lock);
        slot->path = path;
        pthread_mutex_unlock(&slot->lock);
    }
    return slot;
}

void gci_slot_retire(struct gci_slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    slot->generation++;
    slot->call = NULL;
    pthread_mutex_unlock(&slot->lock);
}

void gci_slot_give(struct gci_slots *slots, struct gci_slot *slot)
{
    pthread_mutex_lock(&lists_lock);
    slot->next = slots->free;
    slots->free = slot;
    pthread_mutex_unlock(&lists_lock);
}

void gci_slots_forget(struct gci_slots *slots)
{
    struct gci_slot *slot;

    while ((slot = pop(&slots->free)) != NULL) { /* nobody else is left who could reach the list */
        pthread_mutex_lock(&slot->lock);
        slot->path = NULL;
        pthread_mutex_unlock(&slot->lock);
        pthread_mutex_lock(&lists_lock);
        slot->next = unowned;
        unowned = slot;
        pthread_mutex_unlock(&lists_lock);
    }
}

grpc_c_call *gci_slot_handle(const struct gci_slot *slot)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): nobody follows it */
    return (grpc_c_call *)((uintptr_t)slot->generation << INDEX_BITS | slot->index);
}

bool gci_slot_refuse(struct gci_slot *slot, const grpc_c_call *handle, const char *what)
{
    uint64_t generation = (uintptr_t)handle >> INDEX_BITS;
    bool first = generation > slot->complained;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s",
                   slot->path != NULL ? slot->path : "a server that is gone");
    slot->complained = first ? generation : slot->complained;
    pthread_mutex_unlock(&slot->lock);
    if (first) { /* the program's function gets the line: under no lock */
        gci_log(GRPC_C_LOG_ERROR, "%s: refused, the call of %s is finished", what, path);
    }
    return false;
}

struct gci_slot *gci_slot_enter(const grpc_c_call *handle, const char *what)
{
    struct gci_slot *slot = slot_at((uintptr_t)handle & INDEX_MASK);

    if (handle == NULL || slot == NULL) {
        gci_log(GRPC_C_LOG_ERROR, "%s: refused, %p is not a call", what, (const void *)handle);
        return NULL;
    }
    pthread_mutex_lock(&slot->lock);
    if (slot->generation == (uintptr_t)handle >> INDEX_BITS && slot->call != NULL) {
        return slot;
    }
    (void)gci_slot_refuse(slot, handle, what);
    return NULL;
}

struct gci_slot *gci_slot_visit(uint32_t i, bool *end)
{
    struct gci_slot *slot = i <= INDEX_MASK ? slot_at(i) : NULL;

    *end = slot == NULL;
    if (slot == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&slot->lock);
    if (slot->call != NULL) {
        return slot;
    }
    pthread_mutex_unlock(&slot->lock);
    return NULL;
}
