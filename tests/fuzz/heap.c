/* Counts by standing in front of malloc, where the linker puts it (--wrap). */
#include "fuzz.h"

#include <malloc.h>
#include <stdatomic.h>

void *__real_malloc(size_t size);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *memory, size_t size);
void __wrap_free(void *memory);

/* One thread runs a target; what another allocates meanwhile is none of its business. */
static _Thread_local bool counting;
static _Thread_local size_t now;
static _Thread_local size_t most;

static void count(void *memory)
{
    now += malloc_usable_size(memory);
    most = now > most ? now : most;
}

/* What was allocated before the mark may be freed after it. */
static void discount(void *memory)
{
    size_t size = malloc_usable_size(memory);

    now -= size < now ? size : now;
}

void *__wrap_malloc(size_t size)
{
    void *memory = __real_malloc(size);

    if (counting) {
        count(memory);
    }
    return memory;
}

void *__wrap_realloc(void *memory, size_t size)
{
    void *moved;

    if (counting) {
        discount(memory);
    }
    moved = __real_realloc(memory, size);
    if (counting) {
        count(moved);
    }
    return moved;
}

void __wrap_free(void *memory)
{
    if (counting) {
        discount(memory);
    }
    __real_free(memory);
}

void heap_mark(void)
{
    counting = true;
    now = 0;
    most = 0;
}

size_t heap_most(void)
{
    counting = false;
    return most;
}
