/*
 * Prints the source of a .proto: for each service the trampolines from the runtime to its handlers,
 * the table that describes it, and the client's functions.
 */
#include "plugin.h"

static const char *shape_name(const struct gen_method *method)
{
    if (method->client_streams) {
        return method->server_streams ? "GRPC_C_BIDI_STREAM" : "GRPC_C_CLIENT_STREAM";
    }
    return method->server_streams ? "GRPC_C_SERVER_STREAM" : "GRPC_C_UNARY";
}

/* -- what header and source share ------------------------------------------------------------ */

void gen_emit_sync(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0,
                   "%s *%s__sync(grpc_c_channel *channel, const %s *request, "
                   "const struct grpc_c_call_options *options, struct grpc_c_result *result)%s",
                   method->response->c_type, method->symbol, method->request->c_type, tail);
}

void gen_emit_async(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0,
                   "int %s__async(grpc_c_channel *channel, const %s *request, "
                   "const struct grpc_c_call_options *options, %s__done done, "
                   "void *arg, grpc_c_pending **handle)%s",
                   method->symbol, method->request->c_type, method->symbol, tail);
}

void gen_emit_open(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0,
                   "grpc_c_stream *%s__open(grpc_c_channel *channel, "
                   "const struct grpc_c_call_options *options)%s",
                   method->symbol, tail);
}

void gen_emit_write(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0, "int %s__write(grpc_c_stream *stream, const %s *message)%s",
                   method->symbol, method->request->c_type, tail);
}

void gen_emit_write_lent(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0,
                   "int %s__write_lent(grpc_c_stream *stream, const %s *message, "
                   "const struct grpc_c_lent *lent, size_t n_lent)%s",
                   method->symbol, method->request->c_type, tail);
}

void gen_emit_read(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0, "%s *%s__read(grpc_c_stream *stream)%s", method->response->c_type,
                   method->symbol, tail);
}

void gen_emit_stream_async(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    const char *type = method->request->c_type;

    gen_text_wrapf(out, 0,
                   "grpc_c_async_stream *%s__async(grpc_c_channel *channel, %s%s%s"
                   "const struct grpc_c_call_options *options, "
                   "const struct %s__events *events, void *user)%s",
                   method->symbol, method->client_streams ? "" : "const ",
                   method->client_streams ? "" : type, method->client_streams ? "" : " *request, ",
                   method->symbol, tail);
}

void gen_emit_async_write(struct gen_text *out, const struct gen_method *method, const char *tail)
{
    gen_text_wrapf(out, 0, "int %s__async_write(grpc_c_async_stream *stream, const %s *message)%s",
                   method->symbol, method->request->c_type, tail);
}

void gen_emit_async_write_lent(struct gen_text *out, const struct gen_method *method,
                               const char *tail)
{
    gen_text_wrapf(out, 0,
                   "int %s__async_write_lent(grpc_c_async_stream *stream, const %s *message, "
                   "const struct grpc_c_lent *lent, size_t n_lent)%s",
                   method->symbol, method->request->c_type, tail);
}

void gen_emit_service_init(struct gen_text *out, const struct gen_service *service,
                           const char *tail)
{
    gen_text_wrapf(
        out, 0, "int %s__service_init(grpc_c_server *server, const struct %s_handlers *handlers)%s",
        service->symbol, service->symbol, tail);
}

/* -- trampolines ----------------------------------------------------------------------------- */

/* From the runtime's untyped call to the member `handler` with the arguments `arguments`. */
static void emit_trampoline(struct gen_text *out, const struct gen_service *service,
                            const struct gen_method *method, const char *name, const char *handler,
                            const char *arguments, bool request)
{
    gen_text_wrapf(out, 0,
                   "static bool %s__%s(grpc_c_call *call, const ProtobufCMessage *request, "
                   "const void *handlers)",
                   method->symbol, name);
    gen_text_printf(out, "{\n");
    gen_text_printf(out, "    const struct %s_handlers *typed = handlers;\n\n", service->symbol);
    if (!request) {
        gen_text_printf(out, "    (void)request;\n");
    }
    gen_text_printf(out, "    if (typed->%s == NULL) {\n        return false;\n    }\n", handler);
    gen_text_wrapf(out, 4, "typed->%s(call, %s);", handler, arguments);
    gen_text_printf(out, "    return true;\n}\n\n");
}

static void emit_trampolines(struct gen_text *out, struct gen_pool *pool,
                             const struct gen_service *service, const struct gen_method *method)
{
    const char *typed =
        gen_pool_printf(pool, "(const %s *)request, typed->user", method->request->c_type);

    if (!method->client_streams) {
        emit_trampoline(out, service, method, "begin", method->c_name, typed, true);
        return;
    }
    emit_trampoline(out, service, method, "begin", method->c_name, "typed->user", false);
    emit_trampoline(out, service, method, "message",
                    gen_pool_printf(pool, "%s__message", method->c_name), typed, true);
}

/* -- tables ---------------------------------------------------------------------------------- */

static void emit_table_entry(struct gen_text *out, const struct gen_service *service,
                             const struct gen_method *method)
{
    gen_text_printf(out,
                    "    {\n"
                    "        .path = \"/%s/%s\",\n"
                    "        .shape = %s,\n"
                    "        .request = &%s__descriptor,\n"
                    "        .response = &%s__descriptor,\n"
                    "        .begin = %s__begin,\n",
                    service->full_name, method->name, shape_name(method), method->request->symbol,
                    method->response->symbol, method->symbol);
    if (method->client_streams) {
        gen_text_printf(out, "        .message = %s__message,\n", method->symbol);
    }
    gen_text_printf(out, "    },\n");
}

/* A service without methods has no table: C knows no array of length 0. */
static void emit_tables(struct gen_text *out, const struct gen_service *service)
{
    size_t i;

    if (service->n_methods != 0) {
        gen_text_printf(out, "static const struct grpc_c_method %s__methods[] = {\n",
                        service->symbol);
        for (i = 0; i < service->n_methods; i++) {
            emit_table_entry(out, service, &service->methods[i]);
        }
        gen_text_printf(out, "};\n\n");
    }
    gen_text_printf(out, "const struct grpc_c_service %s__service = {\n", service->symbol);
    gen_text_printf(out, "    .name = \"%s\",\n", service->full_name);
    if (service->n_methods != 0) {
        gen_text_printf(out, "    .methods = %s__methods,\n", service->symbol);
        gen_text_printf(out, "    .n_methods = %zu,\n", service->n_methods);
    }
    gen_text_printf(out, "};\n\n");
    gen_emit_service_init(out, service, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "return grpc_c_server_add_service(server, &%s__service, handlers);",
                   service->symbol);
    gen_text_printf(out, "}\n");
}

/* -- the client ------------------------------------------------------------------------------ */

static void emit_unary(struct gen_text *out, const struct gen_service *service, size_t index)
{
    const struct gen_method *method = &service->methods[index];

    gen_text_printf(out, "\n");
    gen_emit_sync(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "return (%s *)grpc_c_unary(channel, &%s__methods[%zu], "
                   "(const ProtobufCMessage *)request, options, result);",
                   method->response->c_type, service->symbol, index);
    gen_text_printf(out, "}\n");
}

/* `done` travels through the runtime as a function of no type, and has its own again here. */
static void emit_async(struct gen_text *out, const struct gen_service *service, size_t index)
{
    const struct gen_method *method = &service->methods[index];

    gen_text_printf(out, "\n");
    gen_text_wrapf(out, 0,
                   "static void %s__answered(ProtobufCMessage *response, "
                   "const struct grpc_c_result *result, void (*done)(void), void *arg)",
                   method->symbol);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "((%s__done)done)((%s *)response, result, arg);", method->symbol,
                   method->response->c_type);
    gen_text_printf(out, "}\n\n");
    gen_emit_async(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "return grpc_c_unary_async(channel, &%s__methods[%zu], "
                   "(const ProtobufCMessage *)request, options, %s__answered, "
                   "(void (*)(void))done, arg, handle);",
                   service->symbol, index, method->symbol);
    gen_text_printf(out, "}\n");
}

static void emit_stream(struct gen_text *out, const struct gen_service *service, size_t index)
{
    const struct gen_method *method = &service->methods[index];

    gen_text_printf(out, "\n");
    gen_emit_open(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "return grpc_c_stream_open(channel, &%s__methods[%zu], options);",
                   service->symbol, index);
    gen_text_printf(out, "}\n\n");

    gen_emit_write(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "return grpc_c_stream_write(stream, (const ProtobufCMessage *)message);");
    gen_text_printf(out, "}\n\n");

    gen_emit_write_lent(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "return grpc_c_stream_write_lent(stream, (const ProtobufCMessage *)message, "
                   "lent, n_lent);");
    gen_text_printf(out, "}\n\n");

    gen_emit_read(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "return (%s *)grpc_c_stream_read(stream);", method->response->c_type);
    gen_text_printf(out, "}\n");
}

/* The callback with a message, which travels as `done` does: a stream's, or a call's one answer. */
static void emit_arrived(struct gen_text *out, const struct gen_method *method)
{
    bool streams = method->server_streams;
    const char *type = method->response->c_type;

    gen_text_printf(out, "\n");
    gen_text_wrapf(out, 0,
                   "static void %s__arrived(grpc_c_async_stream *stream, "
                   "ProtobufCMessage *message, const struct grpc_c_result *result, "
                   "void (*typed)(void), void *user)",
                   method->symbol);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "typedef void (*callback)(grpc_c_async_stream *stream, %s *message, %svoid "
                   "*user);",
                   type, streams ? "" : "const struct grpc_c_result *result, ");
    gen_text_printf(out, "\n");
    if (streams) {
        gen_text_printf(out, "    (void)result;\n");
    }
    gen_text_wrapf(out, 4, "((callback)typed)(stream, (%s *)message, %suser);", type,
                   streams ? "" : "result, ");
    gen_text_printf(out, "}\n\n");
}

static void emit_stream_async(struct gen_text *out, const struct gen_service *service, size_t index)
{
    const struct gen_method *method = &service->methods[index];

    emit_arrived(out, method);
    gen_emit_stream_async(out, method, "");
    gen_text_printf(out, "{\n    const struct grpc_c_stream_events untyped = {\n"
                         "        .on_headers = events->on_headers,\n");
    if (method->client_streams) {
        gen_text_printf(out, "        .on_written = events->on_written,\n");
    }
    if (method->server_streams) {
        gen_text_printf(out, "        .on_done = events->on_done,\n");
    }
    gen_text_printf(out,
                    "        .arrived = %s__arrived,\n"
                    "        .typed = (void (*)(void))events->%s,\n    };\n\n",
                    method->symbol, method->server_streams ? "on_message" : "on_done");
    gen_text_wrapf(out, 4,
                   "return grpc_c_stream_async(channel, &%s__methods[%zu], %s, options, &untyped, "
                   "user);",
                   service->symbol, index,
                   method->client_streams ? "NULL" : "(const ProtobufCMessage *)request");
    gen_text_printf(out, "}\n");
}

static void emit_async_writes(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out, "\n");
    gen_emit_async_write(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "return grpc_c_async_write(stream, (const ProtobufCMessage *)message);");
    gen_text_printf(out, "}\n\n");
    gen_emit_async_write_lent(out, method, "");
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4,
                   "return grpc_c_async_write_lent(stream, (const ProtobufCMessage *)message, "
                   "lent, n_lent);");
    gen_text_printf(out, "}\n");
}

/* -- the file -------------------------------------------------------------------------------- */

static void emit_service(struct gen_text *out, struct gen_pool *pool,
                         const struct gen_service *service)
{
    size_t i;

    gen_text_printf(out, "\n/* -- service %s -- */\n\n", service->full_name);
    for (i = 0; i < service->n_methods; i++) {
        emit_trampolines(out, pool, service, &service->methods[i]);
    }
    emit_tables(out, service);
    for (i = 0; i < service->n_methods; i++) {
        if (service->methods[i].client_streams || service->methods[i].server_streams) {
            emit_stream(out, service, i);
            emit_stream_async(out, service, i);
        } else {
            emit_unary(out, service, i);
            emit_async(out, service, i);
        }
        if (service->methods[i].client_streams) {
            emit_async_writes(out, &service->methods[i]);
        }
    }
}

void gen_emit_source(struct gen_text *out, const struct gen_file *file)
{
    struct gen_text comment = {0};
    struct gen_pool pool = {0};
    size_t i;

    gen_text_printf(&comment, "Generated by protoc-gen-grpc-c from %s.", file->name);
    out->failed = out->failed || comment.failed;
    gen_text_comment(out, 0, comment.data);
    gen_text_fini(&comment);
    gen_text_printf(out, "#include \"%s.grpc-c.h\"\n", file->base);
    for (i = 0; i < file->n_services; i++) {
        emit_service(out, &pool, &file->services[i]);
    }
    out->failed = out->failed || pool.failed;
    gen_pool_fini(&pool);
}
