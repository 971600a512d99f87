/*
 * What AppendStream and ReadStream share: a stream that may be open for long, its events one after
 * the other, its answers bounded, its end.
 *
 * Events come from everywhere: a message and a written answer from a poller, an append or read that
 * is done from any thread of the store, a stop or a deleted store from outside. Each is noted in a
 * field of its own; then psd_stream_run has the stream's `step` called, by this thread or by the
 * one that is at it already, never by two at once. So what only steps touch needs no lock.
 *
 *   state     what it does                               left by
 *   open      reads messages, answers                    the client's half-close, psd_stream_deny
 *   ending    reads no more, answers what is under way   the last answer
 *   finished  nothing                                    -
 *
 * A stop of the server, the deletion of its store and a cancellation deny a stream; a client that
 * has half-closed gets its answers when the server stops, too.
 *
 * Back-pressure: an answer is charged for from when its request is taken until the transport has
 * taken it. With too much charged no message is read and no payload looked up.
 */
#ifndef PAYLOADSTORED_STREAM_H
#define PAYLOADSTORED_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc-c/grpc-c.h>
#include <payloadstore/payloadstore.h>

#include "service.h"

#define PSD_STREAM_ANSWERS 64u /* under way at once */

struct psd_stream {
    grpc_c_call *call; /* until it is finished */
    struct psd_service *service;
    void (*step)(struct psd_stream *stream);
    void (*destroy)(struct psd_stream *stream);
    struct psd_link link;   /* in the service's ring */
    atomic_uint references; /* the call, what runs in the store, whoever walks the ring */
    atomic_uint events;     /* that no step has seen; who finds none takes the steps */

    /* Noted by events, taken by steps. */
    ProtobufCMessage *message; /* owned; NULL: the end */
    grpc_c_received *bytes;    /* owned; the message's payloads, where the method leaves them so */
    atomic_bool message_came;
    atomic_uint answers_written;
    atomic_bool store_in_doubt;

    /* The steps' own. */
    char name[PLS_NAME_MAX + 1];
    bool named; /* by the first message */
    bool reading;
    bool half_closed;
    bool ending;
    bool finished;
    pls_store *store;   /* held; NULL: none yet */
    enum pls_code code; /* what the stream ends with */
    char *text;         /* its story; NULL: the code's own */
    uint64_t charged;
    uint64_t charges[PSD_STREAM_ANSWERS]; /* a ring, oldest first */
    unsigned first_charge, n_charges;
};

/* Makes the stream, zeroed but for `step` and `destroy`, the call's own, and takes the first step.
 * `destroy` frees it, once nothing refers to it. */
void psd_stream_begin(struct psd_stream *stream, grpc_c_call *call, struct psd_service *service);

struct psd_stream *psd_stream_hold(struct psd_stream *stream);
void psd_stream_release(struct psd_stream *stream);

/* Has the step taken that an event asks for. With a reference held. */
void psd_stream_run(struct psd_stream *stream);

/* The method's message handler. */
void psd_stream_on_message(grpc_c_call *call);
/* Every answer's on_written, with the stream as its argument. */
void psd_stream_on_written(grpc_c_call *call, void *arg);

/* -- for steps --------------------------------------------------------------------------------- */

/* Begins a step with what has happened. False where the stream is finished: there is nothing to do.
 */
bool psd_stream_take_events(struct psd_stream *stream);

/* The message that has come, the caller's from now on, with *bytes, unless that is NULL; NULL where
 * there is none. */
ProtobufCMessage *psd_stream_take_message(struct psd_stream *stream, grpc_c_received **bytes);

bool psd_stream_has_message(const struct psd_stream *stream);

/* Reads the next message, unless that is going on or the stream is ending. */
void psd_stream_read(struct psd_stream *stream);

/* Takes the store's name from a message. False, the stream denied, where it is none, or not the
 * first message's. */
bool psd_stream_take_name(struct psd_stream *stream, const char *name);

/* Ends the stream with a failure, after the answers under way. The first one counts, unless a
 * cancellation follows. */
void psd_stream_deny(struct psd_stream *stream, enum pls_code code, const char *text);

/* Whether an answer of so many bytes may be begun where `limit` may be charged; the only one may
 * always. */
bool psd_stream_has_room(const struct psd_stream *stream, uint64_t bytes, uint64_t limit);
/* Charges for an answer; given back as they are written, in this order. */
void psd_stream_charge(struct psd_stream *stream, uint64_t bytes);

/* Finishes the call: the step's last deed. Nothing of it runs in the store any more. */
void psd_stream_finish(struct psd_stream *stream);

/* -- all of them ------------------------------------------------------------------------------- */

/* Wakes every stream: the service is stopping. */
void psd_streams_stop(struct psd_streams *streams);
/* Has every stream look whether its store is there: one was deleted. */
void psd_streams_store_deleted(struct psd_streams *streams);

#endif
