#include "window.h"

#include <stdlib.h>

void window_init(struct window *window, uint32_t n)
{
    *window = (struct window){.n = n, .slots = allocate(n, sizeof *window->slots)};
    sem_init(&window->free, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        window->slots[i].window = window;
    }
}

struct slot *window_take(struct window *window)
{
    while (sem_wait(&window->free) != 0) {
    }
    /* Most often they come back in order, and the first one looked at is free. */
    while (atomic_load_explicit(&window->slots[window->next].busy, memory_order_acquire)) {
        window->next = (window->next + 1) % window->n;
    }
    struct slot *slot = &window->slots[window->next];
    window->next = (window->next + 1) % window->n;
    atomic_store_explicit(&slot->busy, true, memory_order_relaxed);
    return slot;
}

void window_give(struct slot *slot)
{
    struct window *window = slot->window;
    atomic_store_explicit(&slot->busy, false, memory_order_release);
    sem_post(&window->free);
}

void window_fini(struct window *window)
{
    for (uint32_t i = 0; i < window->n; i++) {
        while (sem_wait(&window->free) != 0) {
        }
    }
    sem_destroy(&window->free);
    free(window->slots);
}
