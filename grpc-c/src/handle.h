/*
 * What a handler holds of a call: not its address but a number, of a slot and of the slot's turn.
 *
 *   63              24 23     0
 *   |   generation    | index |     as a grpc_c_call *, which nobody dereferences
 *
 * Slots are never freed: so a handle can be asked about at any time, from any thread, after the
 * call has gone and after its server has. One that is not of the slot's present call is known by
 * its generation, and refused. A slot lasts for a thousand billion calls. Memory: one slot for each
 * call that was there at the same time as others, posted ones included.
 *
 *   free --gci_slot_take--> a call object's --gci_slot_retire, at each call's end--> bound,
 *        of the next generation --gci_slot_give--> free, of the same method
 *        --gci_slots_forget, with the server--> free for any
 *
 * A slot stays with one method while its server lives, so that a refusal can name it.
 */
#ifndef GRPC_C_SRC_HANDLE_H
#define GRPC_C_SRC_HANDLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "grpc-c/server.h"

struct gci_call;

struct gci_slot {
    pthread_mutex_t lock;  /* the call's lock; generation and call, too */
    uint64_t generation;   /* of the call that is there, or of the next one */
    uint64_t complained;   /* the last generation of which a late use was logged */
    struct gci_call *call; /* that arrived and is not gone; NULL: none */
    const char *path;      /* lock; NULL: its server is gone */
    uint32_t index;        /* fixed */
    struct gci_slot *next; /* of a free list */
};

/* A method's free slots; zeroed is empty. */
struct gci_slots {
    struct gci_slot *free;
};

/* NULL where memory has run out, or 16 million are taken. `path` is borrowed until _forget. */
struct gci_slot *gci_slot_take(struct gci_slots *slots, const char *path);

/* The call is over: what was given out as its handle is refused from now on. */
void gci_slot_retire(struct gci_slot *slot);

/* Back to its method's. */
void gci_slot_give(struct gci_slots *slots, struct gci_slot *slot);

/* The method is no more. All of its slots have been given back. */
void gci_slots_forget(struct gci_slots *slots);

/* What the handler gets. By the thread that the call belongs to. */
grpc_c_call *gci_slot_handle(const struct gci_slot *slot);

/*
 * The slot of the handle, locked, where its call is still there; else NULL, and the first such use
 * of a call is logged, with `what` for the function.
 */
struct gci_slot *gci_slot_enter(const grpc_c_call *handle, const char *what);

/* Unlocks, and logs that the handle's call is finished, unless that was done. Returns false. */
bool gci_slot_refuse(struct gci_slot *slot, const grpc_c_call *handle, const char *what);

/* Slot number `i` of all, locked, where it holds a call; NULL else. *end: there are no more. */
struct gci_slot *gci_slot_visit(uint32_t i, bool *end);

#endif
