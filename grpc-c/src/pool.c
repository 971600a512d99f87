/* Worker threads, for handlers that block. */
#include "pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "call.h"

struct gci_pool {
    pthread_mutex_t lock; /* all of it, and the turns of its calls; under no call's lock */
    pthread_cond_t filled;
    struct gci_call *first, *last; /* the line */
    unsigned n_new;                /* calls that wait for their first turn */
    unsigned line_max;
    bool ending;
    unsigned n_threads; /* running */
    unsigned n_wanted;
    pthread_t threads[];
};

struct gci_pool *gci_pool_create(unsigned workers, unsigned line_max)
{
    struct gci_pool *pool = calloc(1, sizeof(*pool) + workers * sizeof(pool->threads[0]));

    if (pool != NULL) {
        pthread_mutex_init(&pool->lock, NULL);
        pthread_cond_init(&pool->filled, NULL);
        pool->n_wanted = workers;
        pool->line_max = line_max;
    }
    return pool;
}

/* -- the line, under the lock ----------------------------------------------------------------- */

static void line_up(struct gci_pool *pool, struct gci_call *call)
{
    call->turns.next = NULL;
    if (pool->last != NULL) {
        pool->last->turns.next = call;
    } else {
        pool->first = call;
    }
    pool->last = call;
    pthread_cond_signal(&pool->filled);
}

static struct gci_call *step_up(struct gci_pool *pool)
{
    struct gci_call *call = pool->first;

    pool->first = call->turns.next;
    if (pool->first == NULL) {
        pool->last = NULL;
    }
    return call;
}

static void add_turn(struct gci_pool *pool, struct gci_call *call, struct gci_turn *turn)
{
    turn->next = NULL;
    if (call->turns.first != NULL) {
        call->turns.last->next = turn;
    } else {
        call->turns.first = turn;
    }
    call->turns.last = turn;
    if (!call->turns.busy) {
        call->turns.busy = true;
        line_up(pool, call);
    }
}

static struct gci_turn *take_turn(struct gci_pool *pool, struct gci_call *call)
{
    struct gci_turn *turn = call->turns.first;

    call->turns.first = turn->next;
    if (turn == &call->arrival) {
        pool->n_new--;
    }
    return turn;
}

/* -- the workers ------------------------------------------------------------------------------ */

/* Runs one turn. Called and left under the lock. */
static void serve(struct gci_pool *pool)
{
    struct gci_call *call = step_up(pool);
    struct gci_turn *turn = take_turn(pool, call);

    pthread_mutex_unlock(&pool->lock);
    turn->run(call);
    pthread_mutex_lock(&pool->lock);
    if (call->turns.first != NULL) {
        line_up(pool, call);
    } else {
        call->turns.busy = false;
    }
    pthread_mutex_unlock(&pool->lock);
    gci_call_event_done(call);
    pthread_mutex_lock(&pool->lock);
}

static void *worker_main(void *arg)
{
    struct gci_pool *pool = arg;

    pthread_mutex_lock(&pool->lock);
    while (pool->first != NULL || !pool->ending) {
        if (pool->first != NULL) {
            serve(pool);
        } else {
            pthread_cond_wait(&pool->filled, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int gci_pool_start(struct gci_pool *pool)
{
    while (pool->n_threads < pool->n_wanted) {
        char name[16]; /* what Linux keeps of a thread's name */
        (void)snprintf(name, sizeof(name), "grpc-c/w%u", pool->n_threads % 1000);
        if (gci_thread_start(&pool->threads[pool->n_threads], worker_main, pool, name) != 0) {
            return -1;
        }
        pool->n_threads++;
    }
    return 0;
}

void gci_pool_destroy(struct gci_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->filled);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->filled);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* -- turns ------------------------------------------------------------------------------------ */

void gci_turn(struct gci_call *call, struct gci_turn *turn)
{
    struct gci_pool *pool = call->queue->server->pool;

    if (pool == NULL) {
        turn->run(call);
        gci_call_event_done(call);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    add_turn(pool, call, turn);
    pthread_mutex_unlock(&pool->lock);
}

bool gci_turn_first(struct gci_call *call, struct gci_turn *turn)
{
    struct gci_pool *pool = call->queue->server->pool;
    bool room;

    if (pool == NULL) {
        gci_turn(call, turn);
        return true;
    }
    pthread_mutex_lock(&pool->lock);
    room = pool->n_new < pool->line_max;
    if (room) {
        pool->n_new++;
        add_turn(pool, call, turn);
    }
    pthread_mutex_unlock(&pool->lock);
    return room;
}
