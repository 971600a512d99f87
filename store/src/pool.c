#include "pool.h"

#include <stdlib.h>

/* The next job; NULL once the pool is stopping and has none left. */
static struct pls_job *take(struct plsi_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->first == NULL && !pool->stopping) {
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    struct pls_job *job = pool->first;
    if (job != NULL) {
        pool->first = job->next;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *work(void *arg)
{
    struct plsi_pool *pool = arg;
    struct pls_job *job;
    while ((job = take(pool)) != NULL) {
        job->run(job);
    }
    return NULL;
}

int plsi_pool_init(struct plsi_pool *pool, unsigned n_threads)
{
    *pool = (struct plsi_pool){.threads = calloc(n_threads, sizeof *pool->threads)};
    if (pool->threads == NULL) {
        return -1;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    for (; pool->n_threads < n_threads; pool->n_threads++) {
        if (pthread_create(&pool->threads[pool->n_threads], NULL, work, pool) != 0) {
            plsi_pool_fini(pool);
            return -1;
        }
    }
    return 0;
}

void plsi_pool_fini(struct plsi_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    free(pool->threads);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
}

void plsi_pool_run(struct plsi_pool *pool, struct pls_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->first == NULL) {
        pool->first = job;
    } else {
        pool->last->next = job;
    }
    pool->last = job;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}
