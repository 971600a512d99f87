/*
 * The server's insides, shared by server.c, listen.c, accept.c and the files of the call.
 *
 *   state     entered by                         what runs
 *   SETUP     grpc_c_server_create               nothing; services and addresses are added
 *   STARTED   grpc_c_server_start                pollers, workers; accepts posted
 *   STOPPING  grpc_c_server_shutdown             open calls drain; posted accepts fail, are freed
 *   STOPPED   shutdown: core notified, live == 0 pollers, idle; only destroy may follow
 *
 * `live` counts call objects, posted or open; `open` counts the calls that arrived and are not
 * gone. Both are touched by pollers without the lock; live falling to 0 is signalled under it. Call
 * objects end on pollers and workers only, which destroy joins before it frees the server.
 */
#ifndef GRPC_C_SRC_SERVER_H
#define GRPC_C_SRC_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc/grpc.h>

#include "core.h"
#include "grpc-c/server.h"
#include "grpc-c/service.h"
#include "handle.h"
#include "pool.h"
#include "tls.h"

struct gci_call;
struct gci_listener;

struct gci_method {
    const struct grpc_c_method *table; /* NULL: calls of unknown methods */
    const void *handlers;
    void *registered;                       /* core's handle */
    const ProtobufCFieldDescriptor *sliced; /* left where it was received; NULL: none */
    struct gci_slots slots;
};

/* What a queue has of a method. */
struct gci_share {
    struct gci_call *spares; /* a list */
    atomic_uint out;         /* accepts that are */
};

#define GCI_ANSWERED_MAX 64u
#define GCI_EVENTS_MAX   64u /* in a round */

/*
 * One thread's share of the server: the first's, or a helper's (help.c). Spare call objects are
 * touched by that thread alone, and are not kept where workers may free them.
 */
struct gci_queue {
    struct gci_poller poller;
    grpc_c_server *server;
    struct gci_share *shares; /* for each method, and last for the unknown one */
    unsigned n_spare;
    struct gci_call *answered[GCI_ANSWERED_MAX]; /* in this round; see round.c */
    unsigned n_answered;
    size_t answered_bytes;
    struct gci_call *came[GCI_EVENTS_MAX]; /* and may be open at its end */
    unsigned n_came;
    atomic_uint held; /* call objects, posted or open */

    /* Of the first. */
    atomic_int_least64_t looked_ms; /* when it last looked how busy it is */
    int64_t looked_cpu_ns;
    unsigned rounds; /* since then, and the answers in them */
    unsigned answers;
    uint64_t answer_bytes;
    bool shared; /* they were of several connections */
    int last_fd; /* the socket of the last ones */

    /* Of a helper. */
    pthread_mutex_t sleep_lock; /* a leaf; taken to sleep and to wake */
    pthread_cond_t wake;
};

/* What the program does at the end of each round; NULL: nothing. */
struct gci_round_end {
    void (*run)(void *user);
    void *user;
};

enum gci_server_state { GCI_SETUP, GCI_STARTED, GCI_STOPPING, GCI_STOPPED };

struct grpc_c_server {
    grpc_server *core;
    grpc_resource_quota *quota;
    struct gci_server_tls *tls;    /* of all listeners */
    struct gci_listener *listener; /* of plaintext host:port; NULL: there is none */
    struct gci_round_end round_end;
    struct grpc_c_server_options options; /* defaults filled in */
    struct gci_queue *queues;             /* options.pollers of them */
    struct gci_method *methods;           /* fixed from STARTED on */
    size_t n_methods;
    struct gci_method unknown;
    struct gci_pool *pool; /* NULL: pollers run the handlers */

    pthread_mutex_t lock; /* guards state and notified; taken with no other lock held */
    pthread_cond_t changed;
    enum gci_server_state state;
    bool notified; /* core has finished shutting down */
    struct gci_tag shutdown_tag;

    atomic_size_t live;
    atomic_uint open;
    atomic_size_t inflated; /* bytes of messages that came compressed and still are there */
    atomic_bool accepting;  /* false from STOPPING on: no further accepts are posted */
    atomic_bool stopping;   /* from then on: no helper sleeps */
    atomic_bool busy;       /* the first queue's thread has more to do than it can */
};

/* Shapes whose one request core reads itself, before it hands the call over. */
static inline bool gci_one_request(enum grpc_c_shape shape)
{
    return shape == GRPC_C_UNARY || shape == GRPC_C_SERVER_STREAM;
}

/* A call object is gone. On a poller's or worker's thread; the last thing it does with the server.
 */
void gci_server_call_gone(grpc_c_server *server);

/* Posts one of each method and of the unknown one on the first queue. Returns 0 or -1. */
int gci_accept_post_all(grpc_c_server *server);

/*
 * Posts one accept of `method` with `call` as its object; on the queue's thread NULL for a new or
 * spare one. Returns false where memory ran out.
 */
bool gci_accept_post(struct gci_queue *queue, struct gci_method *method, struct gci_call *call);

/* -- help.c -- */

static inline bool gci_queue_helps(const struct gci_queue *queue)
{
    return queue != queue->server->queues;
}

void gci_help_init(struct gci_queue *queue);
void gci_help_fini(struct gci_queue *queue);

/* On the first queue's thread, now and then: sets server->busy. */
void gci_help_look(struct gci_queue *queue);

/* Whether the first is busy, and not because nothing comes to it any more. Any thread. */
bool gci_help_wanted(const struct gci_queue *first);

/* On a helper's thread: sleeps until it has something to wait for. */
void gci_help_sleep(struct gci_queue *queue);

/* After the helper has been given something, or the server's end has begun. Any thread. */
void gci_help_wake(struct gci_queue *queue);

/* -- round.c: on the queue's thread -- */

/* What the queue's poller runs. */
bool gci_round_take(struct gci_poller *poller);

/*
 * Leaves the call's answer to the end of the round. False where this thread has no round of the
 * call's queue, or no room in it. Under the call's lock.
 */
bool gci_round_postpone(struct gci_call *call);

/* Leaves it to the end of the round to watch for the call's cancellation; false as above. */
bool gci_round_watch_later(struct gci_call *call);

/* On the queue's thread. */
struct gci_share *gci_share_of(struct gci_queue *queue, const struct gci_method *method);

#endif
