/*
 * protoc-gen-grpc-c: what its files share.
 *
 * Data flows one way: main.c reads protoc's request (request.c), builds a model of each .proto with
 * every C name worked out (model.c, types.c, names.c), refuses what would not compile (check.c),
 * prints header and source (emit_header.c, emit_source.c) and writes protoc's answer (generate.c).
 *
 * Memory. Texts and pools remember that an allocation failed (`failed`) and turn every later call
 * into nothing, so that printing needs no checks; whoever uses the result asks once. The program
 * has one thread.
 */
#ifndef GRPC_C_PLUGIN_H
#define GRPC_C_PLUGIN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include <google/protobuf/compiler/plugin.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>

#define GEN_PRINTF(string, first) __attribute__((format(printf, string, first)))

typedef Google__Protobuf__Compiler__CodeGeneratorRequest gen_request_message;
typedef Google__Protobuf__FileDescriptorProto gen_file_proto;
typedef Google__Protobuf__DescriptorProto gen_message_proto;
typedef Google__Protobuf__ServiceDescriptorProto gen_service_proto;
typedef Google__Protobuf__MethodDescriptorProto gen_method_proto;

/* -- text.c: a growing buffer of C code ------------------------------------------------------ */

/* A zeroed one is an empty text. `data` is terminated, and NULL while nothing has been added. */
struct gen_text {
    char *data;
    size_t length;
    size_t capacity;
    bool failed; /* memory has run out; the text is incomplete */
};

void gen_text_fini(struct gen_text *text);
void gen_text_add(struct gen_text *text, const char *string, size_t length);
void gen_text_printf(struct gen_text *text, const char *format, ...) GEN_PRINTF(2, 3);
void gen_text_vprintf(struct gen_text *text, const char *format, va_list arguments)
    GEN_PRINTF(2, 0);

/*
 * Prints one declaration, definition or call and a newline, indented by `indent` columns. Where it
 * does not fit into a line, its last argument list is broken at the commas.
 */
void gen_text_wrapf(struct gen_text *text, unsigned indent, const char *format, ...)
    GEN_PRINTF(3, 4);

/*
 * The lines of a comment as the .proto has them, without opening and closing, so that more lines
 * can follow: each becomes "<indent> * line". What would end or nest the comment is broken up.
 */
void gen_text_comment_lines(struct gen_text *text, unsigned indent, const char *comment);

/* A whole comment block; one line where it fits, nothing where `comment` is NULL or blank. */
void gen_text_comment(struct gen_text *text, unsigned indent, const char *comment);

/* -- names.c: protoc-gen-c's names ----------------------------------------------------------- */

/* Strings that live until the pool is freed. A zeroed one is an empty pool. */
struct gen_pool {
    struct gen_chunk *chunks;
    bool failed; /* memory has run out; what was asked for since is "" */
};

void gen_pool_fini(struct gen_pool *pool);

/* Never NULL. */
const char *gen_pool_printf(struct gen_pool *pool, const char *format, ...) GEN_PRINTF(2, 3);

/*
 * The rules of protoc-gen-c 1.4.1 (protoc-c/c_helpers.cc: CamelToLower, FullNameToLower,
 * FullNameToC, StripProto), so that our names meet the ones in its headers.
 */
const char *gen_name_lower(struct gen_pool *pool, const char *name);      /* GetURL: get_url */
const char *gen_name_full_lower(struct gen_pool *pool, const char *full); /* a.FooBar: a__foo_bar */
const char *gen_name_full_camel(struct gen_pool *pool, const char *full); /* a.foo_bar: A__FooBar */
const char *gen_name_base(struct gen_pool *pool, const char *file);       /* a/b.proto: a/b */

/* The include guard of a file: a/b_c.proto has GRPC_C__A__B_C_H. */
const char *gen_name_guard(struct gen_pool *pool, const char *base);

/*
 * The name that protoc-gen-c builds C names from: `full` itself, or with the package replaced by
 * the file's `option (pb_c_file).c_package`.
 */
const char *gen_name_override(struct gen_pool *pool, const gen_file_proto *file, const char *full);

/* True for [A-Za-z_][A-Za-z0-9_]*, with `dots` also for several of them joined by dots. */
bool gen_name_valid(const char *name, bool dots);

/* -- wire.c: protobuf's wire format, as far as needed before and beside unpacking ------------ */

struct gen_wire {
    const uint8_t *data; /* what is left */
    size_t length;
};

struct gen_wire_field {
    uint32_t number;
    unsigned type;       /* 0 varint, 1 64 bits, 2 length-delimited, 5 32 bits */
    const uint8_t *data; /* of type 2 only, like length */
    size_t length;
};

/* Takes the next field off. Returns 1, 0 at the end, or -1 where the bytes are no such message. */
int gen_wire_next(struct gen_wire *wire, struct gen_wire_field *field);

/* -- request.c: what protoc sends ------------------------------------------------------------ */

struct gen_request {
    gen_request_message *message;
    size_t budget; /* bytes of heap that unpacking may still take */
    ProtobufCAllocator allocator;
};

/*
 * Reads and unpacks a request. The bytes are not trusted: neither their number, nor their nesting,
 * nor what they blow up to is without a limit. Returns 0, or -1 with the cause in `error`.
 * A request must not be moved afterwards, and is freed with gen_request_fini either way.
 */
int gen_request_read(struct gen_request *request, int fd, struct gen_text *error);
void gen_request_fini(struct gen_request *request);

/* -- types.c: every message type that the request describes ---------------------------------- */

struct gen_type {
    const char *full_name; /* ".a.b.Outer.Inner", as methods refer to it */
    const char *c_type;    /* A__B__Outer__Inner */
    const char *symbol;    /* a__b__outer__inner */
    bool nested;           /* protoc-gen-c emits no pack, unpack and free functions for it */
};

struct gen_types {
    struct gen_type *items; /* by full name */
    size_t count;
    size_t capacity;
};

/* Returns 0, or -1 where a message has no proper name or memory has run out. */
int gen_types_collect(struct gen_types *types, struct gen_pool *pool,
                      const gen_request_message *request, struct gen_text *error);
const struct gen_type *gen_types_find(const struct gen_types *types, const char *full_name);
void gen_types_fini(struct gen_types *types);

/* -- model.c: a .proto with its C names ------------------------------------------------------ */

struct gen_method {
    const char *name;    /* CompactSealed */
    const char *c_name;  /* compact_sealed */
    const char *symbol;  /* payloadstore__v1__payload_store__compact_sealed */
    const char *comment; /* the one that stands above it in the .proto; NULL: none */
    const struct gen_type *request;
    const struct gen_type *response;
    bool client_streams;
    bool server_streams;
};

struct gen_service {
    const char *name;      /* PayloadStore */
    const char *full_name; /* payloadstore.v1.PayloadStore */
    const char *symbol;    /* payloadstore__v1__payload_store */
    const char *comment;
    struct gen_method *methods;
    size_t n_methods;
};

struct gen_file {
    const char *name; /* payloadstore/v1/payload_store.proto */
    const char *base; /* payloadstore/v1/payload_store */
    const char *guard;
    struct gen_service *services;
    size_t n_services;
};

/*
 * Borrows `proto`, `types` and the pool's strings. Returns 0, or -1 with the cause in `error`; is
 * freed with gen_file_fini either way.
 */
int gen_file_init(struct gen_file *file, struct gen_pool *pool, const gen_file_proto *proto,
                  const struct gen_types *types, struct gen_text *error);
void gen_file_fini(struct gen_file *file);

/* -- check.c --------------------------------------------------------------------------------- */

/*
 * Refuses what protoc would let pass and the C compiler would not: names that clash with each other
 * or with what protoc-gen-c emits, and words that C has taken. Returns 0, or -1 with the cause.
 */
int gen_file_check(const struct gen_file *file, struct gen_pool *pool,
                   const struct gen_types *types, struct gen_text *error);

/* -- emit_header.c, emit_source.c ------------------------------------------------------------ */

void gen_emit_header(struct gen_text *out, const struct gen_file *file);
void gen_emit_source(struct gen_text *out, const struct gen_file *file);

/*
 * The first lines of a typed client function, which header and source must agree on, with `tail`
 * (";" or "") behind it.
 */
void gen_emit_sync(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_async(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_open(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_write(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_write_lent(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_read(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_stream_async(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_async_write(struct gen_text *out, const struct gen_method *method, const char *tail);
void gen_emit_async_write_lent(struct gen_text *out, const struct gen_method *method,
                               const char *tail);
void gen_emit_service_init(struct gen_text *out, const struct gen_service *service,
                           const char *tail);

/* -- generate.c ------------------------------------------------------------------------------ */

/*
 * Answers a request: puts a packed CodeGeneratorResponse into `answer`, with the files or with the
 * message that protoc is to show. Returns 0, or -1 where memory has run out.
 */
int gen_generate(struct gen_text *answer, const gen_request_message *request);

#endif
