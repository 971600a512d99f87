/*
 * What protoc-gen-grpc-c generates against: the tables that describe a service.
 *
 * People use the generated, typed functions; nothing here needs to be called by hand.
 */
#ifndef GRPC_C_SERVICE_H
#define GRPC_C_SERVICE_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "grpc-c/bytes.h"
#include "grpc-c/client.h"
#include "grpc-c/server.h"
#include "grpc-c/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum grpc_c_shape {
    GRPC_C_UNARY,
    GRPC_C_CLIENT_STREAM, /* stream in, one message out */
    GRPC_C_SERVER_STREAM, /* one message in, stream out */
    GRPC_C_BIDI_STREAM
};

struct grpc_c_method {
    const char *path; /* "/package.Service/Method" */
    enum grpc_c_shape shape;
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *response;
    /*
     * Trampolines from the untyped runtime to the typed handlers; both return false where the
     * handler is NULL, and the runtime answers UNIMPLEMENTED.
     * begin: the call has arrived. `request` is its one message, NULL where the client streams.
     * message: client-streaming shapes only; one message in, NULL once at the end of the stream.
     */
    bool (*begin)(grpc_c_call *call, const ProtobufCMessage *request, const void *handlers);
    bool (*message)(grpc_c_call *call, const ProtobufCMessage *request, const void *handlers);
};

struct grpc_c_service {
    const char *name; /* "package.Service" */
    const struct grpc_c_method *methods;
    size_t n_methods;
};

/*
 * Adds a service before grpc_c_server_start. `service` and `handlers` are borrowed until
 * grpc_c_server_destroy. Returns 0, or -1: out of memory, the server was started, or a method of
 * that path was added before.
 */
GRPC_C_API int grpc_c_server_add_service(grpc_c_server *server,
                                         const struct grpc_c_service *service,
                                         const void *handlers);

/* See the typed `__sync` functions. Returns NULL exactly where result->code is not GRPC_C_OK. */
GRPC_C_API ProtobufCMessage *grpc_c_unary(grpc_c_channel *channel,
                                          const struct grpc_c_method *method,
                                          const ProtobufCMessage *request,
                                          const struct grpc_c_call_options *options,
                                          struct grpc_c_result *result);

/* From the untyped `done` to the typed one; both are called on the channel's thread. */
typedef void (*grpc_c_answered)(ProtobufCMessage *response, const struct grpc_c_result *result,
                                void (*done)(void), void *arg);

/*
 * See the typed `__async` functions. `request` and `options` are borrowed until it returns. Returns
 * 0, and `done` is called once, perhaps before it returns; or -1, out of memory, and it is not.
 * *handle, where handle is not NULL, gets what grpc_c_pending_cancel takes, and must be released.
 */
GRPC_C_API int grpc_c_unary_async(grpc_c_channel *channel, const struct grpc_c_method *method,
                                  const ProtobufCMessage *request,
                                  const struct grpc_c_call_options *options,
                                  grpc_c_answered answered, void (*done)(void), void *arg,
                                  grpc_c_pending **handle);

/* See the typed `__open`, `__write` and `__read` functions. */
GRPC_C_API grpc_c_stream *grpc_c_stream_open(grpc_c_channel *channel,
                                             const struct grpc_c_method *method,
                                             const struct grpc_c_call_options *options);
GRPC_C_API int grpc_c_stream_write(grpc_c_stream *stream, const ProtobufCMessage *message);
GRPC_C_API int grpc_c_stream_write_lent(grpc_c_stream *stream, const ProtobufCMessage *message,
                                        const struct grpc_c_lent *lent, size_t n_lent);
GRPC_C_API ProtobufCMessage *grpc_c_stream_read(grpc_c_stream *stream);

/*
 * From an untyped message to a typed callback: on_message with a message of a stream, where
 * `result` is NULL, or on_done with a call's one answer.
 */
typedef void (*grpc_c_arrived)(grpc_c_async_stream *stream, ProtobufCMessage *message,
                               const struct grpc_c_result *result, void (*typed)(void), void *user);

/* A typed struct of events without its types; see client.h. */
struct grpc_c_stream_events {
    void (*on_headers)(grpc_c_async_stream *stream, const struct grpc_c_metadata *headers, size_t n,
                       void *user);
    void (*on_written)(grpc_c_async_stream *stream, bool taken, void *user);
    void (*on_done)(grpc_c_async_stream *stream, const struct grpc_c_result *result, void *user);
    grpc_c_arrived arrived;
    void (*typed)(void); /* for `arrived`: on_message; on_done where the client alone streams */
};

/*
 * See the typed `__async`, `__async_write` and `__async_write_lent` functions. `request` is NULL
 * where the client streams. A `message` is packed, and its lent ranges taken over, in any case.
 */
GRPC_C_API grpc_c_async_stream *
grpc_c_stream_async(grpc_c_channel *channel, const struct grpc_c_method *method,
                    const ProtobufCMessage *request, const struct grpc_c_call_options *options,
                    const struct grpc_c_stream_events *events, void *user);
GRPC_C_API int grpc_c_async_write(grpc_c_async_stream *stream, const ProtobufCMessage *message);
GRPC_C_API int grpc_c_async_write_lent(grpc_c_async_stream *stream, const ProtobufCMessage *message,
                                       const struct grpc_c_lent *lent, size_t n_lent);

#ifdef __cplusplus
}
#endif

#endif
