/*
 * The server: listeners, services, and the calls that arrive.
 *
 * Threads. The server owns `pollers` threads, which take what comes from the network, and one that
 * accepts plaintext connections. Each callback
 * of a handler struct, and each callback given with a call, runs on one of them and must not block:
 * while it does, every call of that poller stands still. A handler that has to wait either returns,
 * and lets whoever ends the wait finish the call from another thread; or the server is given
 * `workers`. Then every callback runs on one of so many threads of a pool and may block, which
 * holds up nothing but what needs a worker: pollers go on receiving, sending and cancelling.
 * Callbacks of one call never overlap and come in order, with workers or without; callbacks of
 * different calls do overlap. Every function that takes a grpc_c_call may be called from any
 * thread, also outside a callback.
 *
 * How many. A poller is a thread that seldom waits: one is enough for some 100,000 small calls a
 * second, and alone costs least a call. The others sleep until it is busy with the calls of several
 * connections, and again when it no longer is; two serve half as many more. Workers wait:
 * as many as calls shall block at a time. At most `worker_line` calls wait for one; what arrives
 * beyond is answered RESOURCE_EXHAUSTED, and its handler is not called, nor where the call was
 * cancelled or its deadline passed as it waited. While a worker is blocked in a handler
 * grpc_c_call_cancelled tells of cancellation at once; on_cancel, like all callbacks, comes after
 * it has returned.
 *
 * Life of a call:
 *
 *   arrived --handler called--> open --reply/finish/fail--> finished --transport done--> gone
 *
 * A handler that was called owns the call until it finishes it, and must finish it exactly once,
 * cancelled or not; one that forgets is reported (grpc_c_server_report, grpc_c_server_shutdown).
 * No further callback of a finished call comes but the destroy function of grpc_c_call_set_data.
 *
 * Use after the finish is refused. A grpc_c_call is a name, not an address: each function that
 * takes one knows a call that is finished, however late, on any thread, even after its server is
 * gone, and then does nothing, logs once for that call which function was called of which method,
 * and returns false or NULL, or as it says. What it was to take over is released. One exception: a
 * callback that is running as another thread finishes the call may go on asking (data, cancelled,
 * remaining_ms, peer, identity, metadata, message_compressed, bytes, and the two that take) until
 * it returns.
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
    /* threads: see above */
    unsigned pollers;     /* polling threads at most, each with a completion queue; 0: 2 */
    unsigned accepts;     /* calls accepted ahead for each method in use and queue; 0: 256 */
    unsigned workers;     /* threads that run the callbacks, which may block; 0: pollers run them */
    unsigned worker_line; /* calls that may wait for a worker; 0: 1,000 */

    /* messages */
    size_t max_receive_bytes;     /* largest message taken; 0: 4 MiB, as everywhere in gRPC */
    size_t max_send_bytes;        /* largest message sent, else RESOURCE_EXHAUSTED; 0: no limit */
    size_t unpack_overhead_bytes; /* heap an unpacked message may take above its size on the wire:
                                     protobuf amplifies, 4 MiB can become 208 MiB; 0: 32 MiB */
    size_t memory_quota_bytes;    /* for messages being received, all calls together, and as much
                                     again for what compressed ones inflate to; 0: 512 MiB */
    size_t max_metadata_bytes;    /* of one call's headers, larger ones are refused; 0: 8 KiB */
    enum grpc_c_compression compression; /* of answers, to clients that take it */

    /* connections; times are milliseconds */
    unsigned handshake_timeout_ms; /* a new one is dropped if it has not begun by then; 0: 20,000 */
    unsigned
        max_concurrent_streams; /* calls at a time on one; more wait at the client; 0: no limit */
    unsigned keepalive_ms;      /* ping an idle peer after this time; 0: 20,000 */
    unsigned keepalive_timeout_ms;   /* and drop it after this time without an answer; 0: 10,000 */
    bool keepalive_with_calls_only;  /* no pings on a connection without calls, nor may the client
                                        send any there; false: there, too */
    unsigned min_ping_interval_ms;   /* a client that three times pings sooner than this after its
                                        last ping, and is sent nothing meanwhile, is sent away
                                        (ENHANCE_YOUR_CALM); 0: 5,000 */
    unsigned max_connection_idle_ms; /* one without calls is ended after this time; 0: never */
    unsigned max_connection_age_ms; /* takes no new calls after this time, give or take a tenth: the
                                       client connects anew; calls in flight go on; 0: never */
    unsigned max_connection_age_grace_ms; /* and are cut off this long after; 0: never */

    unsigned forgotten_ms; /* at a shutdown, calls that were cancelled and that no handler has
                              finished after this time are reported; 0: 5,000 */
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

/*
 * From the start on the requests of the method `path` ("/package.Service/Method") come with the
 * field of this number left where it was received: see bytes.h and grpc_c_call_bytes. Returns 0, or
 * -1: no such method was added, its request has no such `bytes` field, or the server was started.
 */
GRPC_C_API int grpc_c_server_slice_field(grpc_c_server *server, const char *path, unsigned number);

/*
 * Has `run(user)` called on each polling thread at the end of a round: when the handlers of some
 * calls that came together were called, a few dozens at most, and before the thread waits for more.
 * For what is cheaper done once for several calls than for each; what is left undone there waits
 * for the next call. NULL: nothing. Not with workers. Before grpc_c_server_start only.
 */
GRPC_C_API void grpc_c_server_on_round_end(grpc_c_server *server, void (*run)(void *user),
                                           void *user);

/* Starts to accept calls. Returns 0, or -1 where threads or memory ran out. */
GRPC_C_API int grpc_c_server_start(grpc_c_server *server);

/* Blocks until grpc_c_server_shutdown, called from another thread, has finished. */
GRPC_C_API void grpc_c_server_wait(grpc_c_server *server);

/*
 * Stops accepting, waits up to `drain_ms` for the calls that run, cancels the rest, and returns
 * when the last call is gone: a handler that never finishes its call holds it up, and is reported
 * after options.forgotten_ms. Not from a callback. Returns how many calls had to be cancelled. The
 * second call does nothing and returns 0.
 */
GRPC_C_API unsigned grpc_c_server_shutdown(grpc_c_server *server, unsigned drain_ms);

/*
 * Logs a line, at the level of errors, for each call whose handler was called, or is to be, at
 * least `least_ms` ago and that is not finished: its method, its peer, its age, and whether it is
 * cancelled. Returns how many there are. From any thread, between start and destroy.
 */
GRPC_C_API unsigned grpc_c_server_report(grpc_c_server *server, unsigned least_ms);

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
 * False where the stream is over, or refused, which is logged: a second read at a time, a method
 * without a client stream.
 */
GRPC_C_API bool grpc_c_call_read(grpc_c_call *call);

/*
 * Makes the message that was last given to a callback the caller's own: it outlives the next
 * grpc_c_call_read and the call, and is freed with the type's free_unpacked(message, NULL). NULL
 * where there is none, or it was taken before. Before the next grpc_c_call_read and before the call
 * is finished. What it took of the server's budget for inflated messages comes back with the next
 * message: whoever takes many bounds them itself.
 */
GRPC_C_API ProtobufCMessage *grpc_c_call_take_message(grpc_c_call *call);

/*
 * The i-th value of the field of grpc_c_server_slice_field in the message of the moment. False
 * where there are not so many: of a field that is not repeated there is one, or none where the peer
 * left it out, as it does where it is empty. The pieces are valid as long as the message.
 */
GRPC_C_API bool grpc_c_call_bytes(grpc_c_call *call, size_t i, struct grpc_c_bytes *bytes);

/*
 * Makes them the caller's own, as grpc_c_call_take_message does the message, and with what is said
 * there of the budget. To be released, on any thread. NULL where there are none, or they were
 * taken.
 */
GRPC_C_API grpc_c_received *grpc_c_call_take_bytes(grpc_c_call *call);

/*
 * True once the peer cancelled, the deadline passed, the connection broke or the drain ended; and
 * of a finished call.
 */
GRPC_C_API bool grpc_c_call_cancelled(const grpc_c_call *call);

/* Whether the request, or the stream's message of the moment, came compressed. */
GRPC_C_API bool grpc_c_call_message_compressed(const grpc_c_call *call);

/*
 * `on_cancel(call, arg)` is called once when the call is cancelled, at the soonest after the
 * running callback, and not at all once the call is finished. The call must still be finished.
 */
GRPC_C_API bool grpc_c_call_on_cancel(grpc_c_call *call,
                                      void (*on_cancel)(grpc_c_call *call, void *arg), void *arg);

/* Milliseconds until the call's deadline, 0 where it has passed, INT64_MAX where it has none; 0
 * of a finished call. */
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

/*
 * One pointer a call. `destroy`, where not NULL, gets it on a thread of the server when the call is
 * gone; where false is returned it stays the caller's.
 */
GRPC_C_API bool grpc_c_call_set_data(grpc_c_call *call, void *data, void (*destroy)(void *data));
GRPC_C_API void *grpc_c_call_data(const grpc_c_call *call);

/* -- a call: its output ------------------------------------------------------------------------ */

/*
 * Adds an entry, which is copied, to the metadata sent before the first message, or after the last.
 * Nothing is added where the return is not GRPC_C_METADATA_OK: TOO_LATE once the first message or
 * the headers were sent, or the call is finished; else as metadata.h says. Trailers and the
 * status share 7,500 bytes: with much metadata a status message is cut shorter, and details that do
 * not fit are dropped and logged.
 */
GRPC_C_API enum grpc_c_metadata_fault grpc_c_call_add_header(grpc_c_call *call,
                                                             const struct grpc_c_metadata *entry);
GRPC_C_API enum grpc_c_metadata_fault grpc_c_call_add_trailer(grpc_c_call *call,
                                                              const struct grpc_c_metadata *entry);

/* Sends the headers now instead of with the first message; a client may be waiting for them. */
GRPC_C_API bool grpc_c_call_send_headers(grpc_c_call *call);

/*
 * Compresses the call's answers, in place of what the server's options say, where the client takes
 * it: with the other algorithm where it takes only that. No effect once the headers were sent.
 */
GRPC_C_API bool grpc_c_call_set_compression(grpc_c_call *call, enum grpc_c_compression compression);

/* Messages sent after it go as they are, though the call's answers are compressed; or no longer. */
GRPC_C_API bool grpc_c_call_skip_compression(grpc_c_call *call, bool skip);

/*
 * Sends a message of a server stream. `message` is serialised before the function returns.
 * `on_written(call, arg)`, where not NULL, is called when the transport has taken it, or the call
 * was cancelled; not at all once the call is finished. Messages written meanwhile wait in order, in
 * memory: a handler that streams much writes its next message from on_written.
 */
GRPC_C_API bool grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                                  void (*on_written)(grpc_c_call *call, void *arg), void *arg);

/* The same, with `bytes` fields sent from the memory they lie in; see bytes.h. */
GRPC_C_API bool grpc_c_call_write_lent(grpc_c_call *call, const ProtobufCMessage *message,
                                       const struct grpc_c_lent *lent, size_t n_lent,
                                       void (*on_written)(grpc_c_call *call, void *arg), void *arg);

/*
 * The same with a message that the caller has serialised, sent from the memory it lies in: as a
 * lent range, see bytes.h. For what is sent often and can be written down more
 * cheaply than packed; nobody checks that it is a message of the method's type.
 */
GRPC_C_API bool grpc_c_call_write_encoded(grpc_c_call *call, const struct grpc_c_lent *message,
                                          void (*on_written)(grpc_c_call *call, void *arg),
                                          void *arg);

/* Finishes with one message and status OK: unary and client-streaming calls. */
GRPC_C_API bool grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response);

/* The same, with `bytes` fields sent from the memory they lie in; see bytes.h. */
GRPC_C_API bool grpc_c_call_reply_lent(grpc_c_call *call, const ProtobufCMessage *response,
                                       const struct grpc_c_lent *lent, size_t n_lent);

/* Finishes with a status, after all messages written. OK is for streaming answers only. */
GRPC_C_API bool grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status);

/* grpc_c_call_finish with a code and a message in printf's manner. */
GRPC_C_API bool grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...)
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
