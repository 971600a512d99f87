/*
 * The server: listeners, services, and the calls that arrive.
 *
 * Threads. The server owns `pollers` threads. Each callback of a handler struct, and each callback
 * given with a call, runs on one of them and must not block. Callbacks of one call never overlap
 * and come in order; callbacks of different calls do overlap. Every function that takes a
 * grpc_c_call may be called from any thread, also outside a callback.
 *
 * Life of a call:
 *
 *   arrived --handler called--> open --reply/finish/fail--> finished --transport done--> gone
 *
 * A handler that was called owns the call until it finishes it, and must finish it exactly once,
 * cancelled or not. From the moment of finishing on, the pointer is no longer the handler's, and no
 * further callback of that call comes but the destroy function of grpc_c_call_set_data.
 */
#ifndef GRPC_C_SERVER_H
#define GRPC_C_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "grpc-c/bytes.h"
#include "grpc-c/compression.h"
#include "grpc-c/metadata.h"
#include "grpc-c/status.h"
#include "grpc-c/tls.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct grpc_c_server grpc_c_server;
typedef struct grpc_c_call grpc_c_call;

/* Zero means the default everywhere, so that `= {0}` is a good set of options. */
struct grpc_c_server_options {
    unsigned pollers;              /* polling threads, each with a completion queue; 0: 2 */
    unsigned accepts;              /* calls accepted ahead for each method and queue; 0: 16 */
    size_t max_receive_bytes;      /* largest message taken; 0: 4 MiB, as everywhere in gRPC */
    size_t unpack_overhead_bytes;  /* heap an unpacked message may take above its size on the wire:
                                      protobuf amplifies, 4 MiB can become 208 MiB; 0: 32 MiB */
    size_t memory_quota_bytes;     /* for messages being received, all calls together, and as much
                                      again for what compressed ones inflate to; 0: 512 MiB */
    unsigned keepalive_ms;         /* ping an idle peer after this time; 0: 20,000 */
    unsigned keepalive_timeout_ms; /* and drop it after this time without an answer; 0: 10,000 */
    enum grpc_c_compression compression; /* of answers, to clients that take it */
};

/* Returns NULL where memory has run out. `options` may be NULL. */
GRPC_C_API grpc_c_server *grpc_c_server_create(const struct grpc_c_server_options *options);

/* A server with default options listening on `host` ("127.0.0.1:50051"); NULL where that fails. */
GRPC_C_API grpc_c_server *grpc_c_server_create_by_host(const char *host);

/*
 * Listens in plaintext on `address`: "host:port" (port 0: any free one) or "unix:path".
 * *port, where port is not NULL, gets the port (for unix: 1). Returns 0, or -1 with the cause in
 * `error` (bytes `size`, always terminated). Refused with a cause of its own: an address without a
 * port, a port above 65535, a port or socket path that a live server holds; a dead server's socket
 * file is replaced. Before grpc_c_server_start only.
 */
GRPC_C_API int grpc_c_server_listen(grpc_c_server *server, const char *address, int *port,
                                    char *error, size_t size);

/* The same with TLS. Refused, too: files that cannot be read, or are no certificate and its key. */
GRPC_C_API int grpc_c_server_listen_tls(grpc_c_server *server, const char *address,
                                        const struct grpc_c_server_tls *tls, int *port, char *error,
                                        size_t size);

/* Starts to accept calls. Returns 0, or -1 where threads or memory ran out. */
GRPC_C_API int grpc_c_server_start(grpc_c_server *server);

/* Blocks until grpc_c_server_shutdown, called from another thread, has finished. */
GRPC_C_API void grpc_c_server_wait(grpc_c_server *server);

/*
 * Stops accepting, waits up to `drain_ms` for the calls that run, cancels the rest, and returns
 * when the last call is gone: a handler that never finishes its call holds it up. Not from a
 * callback. Returns how many calls had to be cancelled. The second call does nothing and returns 0.
 */
GRPC_C_API unsigned grpc_c_server_shutdown(grpc_c_server *server, unsigned drain_ms);

/* Shuts down without a drain if that has not been done, and frees. Takes NULL. */
GRPC_C_API void grpc_c_server_destroy(grpc_c_server *server);

/* -- a call: its input ------------------------------------------------------------------------ */

/*
 * Asks for the next message of a client stream; the handler's message callback gets it, or NULL
 * once at the end of the stream, also where that is the call's being cancelled, of which
 * grpc_c_call_cancelled tells. A message that cannot be read cancels the call: the peer gets the
 * status from the runtime. A message stays valid until the next grpc_c_call_read or the end
 * of the call; the request of a unary or server-streaming call until its end. One read
 * at a time; without a read nothing is taken from the peer, whose writes then wait (back-pressure).
 */
GRPC_C_API void grpc_c_call_read(grpc_c_call *call);

/*
 * Makes the message that was last given to a callback the caller's own: it outlives the next
 * grpc_c_call_read and the call, and is freed with the type's free_unpacked(message, NULL). NULL
 * where there is none, or it was taken before. Before the next grpc_c_call_read and before the call
 * is finished. What it took of the server's budget for inflated messages comes back with the next
 * message: whoever takes many bounds them itself.
 */
GRPC_C_API ProtobufCMessage *grpc_c_call_take_message(grpc_c_call *call);

/* True once the peer cancelled, the deadline passed, the connection broke or the drain ended. */
GRPC_C_API bool grpc_c_call_cancelled(const grpc_c_call *call);

/* Whether the request, or the stream's message of the moment, came compressed. */
GRPC_C_API bool grpc_c_call_message_compressed(const grpc_c_call *call);

/*
 * `on_cancel(call, arg)` is called once when the call is cancelled, at the soonest after the
 * running callback, and not at all once the call is finished. The call must still be finished.
 */
GRPC_C_API void grpc_c_call_on_cancel(grpc_c_call *call,
                                      void (*on_cancel)(grpc_c_call *call, void *arg), void *arg);

/* Milliseconds until the call's deadline, 0 where it has passed, INT64_MAX where it has none. */
GRPC_C_API int64_t grpc_c_call_remaining_ms(const grpc_c_call *call);

/* "ipv4:127.0.0.1:40112"; valid until the call is finished. */
GRPC_C_API const char *grpc_c_call_peer(grpc_c_call *call);

/*
 * Whom the client's certificate names; NULL where it has shown none that was checked: in plaintext,
 * or without client_ca_file. Valid until the call is finished.
 */
GRPC_C_API const struct grpc_c_identity *grpc_c_call_identity(grpc_c_call *call);

/*
 * The metadata that the client sent, its count in *n; NULL where that is 0. Copied at the first
 * question, for those who ask; valid until the call is finished.
 */
GRPC_C_API const struct grpc_c_metadata *grpc_c_call_metadata(grpc_c_call *call, size_t *n);

/* One pointer a call. `destroy`, where not NULL, gets it on a polling thread when the call is gone.
 */
GRPC_C_API void grpc_c_call_set_data(grpc_c_call *call, void *data, void (*destroy)(void *data));
GRPC_C_API void *grpc_c_call_data(const grpc_c_call *call);

/* -- a call: its output ------------------------------------------------------------------------ */

/*
 * Adds an entry, which is copied, to the metadata sent before the first message, or after the last.
 * Nothing is added where the return is not GRPC_C_METADATA_OK: TOO_LATE once the first message or
 * the headers were sent, or the call is being finished; else as metadata.h says. Trailers and the
 * status share 7,500 bytes: with much metadata a status message is cut shorter, and details that do
 * not fit are dropped and logged.
 */
GRPC_C_API enum grpc_c_metadata_fault grpc_c_call_add_header(grpc_c_call *call,
                                                             const struct grpc_c_metadata *entry);
GRPC_C_API enum grpc_c_metadata_fault grpc_c_call_add_trailer(grpc_c_call *call,
                                                              const struct grpc_c_metadata *entry);

/* Sends the headers now instead of with the first message; a client may be waiting for them. */
GRPC_C_API void grpc_c_call_send_headers(grpc_c_call *call);

/*
 * Compresses the call's answers, in place of what the server's options say, where the client takes
 * it: with the other algorithm where it takes only that. No effect once the headers were sent.
 */
GRPC_C_API void grpc_c_call_set_compression(grpc_c_call *call, enum grpc_c_compression compression);

/* Messages sent after it go as they are, though the call's answers are compressed; or no longer. */
GRPC_C_API void grpc_c_call_skip_compression(grpc_c_call *call, bool skip);

/*
 * Sends a message of a server stream. `message` is serialised before the function returns.
 * `on_written(call, arg)`, where not NULL, is called when the transport has taken it, or the call
 * was cancelled; not at all once the call is finished. Messages written meanwhile wait in order, in
 * memory: a handler that streams much writes its next message from on_written.
 */
GRPC_C_API void grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                                  void (*on_written)(grpc_c_call *call, void *arg), void *arg);

/* The same, with `bytes` fields sent from the memory they lie in; see bytes.h. */
GRPC_C_API void grpc_c_call_write_lent(grpc_c_call *call, const ProtobufCMessage *message,
                                       const struct grpc_c_lent *lent, size_t n_lent,
                                       void (*on_written)(grpc_c_call *call, void *arg), void *arg);

/* Finishes with one message and status OK: unary and client-streaming calls. */
GRPC_C_API void grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response);

/* The same, with `bytes` fields sent from the memory they lie in; see bytes.h. */
GRPC_C_API void grpc_c_call_reply_lent(grpc_c_call *call, const ProtobufCMessage *response,
                                       const struct grpc_c_lent *lent, size_t n_lent);

/* Finishes with a status, after all messages written. OK is for streaming answers only. */
GRPC_C_API void grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status);

/* grpc_c_call_finish with a code and a message in printf's manner. */
GRPC_C_API void grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...)
    GRPC_C_PRINTF(3, 4);

/* -- logging ----------------------------------------------------------------------------------- */

enum grpc_c_log_level { GRPC_C_LOG_DEBUG, GRPC_C_LOG_INFO, GRPC_C_LOG_ERROR };

/*
 * Takes over what gRPC core and this library log, process-wide; without it only errors are printed,
 * on standard error. `log` may be called from any thread, with one line without a newline. NULL:
 * the default again.
 */
GRPC_C_API void grpc_c_set_logger(void (*log)(enum grpc_c_log_level level, const char *line));

#ifdef __cplusplus
}
#endif

#endif
