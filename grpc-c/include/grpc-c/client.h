/*
 * The client: channels, unary calls, blocking or not, and blocking streams.
 *
 * Threads. A channel may be used from any number of threads at once. A stream may be written by one
 * thread and read by another at the same time; grpc_c_stream_cancel may be called from any.
 * A channel has one thread of its own, on which the `done` of its `__async` calls run: they must
 * not block, make blocking calls on that channel, or destroy it.
 */
#ifndef GRPC_C_CLIENT_H
#define GRPC_C_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc-c/compression.h"
#include "grpc-c/metadata.h"
#include "grpc-c/status.h"
#include "grpc-c/tls.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct grpc_c_channel grpc_c_channel;
typedef struct grpc_c_stream grpc_c_stream;
typedef struct grpc_c_pending grpc_c_pending;

struct grpc_c_channel_options {
    size_t max_receive_bytes; /* largest message taken, inflated; 0: 4 MiB, at most 2 GiB */
    const struct grpc_c_channel_tls *tls; /* NULL: plaintext */
};

struct grpc_c_call_options {
    int64_t timeout_ms;  /* from the start of the call; 0: no deadline */
    bool wait_for_ready; /* wait for the server to come up instead of failing with UNAVAILABLE */
    /* Sent with the call; borrowed until the function returns. An entry that cannot be sent ends
       the call with INVALID_ARGUMENT, a message that names it, and nothing sent. */
    const struct grpc_c_metadata *metadata;
    size_t n_metadata;
    enum grpc_c_compression compression; /* of the messages sent */
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
    bool compressed; /* a unary call's answer came so */
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
 * No blocking call and no stream may be under way on the channel; `__async` calls are cancelled,
 * and the last `done` has returned when it returns. Takes NULL.
 */
GRPC_C_API void grpc_c_channel_destroy(grpc_c_channel *channel);

/*
 * Ends an `__async` call with CANCELLED; its `done` is called still. Nothing happens where it is
 * over. From any thread, also in `done`.
 */
GRPC_C_API void grpc_c_pending_cancel(grpc_c_pending *pending);

/* Gives up the handle, not the call. Also after the channel is gone. Takes NULL. */
GRPC_C_API void grpc_c_pending_release(grpc_c_pending *pending);

/* No further message will be written. Returns 0, or -1 where the call is over. */
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

#ifdef __cplusplus
}
#endif

#endif
