/*
 * Reads what protoc sends.
 *
 * protobuf-c unpacks recursively without a limit, so that a request nested 12,000 deep overflows
 * the stack, and two bytes of an empty submessage become hundreds of bytes of heap. Both are
 * bounded here before and while it unpacks.
 */
#include "plugin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUEST_MAX ((size_t)256 << 20)

/* What unpacking may take of the heap: protoc's requests grow to about ten times their size. */
#define UNPACKED_BASE   ((size_t)32 << 20)
#define UNPACKED_FACTOR 32
#define UNPACKED_MAX    ((size_t)1 << 30)

enum { DEPTH_MAX = 100 }; /* what protobuf's own parsers take, protoc's among them */

/* -- the bytes ------------------------------------------------------------------------------- */

static int read_all(struct gen_text *input, int fd, struct gen_text *error)
{
    static char piece[65536];
    ssize_t got;

    while ((got = read(fd, piece, sizeof(piece))) != 0) {
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            gen_text_printf(error, "reading the request failed: %s", strerror(errno));
            return -1;
        }
        gen_text_add(input, piece, (size_t)got);
        if (input->failed) {
            gen_text_printf(error, "out of memory while reading the request");
            return -1;
        }
        if (input->length > REQUEST_MAX) {
            gen_text_printf(error, "the request is larger than %zu MiB", REQUEST_MAX >> 20);
            return -1;
        }
    }
    return 0;
}

/* -- before unpacking ------------------------------------------------------------------------ */

/*
 * Follows the fields that unpacking would follow, and recurses at most DEPTH_MAX deep itself.
 * Returns a cause where the bytes must not be unpacked, NULL where they may.
 */
static const char *scan(const ProtobufCMessageDescriptor *descriptor, struct gen_wire wire,
                        unsigned depth)
{
    struct gen_wire_field field;
    int rc;

    if (depth > DEPTH_MAX) {
        return "its messages are nested too deeply";
    }
    while ((rc = gen_wire_next(&wire, &field)) > 0) {
        const ProtobufCFieldDescriptor *known =
            protobuf_c_message_descriptor_get_field(descriptor, field.number);
        const char *cause;

        if (known == NULL || known->type != PROTOBUF_C_TYPE_MESSAGE ||
            field.type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
            continue;
        }
        cause = scan(known->descriptor, (struct gen_wire){field.data, field.length}, depth + 1);
        if (cause != NULL) {
            return cause;
        }
    }
    return rc < 0 ? "it is no CodeGeneratorRequest" : NULL;
}

/* -- unpacking ------------------------------------------------------------------------------- */

static void *budget_alloc(void *data, size_t size)
{
    struct gen_request *request = data;

    if (size > request->budget) {
        return NULL;
    }
    request->budget -= size;
    return malloc(size);
}

static void budget_free(void *data, void *pointer)
{
    (void)data;
    free(pointer);
}

static size_t budget_for(size_t input)
{
    size_t budget = UNPACKED_BASE + input * UNPACKED_FACTOR;

    return budget < UNPACKED_MAX ? budget : UNPACKED_MAX;
}

static int unpack(struct gen_request *request, const struct gen_text *input, struct gen_text *error)
{
    const ProtobufCMessageDescriptor *descriptor =
        &google__protobuf__compiler__code_generator_request__descriptor;
    struct gen_wire wire = {(const uint8_t *)input->data, input->length};
    const char *cause = scan(descriptor, wire, 1);

    if (cause == NULL) {
        request->budget = budget_for(input->length);
        request->allocator = (ProtobufCAllocator){budget_alloc, budget_free, request};
        request->message = google__protobuf__compiler__code_generator_request__unpack(
            &request->allocator, wire.length, wire.data);
        cause = "it is no CodeGeneratorRequest, or takes too much memory";
    }
    if (request->message == NULL) {
        gen_text_printf(error, "protoc sent a request that cannot be parsed: %s", cause);
        return -1;
    }
    return 0;
}

int gen_request_read(struct gen_request *request, int fd, struct gen_text *error)
{
    struct gen_text input = {0};
    int rc;

    *request = (struct gen_request){0};
    rc = read_all(&input, fd, error);
    if (rc == 0 && input.length == 0) {
        gen_text_printf(error, "the request is empty: this program is run by protoc, see --help");
        rc = -1;
    }
    if (rc == 0) {
        rc = unpack(request, &input, error);
    }
    gen_text_fini(&input);
    return rc;
}

void gen_request_fini(struct gen_request *request)
{
    if (request->message != NULL) {
        google__protobuf__compiler__code_generator_request__free_unpacked(request->message,
                                                                          &request->allocator);
    }
    *request = (struct gen_request){0};
}
