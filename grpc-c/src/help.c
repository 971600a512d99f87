/*
 * Helpers: who polls, and when.
 *
 * Core wakes a waiting poller for each event that another one takes: with one call in flight two
 * pollers cost twice what one does. Under load they cost hardly more than one, and serve half as
 * much again. So the first queue's thread is alone as long as it can do what there is to do.
 *
 *   state    of a helper         entered when                   left when
 *   asleep   it holds nothing    its last call object is gone   the first asks for help
 *   helping  accepts are out     the first is busy              the first is not
 *   leaving  some are still out  the first is not busy          calls have used them up
 *
 * While it helps and leaves it is a poller like the first, also of the streams that began on its
 * queue. Core looks for an accept on the queue that it chose for the connection, at random, and
 * then on the others: so each queue has its part of the connections, and a call finds what is out
 * on any of them.
 */
#include <time.h>

#include "server.h"

#define LOOK_MS    8  /* how often the first looks how busy it is */
#define STALE_MS   50 /* after which that says nothing: all that comes goes to helpers */
#define BUSY       85 /* percent of its time, at least: it asks for help */
#define BUSY_STILL 40 /* it goes on doing so */
#define FULL       95 /* the same two where answers come one by one, and are large */
#define FULL_STILL 60
#define LARGE      16384u /* bytes of an answer, on average */

void gci_help_init(struct gci_queue *queue)
{
    pthread_mutex_init(&queue->sleep_lock, NULL);
    pthread_cond_init(&queue->wake, NULL);
}

void gci_help_fini(struct gci_queue *queue)
{
    pthread_cond_destroy(&queue->wake);
    pthread_mutex_destroy(&queue->sleep_lock);
}

/* One call in flight keeps a thread busy for more than half of its time, and a few of one
 * connection for all of it, but another thread would only be in the way: there is something to
 * share between several connections, where rounds have several answers, or few are enough for all
 * of its time since they are large. */
static bool is_busy(const struct gci_queue *queue, int64_t percent)
{
    bool several = 2 * queue->answers >= 3 * queue->rounds;
    bool large = queue->answer_bytes >= LARGE * (uint64_t)queue->answers;
    bool helped = atomic_load(&queue->server->busy);

    return queue->shared && ((several && percent >= (helped ? BUSY_STILL : BUSY)) ||
                             (large && percent >= (helped ? FULL_STILL : FULL)));
}

void gci_help_look(struct gci_queue *queue)
{
    int64_t ms = gci_coarse_ms();
    int64_t passed = ms - atomic_load_explicit(&queue->looked_ms, memory_order_relaxed);
    int64_t cpu_ns;

    queue->rounds++;
    if (passed < LOOK_MS) {
        return;
    }
    cpu_ns = gci_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    atomic_store(&queue->server->busy,
                 is_busy(queue, (cpu_ns - queue->looked_cpu_ns) / 10000 / passed));
    atomic_store_explicit(&queue->looked_ms, ms, memory_order_relaxed);
    queue->looked_cpu_ns = cpu_ns;
    queue->rounds = 0;
    queue->answers = 0;
    queue->answer_bytes = 0;
    queue->shared = false;
}

bool gci_help_wanted(const struct gci_queue *first)
{
    int64_t looked_ms = atomic_load_explicit(&first->looked_ms, memory_order_relaxed);

    return atomic_load(&first->server->busy) && gci_coarse_ms() - looked_ms < STALE_MS;
}

void gci_help_sleep(struct gci_queue *queue)
{
    if (atomic_load(&queue->held) > 0) {
        return;
    }
    pthread_mutex_lock(&queue->sleep_lock);
    while (atomic_load(&queue->held) == 0 && !atomic_load(&queue->server->stopping)) {
        pthread_cond_wait(&queue->wake, &queue->sleep_lock);
    }
    pthread_mutex_unlock(&queue->sleep_lock);
}

void gci_help_wake(struct gci_queue *queue)
{
    pthread_mutex_lock(&queue->sleep_lock);
    pthread_cond_signal(&queue->wake);
    pthread_mutex_unlock(&queue->sleep_lock);
}
