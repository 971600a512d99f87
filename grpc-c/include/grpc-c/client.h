/*
 * The client: channels, and calls of all shapes, blocking or not.
 *
 * Threads. A channel may be used from any number of threads at once. A blocking stream may be
 * written by one thread and read by another at the same time; grpc_c_stream_cancel may be called
 * from any, as may all functions of a stream that is not waited for.
 * A channel has one thread of its own, on which the callbacks of its `__async` calls run, one at a
 * time: they must not block, make blocking calls on that channel, or destroy it.
 */
#ifndef GRPC_C_CLIENT_H
#define GRPC_C_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc-c/bytes.h"
#include "grpc-c/compression.h"
#include "grpc-c/metadata.h"
#include "grpc-c/status.h"
#include "grpc-c/tls.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct grpc_c_channel grpc_c_channel;
typedef struct grpc_c_stream grpc_c_stream;
typedef struct grpc_c_async_stream grpc_c_async_stream;
typedef struct grpc_c_pending grpc_c_pending;

/* Zero means the default everywhere, so that `= {0}` is a good set of options. */
struct grpc_c_channel_options {
    size_t max_receive_bytes; /* largest message taken, inflated; 0: 4 MiB, at most 2 GiB */
    size_t max_send_bytes;    /* largest message sent, before compression; 0: no limit. A larger one
                                 ends its call with RESOURCE_EXHAUSTED */
    const struct grpc_c_channel_tls *tls; /* NULL: plaintext */
    const char *authority;     /* sent as :authority; with TLS the certificate must be for it, too;
                                  NULL: the target's host and port, or tls->server_name */
    const char *user_agent;    /* put in front of gRPC's own user-agent; NULL: nothing */
    unsigned first_connect_ms; /* pause after the first failed attempt to connect, then growing by
                                  1.6 with a fifth at random; 0: 100 */
    unsigned slowest_connect_ms; /* and no longer than this; 0: 5,000 */
    unsigned connect_timeout_ms; /* of one attempt: TCP, TLS and HTTP/2; 0: 10,000 */
    unsigned idle_timeout_ms;    /* disconnect after so long without a call; 0: 30 minutes, at least
                                    1,000 */
    /*
     * A server from which nothing has come for keepalive_ms, while a call runs, is pinged; where it
     * does not answer for keepalive_timeout_ms the connection is given up, and its calls end with
     * UNAVAILABLE. Servers may take offence at pings more often than they allow, many at more than
     * one in five minutes, and close the connection; grpc-c's take one in five seconds.
     */
    int keepalive_ms;              /* 0: 20,000; negative: never */
    unsigned keepalive_timeout_ms; /* 0: 10,000 */
    bool keepalive_without_calls;  /* and while no call runs */
};

struct grpc_c_call_options {
    int64_t timeout_ms;  /* from the start of the call; 0: no deadline */
    bool wait_for_ready; /* wait for the server to come up, to the deadline; else a call fails with
                            UNAVAILABLE where the last attempt to connect has failed */
    bool tell_peer;      /* the result says who answered */
    /* Sent with the call; borrowed until the function returns. An entry that cannot be sent ends
       the call with INVALID_ARGUMENT, a message that names it, and nothing sent. */
    const struct grpc_c_metadata *metadata;
    size_t n_metadata;
    enum grpc_c_compression compression; /* of the messages sent */
    /* `bytes` fields of the request that are sent from the memory they lie in (bytes.h), by calls
       that take one when they begin: `__sync` and `__async`, not `__open`. Each is released once,
       also where the call cannot begin. */
    const struct grpc_c_lent *lent;
    size_t n_lent;
};

/* How a call ended. Zeroed or filled by a call; freed by grpc_c_result_fini. */
struct grpc_c_result {
    enum grpc_c_code code;
    char *message;                   /* never NULL after a call that ended; owned by the result */
    void *details;                   /* grpc-status-details-bin, NULL: none; owned by the result */
    size_t details_length;           /* bytes */
    struct grpc_c_metadata *headers; /* what the server sent before its messages; NULL: nothing */
    size_t n_headers;
    struct grpc_c_metadata *trailers; /* and after them; both owned by the result */
    size_t n_trailers;
    bool compressed; /* the one answer of a call that is not read from a stream came so */
    char *peer;      /* "ipv4:127.0.0.1:50051", with tell_peer; the target where nobody answered */
    struct grpc_c_identity *identity; /* whom the server's certificate names, with tell_peer; NULL:
                                         it proved nothing; both owned by the result */
};

/* Frees what a result owns and zeroes it. Takes a zeroed one and NULL. */
GRPC_C_API void grpc_c_result_fini(struct grpc_c_result *result);

/*
 * A channel to `target` ("127.0.0.1:50051", "unix:path", "dns:///host:port"). Connects at the first
 * call. Returns NULL where memory has run out, or grpc_c_channel_tls_check fails, which is logged.
 * `options` may be NULL.
 */
GRPC_C_API grpc_c_channel *grpc_c_channel_create(const char *target,
                                                 const struct grpc_c_channel_options *options);

/*
 * No blocking call and no blocking stream may be under way on the channel; `__async` calls are
 * cancelled, new ones refused, and the last callback has returned when it returns. Takes NULL.
 */
GRPC_C_API void grpc_c_channel_destroy(grpc_c_channel *channel);

enum grpc_c_channel_state {
    GRPC_C_CHANNEL_IDLE, /* not connected: nothing has been asked for, or not for long */
    GRPC_C_CHANNEL_CONNECTING,
    GRPC_C_CHANNEL_READY,
    GRPC_C_CHANNEL_FAILED /* could not connect, or lost its connection; tries again by itself */
};

/* The state of the moment. */
GRPC_C_API enum grpc_c_channel_state grpc_c_channel_state(grpc_c_channel *channel);

/*
 * Connects and waits until the channel is ready, however often that fails. Returns 0, or -1 where
 * `timeout_ms` have passed; 0: no limit. Calls need not wait for it. A blocking call.
 */
GRPC_C_API int grpc_c_channel_wait_ready(grpc_c_channel *channel, int64_t timeout_ms);

/* -- unary calls that are not waited for ------------------------------------------------------ */

/*
 * Ends an `__async` call with CANCELLED; its `done` is called still. Nothing happens where it is
 * over. From any thread, also in `done`.
 */
GRPC_C_API void grpc_c_pending_cancel(grpc_c_pending *pending);

/* Gives up the handle, not the call. Also after the channel is gone. Takes NULL. */
GRPC_C_API void grpc_c_pending_release(grpc_c_pending *pending);

/* -- blocking streams ------------------------------------------------------------------------- */

/* No further message will be written. 0, or -1 where the call has failed or that was said. */
GRPC_C_API int grpc_c_stream_writes_done(grpc_c_stream *stream);

/*
 * Waits for what the server sends before its first message, its count in *n; NULL where that is 0,
 * also where the call ended without. Valid until grpc_c_stream_finish. By the reading thread.
 */
GRPC_C_API const struct grpc_c_metadata *grpc_c_stream_headers(grpc_c_stream *stream, size_t *n);

/* Messages written after it go as they are, though the call compresses; or no longer. */
GRPC_C_API void grpc_c_stream_skip_compression(grpc_c_stream *stream, bool skip);

/* Whether the message read last came compressed. By the reading thread. */
GRPC_C_API bool grpc_c_stream_message_compressed(const grpc_c_stream *stream);

/* Ends the call with CANCELLED from the client's side; reads and writes return. */
GRPC_C_API void grpc_c_stream_cancel(grpc_c_stream *stream);

/*
 * Waits for the call's status, puts it into `result` and frees the stream, which must not be used
 * by another thread any more. Says writes_done where that has not been said; messages not yet read
 * are read and dropped. `result` may be NULL.
 */
GRPC_C_API void grpc_c_stream_finish(grpc_c_stream *stream, struct grpc_c_result *result);

/* -- streams that are not waited for ---------------------------------------------------------- */

/*
 * What happens on such a call is told by the functions of its struct of events, in this order:
 *
 *   on_headers, once --> on_message, as often as asked for --> on_done, once, last
 *                        on_written, once for each message that was taken to be written
 *
 * on_headers gets what the server sent before its first message, on_done the status and what came
 * after the last. Both are valid until the function returns. on_message gets a message, which it
 * frees, as it is or on another thread. Where the client alone streams there is no on_message:
 * on_done gets the one answer, which it frees, NULL exactly where the code is not OK. on_written's
 * `taken` says whether the transport took the message; else the call is over, or about to be.
 * on_headers and on_written may be NULL.
 *
 * Callbacks may come before the `__async` function has returned, which borrows its arguments for
 * so long; each is given the stream. The handle is good until grpc_c_async_release, and in
 * callbacks after it; whatever is asked of it once on_done was called is refused.
 *
 * A stream that sends one message does so by itself. Core tells the end of a call after its last
 * message: who asks for no more, and does not want to wait for the deadline, cancels.
 */

/*
 * Asks for one more message; may be said again before it has come. Without it nothing is taken
 * from the server, whose writes then wait (back-pressure). Returns 0, or -1 where no more will
 * come. Not where on_done gets the answer.
 */
GRPC_C_API int grpc_c_async_read(grpc_c_async_stream *stream);

/* No further message will be written. Returns 0, or -1 where it was said, or the call is over. */
GRPC_C_API int grpc_c_async_writes_done(grpc_c_async_stream *stream);

/* Messages written after it go as they are, though the call compresses; or no longer. */
GRPC_C_API void grpc_c_async_skip_compression(grpc_c_async_stream *stream, bool skip);

/* Whether the message that on_message was given came compressed. In on_message only. */
GRPC_C_API bool grpc_c_async_message_compressed(const grpc_c_async_stream *stream);

/* Ends the call with CANCELLED; on_done is called still. Nothing happens where it is over. */
GRPC_C_API void grpc_c_async_cancel(grpc_c_async_stream *stream);

/* Gives up the handle, not the call. Also in a callback, and after the channel is gone. Takes NULL.
 */
GRPC_C_API void grpc_c_async_release(grpc_c_async_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
