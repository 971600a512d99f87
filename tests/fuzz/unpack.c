/*
 * Messages as they come from a peer, of several types, in one piece or many, within a budget:
 *
 *   byte 0  the type
 *   byte 1  the budget
 *   byte 2  the length of the pieces; 0: one
 *   then    the message
 *
 * What is taken has clean strings and took no more heap than it may; packed again, plainly and with
 * lent ranges, it is the same message. Without a budget, one bytes field is left where it came,
 * too, which takes the same messages and finds the same in them.
 */
#include <malloc.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>

#include "codec.h"
#include "core.h"
#include "echo.pb-c.h"
#include "fuzz.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "payloadstore/v1/payload_store.pb-c.h"

#define HEAD     3
#define LENT_MAX 12 /* above what gci_pack_lent keeps on the stack */
#define SLOP     64 /* an allocation that is refused may have been made for a moment */

static const ProtobufCMessageDescriptor *const types[] = {
    &grpcc__test__echo_request__descriptor,
    &grpcc__test__echo_response__descriptor,
    &grpcc__test__loose__descriptor,
    &payloadstore__v1__append_request__descriptor,
    &payloadstore__v1__append_stream_request__descriptor,
    &payloadstore__v1__read_stream_request__descriptor,
    &payloadstore__v1__read_stream_response__descriptor, /* a oneof */
    &payloadstore__v1__compact_sealed_request__descriptor,
    &google__rpc__status__descriptor,
    &google__rpc__error_info__descriptor, /* a map */
    &grpc__reflection__v1__server_reflection_request__descriptor,
    &grpc__reflection__v1__server_reflection_response__descriptor,
    &grpc__health__v1__health_check_request__descriptor,
    &google__protobuf__file_descriptor_proto__descriptor, /* proto2: required, packed, defaults */
};

static const size_t budgets[] = {0, 100, 1000, 10000, 100000, (size_t)32 << 20, SIZE_MAX};

/* -- a message's insides, along its descriptor ------------------------------------------------ */

struct bytes_seen {
    struct grpc_c_lent lent[LENT_MAX];
    size_t n;
    bool has_field_0; /* which nobody reads again */
};

static unsigned released;

static void release(void *arg)
{
    (void)arg;
    released++;
}

static void check_string(const char *string, const char *otherwise)
{
    if (string == NULL || string == otherwise || string == protobuf_c_empty_string) {
        return;
    }
    insist(is_utf8((const uint8_t *)string, strlen(string)));
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
    insist(malloc_usable_size((void *)string) == strlen(string) + 1); /* nothing was cut off */
#endif
}

static void look_into(const ProtobufCMessage *message, unsigned depth, struct bytes_seen *seen);

static void look_at(const ProtobufCFieldDescriptor *field, const void *value, unsigned depth,
                    struct bytes_seen *seen)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        check_string(*(char *const *)value, field->default_value);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *inner = *(ProtobufCMessage *const *)value;
        if (inner != NULL) {
            look_into(inner, depth + 1, seen);
        }
    } else if (field->type == PROTOBUF_C_TYPE_BYTES && seen->n < LENT_MAX) {
        const ProtobufCBinaryData *bytes = value;
        seen->lent[seen->n++] = (struct grpc_c_lent){bytes->data, bytes->len, release, NULL};
    }
}

static size_t size_of(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : sizeof(void *);
}

/*
 * protobuf-c takes a field numbered 0 whose tag is overlong, and keeps it. The shim's walk refuses
 * it; but it passes over messages that hold neither strings nor messages.
 */
static void look_at_unknown(const ProtobufCMessage *message, struct bytes_seen *seen)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        if (message->unknown_fields[i].tag != 0) {
            continue;
        }
        seen->has_field_0 = true;
        for (unsigned j = 0; j < message->descriptor->n_fields; j++) {
            ProtobufCType kind = message->descriptor->fields[j].type;
            insist(kind != PROTOBUF_C_TYPE_STRING && kind != PROTOBUF_C_TYPE_MESSAGE);
        }
    }
}

static void look_into(const ProtobufCMessage *message, unsigned depth, struct bytes_seen *seen)
{
    insist(depth <= GCI_MAX_NESTING);
    look_at_unknown(message, seen);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const uint8_t *base = (const uint8_t *)message;
        const uint8_t *at = base + field->offset;
        bool has_parts = field->type == PROTOBUF_C_TYPE_STRING ||
                         field->type == PROTOBUF_C_TYPE_MESSAGE ||
                         field->type == PROTOBUF_C_TYPE_BYTES;
        if (!has_parts) {
            continue;
        }
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
            const uint8_t *array = *(uint8_t *const *)(const void *)at;
            for (size_t j = 0; j < n; j++) {
                look_at(field, array + j * size_of(field), depth, seen);
            }
        } else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
                   *(const uint32_t *)(const void *)(base + field->quantifier_offset) ==
                       field->id) {
            look_at(field, at, depth, seen);
        }
    }
}

/* -- packing again ---------------------------------------------------------------------------- */

static bool same(const grpc_byte_buffer *a, grpc_byte_buffer *b)
{
    grpc_byte_buffer_reader reader;
    grpc_slice whole;
    bool equal;

    insist(grpc_byte_buffer_reader_init(&reader, b) == 1);
    whole = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    equal = grpc_slice_eq(whole, a->data.raw.slice_buffer.slices[0]) != 0;
    grpc_slice_unref(whole);
    return equal;
}

static void check_lent(const ProtobufCMessage *message, const struct bytes_seen *seen,
                       const grpc_byte_buffer *packed)
{
    grpc_byte_buffer *lent;

    released = 0;
    lent = gci_pack_lent(message, seen->lent, seen->n);
    insist(same(packed, lent));
    grpc_byte_buffer_destroy(lent);
    insist(released == seen->n);
}

static void check_again(const ProtobufCMessage *message, const struct bytes_seen *seen)
{
    struct gci_error error;
    grpc_byte_buffer *packed = gci_pack(message);
    grpc_byte_buffer *repacked;
    ProtobufCMessage *again;

    check_lent(message, seen, packed);
    if (seen->has_field_0) {
        grpc_byte_buffer_destroy(packed);
        return;
    }
    again = gci_unpack(message->descriptor, grpc_byte_buffer_copy(packed), SIZE_MAX, &error);
    insist(again != NULL);
    repacked = gci_pack(again);
    insist(same(packed, repacked));
    grpc_byte_buffer_destroy(repacked);
    grpc_byte_buffer_destroy(packed);
    protobuf_c_message_free_unpacked(again, NULL);
}

/* -- the target ------------------------------------------------------------------------------- */

static grpc_byte_buffer *in_pieces(const uint8_t *data, size_t size, size_t piece)
{
    grpc_slice slices[256];
    size_t n = 0;
    grpc_byte_buffer *buffer;

    piece = piece == 0 || size / piece >= 256 ? size : piece;
    do {
        size_t length = piece < size ? piece : size;
        slices[n++] = grpc_slice_from_copied_buffer((const char *)data, length);
        data += length;
        size -= length;
    } while (size > 0);
    buffer = grpc_raw_byte_buffer_create(slices, n);
    while (n > 0) {
        grpc_slice_unref(slices[--n]);
    }
    return buffer;
}

/* The first bytes field that could be left where it was received; NULL: none. */
static const ProtobufCFieldDescriptor *bytes_of(const ProtobufCMessageDescriptor *type)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (type->fields[i].type == PROTOBUF_C_TYPE_BYTES &&
            (type->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0) {
            return &type->fields[i];
        }
    }
    return NULL;
}

static void check_pieces(const struct grpc_c_bytes *bytes, const ProtobufCBinaryData *plain)
{
    size_t at = 0;

    insist(bytes->length == plain->len);
    for (size_t i = 0; i < bytes->n_pieces; i++) {
        const struct iovec *piece = &bytes->pieces[i];
        insist(piece->iov_len > 0 && piece->iov_len <= plain->len - at);
        insist(memcmp(piece->iov_base, plain->data + at, piece->iov_len) == 0);
        at += piece->iov_len;
    }
    insist(at == plain->len);
}

/* Takes the buffer; `plain` is what the plain way made of the same, NULL: nothing. */
static void check_around(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
                         const ProtobufCMessage *plain)
{
    const ProtobufCFieldDescriptor *field = bytes_of(type);
    grpc_c_received *received = NULL;
    struct grpc_c_bytes bytes;
    struct gci_error error;
    ProtobufCMessage *around = gci_unpack_around(type, field, buffer, SIZE_MAX, &received, &error);

    insist((around != NULL) == (plain != NULL));
    if (around == NULL) {
        return;
    }
    const uint8_t *base = (const uint8_t *)plain;
    const void *at = base + field->offset;
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    size_t n = repeated ? *(const size_t *)(const void *)(base + field->quantifier_offset) : 1;
    const ProtobufCBinaryData *values = repeated ? *(ProtobufCBinaryData *const *)at : at;
    for (size_t i = 0; i < n; i++) {
        bool there = grpc_c_received_bytes(received, i, &bytes);
        insist(there || (!repeated && values[i].len == 0));
        if (there) {
            check_pieces(&bytes, &values[i]);
        }
    }
    insist(!grpc_c_received_bytes(received, n, &bytes));
    protobuf_c_message_free_unpacked(around, NULL);
    grpc_c_received_release(received);
}

static void check_refusal(const ProtobufCMessageDescriptor *type, const struct gci_error *error,
                          bool passes, size_t budget)
{
    if (!passes) {
        insist(error->code == GRPC_C_INVALID_ARGUMENT);
    }
    insist(error->code == GRPC_C_INVALID_ARGUMENT ||
           (error->code == GRPC_C_RESOURCE_EXHAUSTED && budget < SIZE_MAX));
    /* names the message that is wrong, which may be one inside */
    insist(strchr(error->text, ':') != NULL);
    insist(error->code != GRPC_C_RESOURCE_EXHAUSTED || strstr(error->text, type->name) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct input in = {data, size};
    const ProtobufCMessageDescriptor *type =
        types[take_byte(&in) % (sizeof(types) / sizeof(types[0]))];
    size_t budget = budgets[take_byte(&in) % (sizeof(budgets) / sizeof(budgets[0]))];
    size_t piece = take_byte(&in);
    struct bytes_seen seen = {.n = 0};
    struct gci_error error = {0};
    ProtobufCMessage *message;
    grpc_byte_buffer *buffer;
    bool passes;

    if (!ready) {
        gci_library_hold();
        ready = true;
    }
    passes = gci_wire_check(type, in.at, in.left, &error);
    insist(passes || error.code == GRPC_C_INVALID_ARGUMENT);
    buffer = in_pieces(in.at, in.left, piece);
    heap_mark();
    message = gci_unpack(type, buffer, budget, &error);
    if (budget < SIZE_MAX) { /* the message put together counts beside what is made of it */
        insist(heap_most() <= budget + 2 * in.left + SLOP);
    }
    if (budget == SIZE_MAX && bytes_of(type) != NULL) {
        check_around(type, in_pieces(in.at, in.left, piece), message);
    }
    if (message == NULL) {
        check_refusal(type, &error, passes, budget);
        return 0;
    }
    insist(passes && protobuf_c_message_check(message));
    look_into(message, 0, &seen);
    check_again(message, &seen);
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}

/* The first bytes say how to read the others. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    if (size <= HEAD || seed % 8 == 0) {
        return LLVMFuzzerMutate(data, size, max);
    }
    return HEAD + mutate_message(data + HEAD, size - HEAD, max - HEAD, 0, seed / 8);
}
