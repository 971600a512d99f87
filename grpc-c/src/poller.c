/* Completion queues and the threads that drain them. */
#include <signal.h>
#include <string.h>
#include <time.h>

#include <grpc/support/time.h>

#include "core.h"

void gci_library_hold(void)
{
    gci_log_take_over();
    grpc_init();
}

void gci_library_release(void)
{
    grpc_shutdown();
}

gpr_timespec gci_deadline_in(int64_t ms)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

int64_t gci_clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t gci_coarse_ms(void)
{
    return gci_clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
}

void gci_poller_init(struct gci_poller *poller, bool (*step)(struct gci_poller *poller))
{
    memset(poller, 0, sizeof(*poller));
    poller->queue = grpc_completion_queue_create_for_next(NULL);
    poller->step = step;
}

enum gci_taken gci_poller_take(struct gci_poller *poller, gpr_timespec deadline)
{
    grpc_event event = grpc_completion_queue_next(poller->queue, deadline, NULL);

    if (event.type == GRPC_OP_COMPLETE) {
        struct gci_tag *tag = event.tag;
        (void)atomic_load_explicit(&tag->armed, memory_order_acquire);
        GCI_CHECK(tag->magic == GCI_TAG_MAGIC);
        tag->done(tag, event.success != 0);
        return GCI_TAKEN;
    }
    return event.type == GRPC_QUEUE_SHUTDOWN ? GCI_QUEUE_SHUT : GCI_NONE_THERE;
}

bool gci_poller_step(struct gci_poller *poller)
{
    return gci_poller_take(poller, gpr_inf_future(GPR_CLOCK_MONOTONIC)) != GCI_QUEUE_SHUT;
}

static void *poller_main(void *arg)
{
    struct gci_poller *poller = arg;

    while (poller->step(poller)) {
    }
    return NULL;
}

int gci_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg, const char *name)
{
    sigset_t all;
    sigset_t before;
    int rc;

    /* Signals are the program's: none shall interrupt a handler on a thread it does not know. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        gci_log(GRPC_C_LOG_ERROR, "cannot start the thread %s: %s", name, strerror(rc));
        return -1;
    }
    (void)pthread_setname_np(*thread, name);
    return 0;
}

int gci_poller_start(struct gci_poller *poller, const char *name)
{
    poller->running = gci_thread_start(&poller->thread, poller_main, poller, name) == 0;
    return poller->running ? 0 : -1;
}

void gci_poller_fini(struct gci_poller *poller)
{
    if (poller->queue == NULL) {
        return;
    }
    grpc_completion_queue_shutdown(poller->queue);
    if (poller->running) {
        pthread_join(poller->thread, NULL);
    } else {
        while (poller->step(poller)) {
        }
    }
    grpc_completion_queue_destroy(poller->queue);
    memset(poller, 0, sizeof(*poller));
}
