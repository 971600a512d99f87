/*
 * Turns: what a call's events bring to its handler, one after the other.
 *
 * Each event of a call has a part that the poller does at once, and that never calls the handler;
 * the rest, its turn, is run by the poller too, or by a thread of the server's pool where it has
 * one. A call is with at most one worker at a time, and its turns stay in order.
 *
 *   idle --gci_turn--> in line --a worker takes its oldest turn--> running
 *   running --no further turn--> idle, or back to the end of the line
 *
 * A turn counts in the call's in_flight from its event until after it was run and the call was put
 * back in line or to rest: so the call outlives its worker's interest in it.
 */
#ifndef GRPC_C_SRC_POOL_H
#define GRPC_C_SRC_POOL_H

#include <stdbool.h>

struct gci_call;
struct gci_pool;

struct gci_turn {
    void (*run)(struct gci_call *call);
    struct gci_turn *next;
};

/* A call's share. Zeroed is empty; all under the pool's lock. */
struct gci_turns {
    struct gci_call *next; /* in line */
    struct gci_turn *first, *last;
    bool busy; /* in line or running */
};

/* `workers` threads; at most `line_max` calls that wait for their first turn. NULL: no memory. */
struct gci_pool *gci_pool_create(unsigned workers, unsigned line_max);

/* Starts the threads, which block all signals. Returns 0 or -1. */
int gci_pool_start(struct gci_pool *pool);

/* Ends the threads, when nothing is in line any more. Takes NULL. */
void gci_pool_destroy(struct gci_pool *pool);

/* Runs the turn now, or has the pool run it; gci_call_event_done follows it. */
void gci_turn(struct gci_call *call, struct gci_turn *turn);

/* The same for a call's first turn. False, with nothing done, where the line is full. */
bool gci_turn_first(struct gci_call *call, struct gci_turn *turn);

#endif
