/*
 * Prints the header of a .proto: for each service the struct of its handlers, then for each rpc
 * what a server answers with and what a client calls.
 */
#include "plugin.h"

#include <string.h>

static const char *shape_words(const struct gen_method *method)
{
    if (method->client_streams) {
        return method->server_streams ? "a stream of messages in, a stream of messages out"
                                      : "a stream of messages in, one message out";
    }
    return method->server_streams ? "one message in, a stream of messages out"
                                  : "one message in, one message out";
}

/* -- the struct of handlers ------------------------------------------------------------------ */

static void emit_handler(struct gen_text *out, const struct gen_method *method)
{
    gen_text_comment(out, 4, method->comment);
    if (!method->client_streams) {
        gen_text_wrapf(out, 4, "void (*%s)(grpc_c_call *call, const %s *request, void *user);",
                       method->c_name, method->request->c_type);
        return;
    }
    gen_text_wrapf(out, 4, "void (*%s)(grpc_c_call *call, void *user);", method->c_name);
    gen_text_wrapf(out, 4, "void (*%s__message)(grpc_c_call *call, const %s *request, void *user);",
                   method->c_name, method->request->c_type);
}

static void emit_handlers_comment(struct gen_text *out, const struct gen_service *service)
{
    bool streams = false;
    size_t i;

    for (i = 0; i < service->n_methods; i++) {
        streams = streams || service->methods[i].client_streams;
    }
    gen_text_printf(out, "/*\n");
    if (service->comment != NULL && service->comment[strspn(service->comment, " \r\n\t")] != '\0') {
        gen_text_comment_lines(out, 0, service->comment);
        gen_text_printf(out, " *\n");
    }
    gen_text_printf(out,
                    " * A server's handlers: each is called when a call of its rpc has arrived,"
                    " and owns the call until\n"
                    " * it has finished it (grpc-c/server.h). Where one is NULL, callers get"
                    " UNIMPLEMENTED.\n");
    if (streams) {
        gen_text_printf(
            out, " * Where the client streams, `x` is called at the beginning, and after each"
                 " grpc_c_call_read\n"
                 " * `x__message` with the next message, or with NULL once at the end of the"
                 " stream.\n");
    }
    gen_text_printf(out, " */\n");
}

static void emit_handlers(struct gen_text *out, const struct gen_service *service)
{
    size_t i;

    emit_handlers_comment(out, service);
    gen_text_printf(out, "struct %s_handlers {\n", service->symbol);
    for (i = 0; i < service->n_methods; i++) {
        emit_handler(out, &service->methods[i]);
    }
    gen_text_printf(out, "    void *user; /* given to each handler */\n};\n\n");
}

static void emit_service(struct gen_text *out, const struct gen_service *service)
{
    gen_text_printf(out, "/* The paths, shapes and message types of %s. */\n", service->full_name);
    gen_text_printf(out, "extern const struct grpc_c_service %s__service;\n\n", service->symbol);
    gen_text_printf(out,
                    "/*\n"
                    " * Adds the service to a server that has not been started. `handlers` is"
                    " borrowed until\n"
                    " * grpc_c_server_destroy. Returns 0, or -1: see grpc_c_server_add_service.\n"
                    " */\n");
    gen_emit_service_init(out, service, ";");
    gen_text_printf(out, "\n");
}

/* -- what a server answers with -------------------------------------------------------------- */

static void emit_reply(struct gen_text *out, const struct gen_method *method)
{
    const char *response = method->response->c_type;

    gen_text_printf(out, "/* Finishes the call with one message and status OK. */\n");
    gen_text_wrapf(out, 0, "static inline bool %s__reply(grpc_c_call *call, const %s *response)",
                   method->symbol, response);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(out, 4, "return grpc_c_call_reply(call, (const ProtobufCMessage *)response);");
    gen_text_printf(out, "}\n\n");

    gen_text_printf(out, "/* The same, with `bytes` fields sent from the memory they lie in; see "
                         "grpc-c/bytes.h. */\n");
    gen_text_wrapf(out, 0,
                   "static inline bool %s__reply_lent(grpc_c_call *call, const %s *response, "
                   "const struct grpc_c_lent *lent, size_t n_lent)",
                   method->symbol, response);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(
        out, 4,
        "return grpc_c_call_reply_lent(call, (const ProtobufCMessage *)response, lent, n_lent);");
    gen_text_printf(out, "}\n\n");
}

static void emit_send(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out, "/* Sends one message; see grpc_c_call_write. The stream ends "
                         "with grpc_c_call_finish. */\n");
    gen_text_wrapf(out, 0,
                   "static inline bool %s__send(grpc_c_call *call, const %s *message, "
                   "void (*on_written)(grpc_c_call *call, void *arg), void *arg)",
                   method->symbol, method->response->c_type);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(
        out, 4,
        "return grpc_c_call_write(call, (const ProtobufCMessage *)message, on_written, arg);");
    gen_text_printf(out, "}\n\n");

    gen_text_printf(out, "/* The same, with `bytes` fields sent from the memory they lie in; see "
                         "grpc-c/bytes.h. */\n");
    gen_text_wrapf(out, 0,
                   "static inline bool %s__send_lent(grpc_c_call *call, const %s *message, "
                   "const struct grpc_c_lent *lent, size_t n_lent, "
                   "void (*on_written)(grpc_c_call *call, void *arg), void *arg)",
                   method->symbol, method->response->c_type);
    gen_text_printf(out, "{\n");
    gen_text_wrapf(
        out, 4,
        "return grpc_c_call_write_lent(call, (const ProtobufCMessage *)message, lent, n_lent, "
        "on_written, arg);");
    gen_text_printf(out, "}\n\n");
}

/* -- what a client calls --------------------------------------------------------------------- */

/* How a message that a client was given is freed. */
static void print_free(struct gen_text *out, const struct gen_type *type)
{
    if (type->nested) {
        gen_text_printf(out, "protobuf_c_message_free_unpacked");
    } else {
        gen_text_printf(out, "%s__free_unpacked", type->symbol);
    }
}

static void emit_unary_client(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out,
                    "/*\n * Calls %s and waits for the answer: NULL exactly where result->code"
                    " is not GRPC_C_OK.\n * `options` may be NULL. Freed with ",
                    method->name);
    print_free(out, method->response);
    gen_text_printf(out, ";\n * `result` with grpc_c_result_fini.\n */\n");
    gen_emit_sync(out, method, ";");
    gen_text_printf(out, "\n/* Gets the answer, which it frees, and the result, which it does not;"
                         " on the channel's thread. */\n");
    gen_text_wrapf(out, 0,
                   "typedef void (*%s__done)(%s *response, const struct grpc_c_result *result, "
                   "void *arg);",
                   method->symbol, method->response->c_type);
    gen_text_printf(out, "\n/*\n * The same call without waiting. Returns 0, or -1 where memory has"
                         " run out and `done` is not\n * called. `handle` may be NULL; see"
                         " grpc_c_unary_async.\n */\n");
    gen_emit_async(out, method, ";");
    gen_text_printf(out, "\n");
}

static void emit_lent_comment(struct gen_text *out)
{
    gen_text_printf(out, "\n/* The same, with `bytes` fields sent from the memory they lie in; see "
                         "grpc-c/bytes.h. */\n");
}

static void emit_stream_client(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out,
                    "/* Calls %s; NULL where memory has run out. The call ends with "
                    "grpc_c_stream_finish. */\n",
                    method->name);
    gen_emit_open(out, method, ";");
    gen_text_printf(out, "\n");
    gen_text_printf(out,
                    "/* Sends %s; grpc_c_stream_writes_done follows%s. "
                    "0, or -1: the call is over. */\n",
                    method->client_streams ? "one message" : "the one request",
                    method->client_streams ? " the last" : "");
    gen_emit_write(out, method, ";");
    emit_lent_comment(out);
    gen_emit_write_lent(out, method, ";");
    gen_text_printf(out,
                    "\n/*\n * Waits for %s message: NULL at the end, the reason of which"
                    " grpc_c_stream_finish tells.\n * Freed with ",
                    method->server_streams ? "the next" : "the one");
    print_free(out, method->response);
    gen_text_printf(out, ".\n */\n");
    gen_emit_read(out, method, ";");
    gen_text_printf(out, "\n");
}

static void emit_events(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out,
                    "/* What happens on a call of %s that is not waited for; see "
                    "grpc-c/client.h. */\nstruct %s__events {\n",
                    method->name, method->symbol);
    gen_text_wrapf(out, 4,
                   "void (*on_headers)(grpc_c_async_stream *stream, "
                   "const struct grpc_c_metadata *headers, size_t n, void *user);");
    if (method->server_streams) {
        gen_text_wrapf(out, 4,
                       "void (*on_message)(grpc_c_async_stream *stream, %s *message, void *user);",
                       method->response->c_type);
    }
    if (method->client_streams) {
        gen_text_wrapf(out, 4,
                       "void (*on_written)(grpc_c_async_stream *stream, bool taken, void *user);");
    }
    gen_text_wrapf(out, 4,
                   "void (*on_done)(grpc_c_async_stream *stream, %s%sconst struct grpc_c_result "
                   "*result, void *user);",
                   method->server_streams ? "" : method->response->c_type,
                   method->server_streams ? "" : " *response, ");
    gen_text_printf(out, "};\n\n");
}

static void emit_stream_async_client(struct gen_text *out, const struct gen_method *method)
{
    emit_events(out, method);
    gen_text_printf(out,
                    "/*\n * The same call without waiting. NULL where memory has run out, or the"
                    " channel is being\n * destroyed; else on_done comes once, and the stream must"
                    " be released (grpc_c_async_release).\n */\n");
    gen_emit_stream_async(out, method, ";");
    gen_text_printf(out, "\n");
    if (!method->client_streams) {
        return;
    }
    gen_text_printf(out, "/*\n * Sends one message, behind those that wait. Returns 0, and"
                         " on_written follows; or -1 where the\n * call is over or memory has run"
                         " out.\n */\n");
    gen_emit_async_write(out, method, ";");
    emit_lent_comment(out);
    gen_emit_async_write_lent(out, method, ";");
    gen_text_printf(out, "\n");
}

static void emit_method(struct gen_text *out, const struct gen_method *method)
{
    gen_text_printf(out, "/* -- %s: %s -- */\n\n", method->name, shape_words(method));
    if (method->server_streams) {
        emit_send(out, method);
    } else {
        emit_reply(out, method);
    }
    if (method->client_streams || method->server_streams) {
        emit_stream_client(out, method);
        emit_stream_async_client(out, method);
    } else {
        emit_unary_client(out, method);
    }
}

/* -- the file -------------------------------------------------------------------------------- */

static void emit_top(struct gen_text *out, const struct gen_file *file)
{
    struct gen_text comment = {0};

    gen_text_printf(&comment,
                    "%s %s.\nGenerated by protoc-gen-grpc-c: changes made here will be lost.",
                    file->n_services != 0 ? "Servers and clients of the services in"
                                          : "There are no services in",
                    file->name);
    out->failed = out->failed || comment.failed;
    gen_text_comment(out, 0, comment.data);
    gen_text_fini(&comment);
    gen_text_printf(out, "#ifndef %s\n#define %s\n\n", file->guard, file->guard);
    if (file->n_services != 0) {
        gen_text_printf(out, "#include <stdbool.h>\n#include <stddef.h>\n\n");
    }
    /* In alphabetical order, as a person would have them. */
    if (strcmp(file->base, "grpc-c/grpc-c") < 0) {
        gen_text_printf(out, "#include \"%s.pb-c.h\"\n", file->base);
    }
    gen_text_printf(out, "#include \"grpc-c/grpc-c.h\"\n");
    if (strcmp(file->base, "grpc-c/grpc-c") >= 0) {
        gen_text_printf(out, "#include \"%s.pb-c.h\"\n", file->base);
    }
    gen_text_printf(out, "\n");
}

void gen_emit_header(struct gen_text *out, const struct gen_file *file)
{
    size_t i;
    size_t j;

    emit_top(out, file);
    if (file->n_services != 0) {
        gen_text_printf(out, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    }
    for (i = 0; i < file->n_services; i++) {
        emit_handlers(out, &file->services[i]);
        emit_service(out, &file->services[i]);
        for (j = 0; j < file->services[i].n_methods; j++) {
            emit_method(out, &file->services[i].methods[j]);
        }
    }
    if (file->n_services != 0) {
        gen_text_printf(out, "#ifdef __cplusplus\n}\n#endif\n\n");
    }
    gen_text_printf(out, "#endif\n");
}
