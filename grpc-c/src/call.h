/*
 * A call on the server's side, shared by accept.c and call*.c.
 *
 *   state      entered by                                  in flight (one tag each)
 *   POSTED     gci_accept_post                             accept
 *   OPEN       accept event, on the poller                 read?, send?, close?, notice?
 *   FINISHING  reply/finish/fail behind queued writes,     send?, close?, read?
 *              or left to the end of the round (round.c)
 *   CLOSED     the batch with the status was started       send (the last), close, read?
 *   (gone)     CLOSED and nothing in flight: freed by the poller, or back to the spares
 *
 * POSTED --accept failed (shutdown)--> gone
 * POSTED --accept--> OPEN --finish--> CLOSED, or by way of FINISHING --last write taken--> CLOSED
 *
 * All events of a call come on the one thread of its queue; what they bring to the handler are
 * turns (pool.h), run one at a time there or on a worker. `in_flight` counts both, and who brings
 * it to 0 on a CLOSED call frees it: so a callback that runs may use the call to its end, even if
 * another thread finishes it meanwhile.
 * The lock, which is the slot's (handle.h), guards what other threads reach too, and every
 * grpc_call_start_batch, which is not thread-safe for one call. No callback runs under it.
 *
 * RECV_CLOSE, which tells of cancellation, is started only where the call is unfinished at the end
 * of the round in which it came; else it goes with the final batch and saves an event. Where there
 * are workers it is started first: a handler that blocks for long may ask whether it is still
 * wanted.
 */
#ifndef GRPC_C_SRC_CALL_H
#define GRPC_C_SRC_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <grpc/grpc.h>

#include "codec.h"
#include "core.h"
#include "handle.h"
#include "metadata.h"
#include "pool.h"
#include "server.h"
#include "status.h"

enum gci_call_state { GCI_CALL_POSTED, GCI_CALL_OPEN, GCI_CALL_FINISHING, GCI_CALL_CLOSED };

/* A message on its way out. */
struct gci_write {
    struct gci_write *next;
    grpc_byte_buffer *buffer;
    void (*on_written)(grpc_c_call *call, void *arg);
    void *arg;
    bool plain; /* not compressed */
};

struct gci_call {
    struct gci_slot *slot;     /* fixed; its lock is the call's, `lock` below */
    enum gci_call_state state; /* lock */
    struct gci_queue *queue;   /* fixed */
    struct gci_method *method; /* fixed */
    struct gci_call *next_spare;
    int64_t arrived_ms; /* when its handler was called */

    /* filled by core at the accept */
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_call_details details; /* of an unknown method */
    grpc_byte_buffer *received;
    int core_cancelled;

    unsigned in_flight; /* lock: events to come, and turns not over */
    bool reading;       /* lock: a read is in flight */
    bool ended;         /* lock: the client's stream is over */
    bool headers_sent;  /* lock */
    bool close_started; /* lock: RECV_CLOSE is in flight or done */
    bool close_seen;    /* lock: RECV_CLOSE is done */
    bool noticing;      /* lock: notice_tag is in flight, or its turn */
    bool owes_accept;   /* poller: no memory for the next accept; this object becomes it */
    bool cancelled;     /* lock */

    struct gci_tag accept_tag;
    struct gci_tag read_tag;
    struct gci_tag send_tag;
    struct gci_tag close_tag;
    struct gci_tag notice_tag; /* brings a late on_cancel to the poller */

    struct gci_turns turns;
    struct gci_turn arrival;
    struct gci_turn read;
    struct gci_turn written;
    struct gci_turn close;
    struct gci_turn notice;
    bool read_ok; /* what read_tag's event said, for the turn */

    enum grpc_c_compression compression; /* lock */
    bool skip_compression;               /* lock: of what is sent from now on */
    bool compressed;                     /* queue: the message came so */
    size_t inflated;                     /* queue: bytes of the server's budget it takes */
    ProtobufCMessage *message;           /* the request, or the stream's message of the moment */
    grpc_c_received *bytes;              /* its sliced field; NULL: none */
    struct gci_write *sending;           /* lock: in flight */
    struct gci_write *queued;            /* lock: behind it, oldest first */
    struct gci_write **queued_end;
    struct gci_write *taken; /* lock: by the transport; their on_written is due, oldest first */
    struct gci_write **taken_end;
    bool written_due;               /* lock: the turn for them is in line */
    grpc_byte_buffer *final_buffer; /* lock: the reply */
    enum grpc_c_code final_code;
    struct gci_trailer *trailer; /* lock; NULL: the status is but a code */

    struct gci_metadata headers;           /* lock: to be sent before the first message */
    struct gci_received received_metadata; /* lock: copied when it was first asked for */
    bool metadata_copied;                  /* lock */

    void (*on_cancel)(grpc_c_call *call, void *arg); /* lock */
    void *on_cancel_arg;
    char *peer;                       /* lock */
    struct grpc_c_identity *identity; /* lock */
    void *data;                       /* lock */
    void (*data_destroy)(void *data);
};

/* A new object; NULL where memory has run out. On any thread. */
struct gci_call *gci_call_make(struct gci_queue *queue, struct gci_method *method);

/* The same, or one of the queue's spares. On the queue's thread. */
struct gci_call *gci_call_new(struct gci_queue *queue, struct gci_method *method);

/* Frees the queue's shares with their spare objects; its thread has ended. */
void gci_call_free_spares(struct gci_queue *queue);

/* The end of an object: to the spares or freed; the server counts. */
void gci_call_gone(struct gci_call *call);

/* The accept has come: the handler's turn. On the queue's thread. */
void gci_call_arrived(struct gci_call *call);

/* Events of tags, on the queue's thread: call_read.c, call_send.c. */
void gci_call_on_read(struct gci_tag *tag, bool ok);
void gci_call_on_sent(struct gci_tag *tag, bool ok);

/* Starts the last batch, with the answer and the status. Under the lock. */
void gci_call_send_final(struct gci_call *call);

/* The turns that follow them. */
void gci_call_run_read(struct gci_call *call);
void gci_call_run_written(struct gci_call *call);

/* Makes what was received (taken) the call's message, in the place of the last one. */
bool gci_call_take(struct gci_call *call, grpc_byte_buffer *buffer, struct gci_error *error);

/* Frees the call's message; what it took of the budget for inflated bytes comes back. */
void gci_call_drop_message(struct gci_call *call);

/* From here on the peer's giving up is seen, where the call is still open. */
void gci_call_watch_close(struct gci_call *call);

/* The last thing each event or turn does: frees the call where it is over. */
void gci_call_event_done(struct gci_call *call);

/* grpc_call_start_batch, which never fails for what we do. Under the lock. */
void gci_call_batch(struct gci_call *call, const grpc_op *ops, size_t n, struct gci_tag *tag);

/* The operation RECV_CLOSE. Under the lock. */
grpc_op gci_call_close_op(struct gci_call *call);

/* Finishes a call that its handler has not got, or that it has not taken. */
void gci_call_fail(struct gci_call *call, enum grpc_c_code code, const char *format, ...)
    GRPC_C_PRINTF(3, 4);

/* -- the handler's side ----------------------------------------------------------------------- */

/* The call, locked, for what needs it unfinished; NULL, refused and logged, where it is not. */
struct gci_call *gci_call_enter(const grpc_c_call *handle, const char *what);

/*
 * The same for questions, which a callback may go on asking until it returns, though another thread
 * has finished the call meanwhile.
 */
struct gci_call *gci_call_look(const grpc_c_call *handle, const char *what);

void gci_call_leave(struct gci_call *call);

/* Core's name of the peer, or, where we accepted the connection, what it would be. For gpr_free. */
char *gci_call_peer(const struct gci_call *call);

/* Around each callback of the call: who runs it is known by its thread. */
void gci_call_callback_begin(const struct gci_call *call);
void gci_call_callback_end(void);

#endif
