/*
 * The requests of one caller that are in flight: as many as it has slots, each in one.
 *
 * take waits until one is free; give, from any thread, frees it. What is in a slot beside its
 * request is the caller's.
 */
#ifndef BENCH_STORE_WINDOW_H
#define BENCH_STORE_WINDOW_H

#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "bench.h"

struct window;

struct slot {
    struct window *window;
    atomic_bool busy;
    uint32_t i;  /* which operation */
    void *owner; /* whose */
    struct iovec payload;
    union {
        struct pls_append append;
        struct pls_read read;
    };
};

struct window {
    struct slot *slots;
    uint32_t n, next;
    sem_t free;
};

void window_init(struct window *window, uint32_t n);
struct slot *window_take(struct window *window);
void window_give(struct slot *slot);
/* Waits until all are free. */
void window_fini(struct window *window);

/* -- for one request at a time, which costs a slot's time to take and to give -- */

static inline void flag_set(atomic_bool *flag)
{
    atomic_store_explicit(flag, true, memory_order_release);
}

static inline void flag_wait(atomic_bool *flag)
{
    while (!atomic_load_explicit(flag, memory_order_acquire)) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

#endif
