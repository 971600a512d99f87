/*
 * A call on the server's side, shared by accept.c, call.c and call_send.c.
 *
 *   state      entered by                                  in flight (one tag each)
 *   POSTED     gci_accept_post                             accept
 *   OPEN       accept event, on the poller                 read?, send?, close?, notice?
 *   FINISHING  reply/finish/fail behind queued writes      send, close?, read?
 *   CLOSED     the batch with the status was started       send (the last), close, read?
 *   (gone)     CLOSED and nothing in flight: freed by the poller, or back to the spares
 *
 * POSTED --accept failed (shutdown)--> gone
 * POSTED --accept--> OPEN --finish--> CLOSED, or by way of FINISHING --last write taken--> CLOSED
 *
 * All events of a call come on the one thread of its queue, which alone frees it: so a callback
 * that runs may use the pointer to its end, even if another thread finishes the call meanwhile.
 * `lock` guards what other threads reach too, and every grpc_call_start_batch, which is not
 * thread-safe for one call. No callback runs under it. A finishing thread touches the call last
 * when it unlocks; the poller takes the lock before it frees.
 *
 * RECV_CLOSE, which tells of cancellation, is started only once the first callback has returned
 * with the call unfinished; else it goes with the final batch and saves an event.
 */
#ifndef GRPC_C_SRC_CALL_H
#define GRPC_C_SRC_CALL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <grpc/grpc.h>

#include "codec.h"
#include "core.h"
#include "metadata.h"
#include "server.h"
#include "status.h"

#define GCI_CALL_MAGIC 0x6763616cu /* "gcal" */

enum gci_call_state { GCI_CALL_POSTED, GCI_CALL_OPEN, GCI_CALL_FINISHING, GCI_CALL_CLOSED };

/* A message on its way out. */
struct gci_write {
    struct gci_write *next;
    grpc_byte_buffer *buffer;
    void (*on_written)(grpc_c_call *call, void *arg);
    void *arg;
    bool plain; /* not compressed */
};

struct grpc_c_call {
    uint32_t magic;
    enum gci_call_state state;       /* lock */
    struct gci_queue *queue;         /* fixed */
    const struct gci_method *method; /* fixed; NULL: the call of an unknown method */
    grpc_c_call *next_spare;

    /* filled by core at the accept */
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_call_details details; /* of an unknown method */
    grpc_byte_buffer *received;
    int core_cancelled;

    pthread_mutex_t lock;
    unsigned in_flight; /* lock: tags whose event has not come */
    bool reading;       /* lock: a read is in flight */
    bool ended;         /* lock: the client's stream is over */
    bool headers_sent;  /* lock */
    bool close_started; /* lock: RECV_CLOSE is in flight or done */
    bool close_seen;    /* lock: RECV_CLOSE is done */
    bool owes_accept;   /* poller: no memory for the next accept; this object becomes it */
    atomic_bool cancelled;

    struct gci_tag accept_tag;
    struct gci_tag read_tag;
    struct gci_tag send_tag;
    struct gci_tag close_tag;
    struct gci_tag notice_tag; /* brings a late on_cancel to the poller */

    enum grpc_c_compression compression; /* lock */
    bool skip_compression;               /* lock: of what is sent from now on */
    bool compressed;                     /* queue: the message came so */
    size_t inflated;                     /* queue: bytes of the server's budget it takes */
    ProtobufCMessage *message;           /* the request, or the stream's message of the moment */
    struct gci_write *sending;           /* lock: in flight */
    struct gci_write *queued;            /* lock: behind it, oldest first */
    struct gci_write **queued_end;
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
    _Atomic(void *) data;
    void (*data_destroy)(void *data);
};

/* A blank call object of the queue; NULL where memory has run out. On the queue's thread. */
grpc_c_call *gci_call_new(struct gci_queue *queue, const struct gci_method *method);

/* Frees the queue's spare objects; its thread has ended. */
void gci_call_free_spares(struct gci_queue *queue);

/* The end of an object: to the spares or freed; the server counts. On the queue's thread. */
void gci_call_gone(grpc_c_call *call);

/* The accept has come: runs the handler. On the queue's thread. */
void gci_call_arrived(grpc_c_call *call);

/* Events, on the queue's thread. */
void gci_call_on_sent(struct gci_tag *tag, bool ok); /* call_send.c */

/* Frees the call where it is over. The last thing each event does. */
void gci_call_event_done(grpc_c_call *call);

/* grpc_call_start_batch, which never fails for what we do. Under the lock. */
void gci_call_batch(grpc_c_call *call, const grpc_op *ops, size_t n, struct gci_tag *tag);

/* The operation RECV_CLOSE. Under the lock. */
grpc_op gci_call_close_op(grpc_c_call *call);

#endif
