/* The I/O threads of a data directory: jobs first in, first out. */
#ifndef PLSI_POOL_H
#define PLSI_POOL_H

#include <pthread.h>
#include <stdbool.h>

#include "payloadstore/payloadstore.h"

struct plsi_pool {
    pthread_mutex_t lock; /* a leaf; guards everything below */
    pthread_cond_t work;
    struct pls_job *first, *last;
    bool stopping;
    pthread_t *threads;
    unsigned n_threads;
};

/* 0, or -1 where threads or memory ran out. */
int plsi_pool_init(struct plsi_pool *pool, unsigned n_threads);

/* Runs what is queued, and ends the threads. */
void plsi_pool_fini(struct plsi_pool *pool);

/* From any thread, jobs included. */
void plsi_pool_run(struct plsi_pool *pool, struct pls_job *job);

#endif
