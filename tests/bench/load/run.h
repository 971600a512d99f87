/* Work done over connections at a pace, and what it took. */
#ifndef LOAD_RUN_H
#define LOAD_RUN_H

#include <signal.h>
#include <sys/types.h>

#include "h2.h"
#include "work.h"

struct pace {
    uint32_t in_flight; /* ops at most, over all connections; less where the server takes less */
    uint64_t ops;       /* how many, or UINT64_MAX, ... */
    double seconds;     /* ... or for so long */
    double rate;        /* 0: an op begins when one has ended. Else so many begin a second, whatever
                         * has ended; what waits for a place among those in flight has begun */
    const volatile sig_atomic_t *stop; /* begins nothing any more once this is set; or NULL */
};

struct result {
    uint64_t ops, payloads; /* answered rightly */
    uint64_t wrong;         /* ops answered wrongly or not at all */
    double seconds;
    double server_cpu, own_cpu; /* seconds of processor, user and system */
    uint64_t *latencies;        /* nanoseconds, sorted: of every right op; the caller frees them */
    uint32_t in_flight;         /* what it was */
};

struct connections {
    struct h2_connection *all;
    struct h2_events events;
    struct run *run;
    uint32_t n;
    int epoll;
};

void connections_open(struct connections *connections, const char *address, uint32_t n,
                      uint32_t in_flight, uint32_t max_frame);
void connections_close(struct connections *connections);

/* `streams`: on how many streams the batches of streamed work travel. `server`: the process whose
 * processor time is taken, or 0. What is wrong is told on stderr, the first few times. */
void run(struct connections *connections, const struct work *work, const struct pace *pace,
         uint32_t streams, pid_t server, struct result *result);

/* The latency that the share of the ops did not exceed, in microseconds. */
double result_percentile(const struct result *result, double share);

#endif
