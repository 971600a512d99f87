/*
 * What the files of the runtime share: tags, pollers, logging.
 *
 * A tag is what travels through gRPC core's `void *`: a function to call when the operation is
 * over. It lies inside the object it belongs to and lives as long as its operation is in flight.
 *
 *   idle --gci_tag_arm, operation started--> in flight --poller takes the event--> idle
 *
 * Core hands memory from the starting thread to the polling one by means that ThreadSanitizer does
 * not see; the release store of arming and the acquire load of the poller repeat that in its view,
 * and cost nothing on the machines this runs on.
 */
#ifndef GRPC_C_SRC_CORE_H
#define GRPC_C_SRC_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <grpc/grpc.h>

#include "grpc-c/server.h"
#include "grpc-c/status.h"

#define gci_container_of(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* A programmer's mistake or the impossible: says so and aborts, in release builds too. */
#define GCI_CHECK(condition)                                  \
    do {                                                      \
        if (__builtin_expect(!(condition), 0)) {              \
            gci_check_failed(__FILE__, __LINE__, #condition); \
        }                                                     \
    } while (0)

_Noreturn void gci_check_failed(const char *file, int line, const char *condition);

/* -- the library ------------------------------------------------------------------------------ */

/* grpc_init with the log taken over. Each object that uses core holds one. */
void gci_library_hold(void);
void gci_library_release(void);

/* -- tags and pollers ------------------------------------------------------------------------- */

#define GCI_TAG_MAGIC 0x67746167u /* "gtag" */

struct gci_tag {
    void (*done)(struct gci_tag *tag, bool ok); /* on the poller's thread */
    uint32_t magic;
    atomic_uint armed;
};

static inline void gci_tag_init(struct gci_tag *tag, void (*done)(struct gci_tag *tag, bool ok))
{
    tag->done = done;
    tag->magic = GCI_TAG_MAGIC;
}

/* The last thing done to the object before its operation is started. */
static inline void *gci_tag_arm(struct gci_tag *tag)
{
    atomic_store_explicit(&tag->armed, 1, memory_order_release);
    return tag;
}

/*
 * A completion queue and the one thread that takes its events. One thread a queue: so the events
 * of one call, which is bound to one queue, never overlap and need no further ordering.
 */
struct gci_poller {
    grpc_completion_queue *queue;
    bool (*step)(struct gci_poller *poller); /* what the thread runs until it returns false */
    pthread_t thread;
    bool running;
};

/* A thread that blocks all signals. Returns 0, or -1 with the cause logged. */
int gci_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg, const char *name);

/* Makes the queue. `step` may be gci_poller_step. */
void gci_poller_init(struct gci_poller *poller, bool (*step)(struct gci_poller *poller));

/* Starts the thread, which blocks all signals. Returns 0 or -1. */
int gci_poller_start(struct gci_poller *poller, const char *name);

/* Waits for one event and takes it. False once the queue is shut. */
bool gci_poller_step(struct gci_poller *poller);

enum gci_taken { GCI_TAKEN, GCI_NONE_THERE, GCI_QUEUE_SHUT };

/* Takes one event that is there by the deadline. */
enum gci_taken gci_poller_take(struct gci_poller *poller, gpr_timespec deadline);

/* Shuts the queue, waits for its thread, frees it. No operation may be in flight. */
void gci_poller_fini(struct gci_poller *poller);

/* -- logging ---------------------------------------------------------------------------------- */

void gci_log(enum grpc_c_log_level level, const char *format, ...) GRPC_C_PRINTF(2, 3);

/* Becomes core's log function. */
void gci_log_take_over(void);

/*
 * Until the call with NULL, error lines logged by this thread go into `text` (the last one wins)
 * instead of the log: where core tells a cause in no other way.
 */
void gci_log_capture(char *text, size_t size);

/* -- time ------------------------------------------------------------------------------------- */

int64_t gci_clock_ns(clockid_t clock);

/* Milliseconds on a clock that only rises, to about 4: for what costs nothing to ask. */
int64_t gci_coarse_ms(void);

/* Milliseconds from now as a deadline in the one form core takes everywhere. */
gpr_timespec gci_deadline_in(int64_t ms);

#endif
