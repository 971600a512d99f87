/*
 * Unpacking with one `bytes` field left where it came. Its contents are cut out of the message at
 * the first level, protobuf-c gets what remains, and the pieces that they are in core's slices are
 * listed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include "codec.h"
#include "core.h"

#define STACK_REST 4096u
#define MANY       64u  /* slices, beyond which they have to be worth their list: */
#define LEAST_MEAN 512u /* bytes each, else they are put together */

struct grpc_c_received {
    grpc_byte_buffer *buffer;
    bool taken;
    size_t n;
    struct grpc_c_bytes *list;
    struct iovec pieces[];
};

/* One occurrence of the field, in bytes from the message's start. */
struct range {
    size_t from; /* its tag */
    size_t data;
    size_t to;
};

struct ranges {
    struct range *list;
    size_t n;
    size_t most; /* that the budget has memory for */
    size_t room;
    size_t bytes; /* of all, tags included */
};

/* -- reading across slices -------------------------------------------------------------------- */

struct reader {
    const grpc_slice_buffer *slices;
    size_t slice;  /* the one at */
    size_t offset; /* in it */
    size_t at;     /* in the message */
};

static void settle(struct reader *in)
{
    while (in->slice < in->slices->count &&
           in->offset >= GRPC_SLICE_LENGTH(in->slices->slices[in->slice])) {
        in->offset -= GRPC_SLICE_LENGTH(in->slices->slices[in->slice]);
        in->slice++;
    }
}

static bool skip(struct reader *in, size_t n)
{
    if (in->slices->length - in->at < n) {
        return false;
    }
    in->at += n;
    in->offset += n;
    settle(in);
    return true;
}

static bool read_varint(struct reader *in, unsigned max, uint64_t *value)
{
    uint64_t result = 0;

    for (unsigned i = 0; i < max && in->at < in->slices->length; i++) {
        uint8_t byte = GRPC_SLICE_START_PTR(in->slices->slices[in->slice])[in->offset];
        (void)skip(in, 1);
        result |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *value = result;
            return true;
        }
    }
    return false;
}

/* What lies next to each other, at most `n` bytes; not at the end. */
static struct iovec piece(const struct reader *in, size_t n)
{
    grpc_slice *slice = &in->slices->slices[in->slice];
    size_t left = GRPC_SLICE_LENGTH(*slice) - in->offset;

    return (struct iovec){GRPC_SLICE_START_PTR(*slice) + in->offset, left < n ? left : n};
}

static uint8_t *copy(struct reader *in, size_t n, uint8_t *out)
{
    while (n > 0) {
        struct iovec some = piece(in, n);
        memcpy(out, some.iov_base, some.iov_len);
        out += some.iov_len;
        n -= some.iov_len;
        (void)skip(in, some.iov_len);
    }
    return out;
}

/* -- finding the field ------------------------------------------------------------------------ */

static bool fail(struct gci_error *error, enum grpc_c_code code,
                 const ProtobufCMessageDescriptor *type, const char *what)
{
    error->code = code;
    (void)snprintf(error->text, sizeof(error->text), "%s: %s", type->name, what);
    return false;
}

static bool add_range(struct ranges *ranges, struct range range)
{
    if (ranges->n == ranges->room) {
        size_t room = ranges->room == 0 ? 4 : 2 * ranges->room;
        struct range *list = realloc(ranges->list, room * sizeof(*list));
        if (list == NULL) {
            return false;
        }
        ranges->list = list;
        ranges->room = room;
    }
    ranges->list[ranges->n++] = range;
    ranges->bytes += range.to - range.from;
    return true;
}

/* One field of any kind; as strict as wire.c, so that both see the same message. */
static bool skip_field(struct reader *in, uint64_t tag, size_t *data)
{
    uint64_t value;

    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(in, 10, &value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip(in, 8);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(in, 5, &value) || value > INT32_MAX) {
            return false;
        }
        *data = in->at;
        return skip(in, (size_t)value);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip(in, 4);
    default:
        return false;
    }
}

/* Two bytes on the wire can be a value: as protobuf-c's copies would be, they are held to a budget.
 */
static size_t values_most(size_t length, size_t overhead)
{
    size_t each = sizeof(struct range) + sizeof(struct grpc_c_bytes) + sizeof(struct iovec);

    return (overhead > SIZE_MAX - length ? SIZE_MAX : overhead + length) / each;
}

static bool too_many(struct gci_error *error, const ProtobufCMessageDescriptor *type, size_t length)
{
    char what[64];

    (void)snprintf(what, sizeof(what), "%zu bytes on the wire take too much memory", length);
    return fail(error, GRPC_C_RESOURCE_EXHAUSTED, type, what);
}

static bool find(const grpc_slice_buffer *slices, const ProtobufCMessageDescriptor *type,
                 uint32_t number, struct ranges *ranges, struct gci_error *error)
{
    uint64_t wanted = (uint64_t)number << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    struct reader in = {.slices = slices};

    settle(&in);
    while (in.at < slices->length) {
        struct range range = {.from = in.at};
        uint64_t tag;
        if (!read_varint(&in, 5, &tag) || !skip_field(&in, tag, &range.data)) {
            return fail(error, GRPC_C_INVALID_ARGUMENT, type, "malformed message");
        }
        range.to = in.at;
        if (tag == wanted && ranges->n == ranges->most) {
            return too_many(error, type, slices->length);
        }
        if (tag == wanted && !add_range(ranges, range)) {
            return fail(error, GRPC_C_RESOURCE_EXHAUSTED, type, "out of memory");
        }
    }
    return true;
}

/* -- the rest --------------------------------------------------------------------------------- */

static ProtobufCMessage *unpack_rest(const ProtobufCMessageDescriptor *type,
                                     const grpc_slice_buffer *slices, const struct ranges *ranges,
                                     size_t overhead, struct gci_error *error)
{
    uint8_t stack[STACK_REST];
    size_t length = slices->length - ranges->bytes;
    uint8_t *rest = length <= sizeof(stack) ? stack : malloc(length);
    struct reader in = {.slices = slices};
    ProtobufCMessage *message;
    uint8_t *out = rest;

    if (rest == NULL) {
        (void)fail(error, GRPC_C_RESOURCE_EXHAUSTED, type, "out of memory");
        return NULL;
    }
    settle(&in);
    for (size_t i = 0; i < ranges->n; i++) {
        out = copy(&in, ranges->list[i].from - in.at, out);
        (void)skip(&in, ranges->list[i].to - in.at);
    }
    (void)copy(&in, slices->length - in.at, out);
    message = gci_unpack_bytes(type, rest, length, overhead, error);
    if (rest != stack) {
        free(rest);
    }
    return message;
}

/* -- the pieces ------------------------------------------------------------------------------- */

/* `n` ranges; their pieces are at most as many more as there are slices. */
static grpc_c_received *list_pieces(grpc_byte_buffer *buffer, const struct range *ranges, size_t n)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    struct reader in = {.slices = slices};
    size_t most = n + slices->count;
    grpc_c_received *received = malloc(sizeof(*received) + most * sizeof(received->pieces[0]) +
                                       n * sizeof(received->list[0]));
    struct iovec *next;

    if (received == NULL) {
        return NULL;
    }
    *received = (grpc_c_received){.buffer = buffer, .n = n};
    next = received->pieces;
    received->list = (struct grpc_c_bytes *)(void *)(received->pieces + most);
    settle(&in);
    for (size_t i = 0; i < n; i++) {
        struct grpc_c_bytes *bytes = &received->list[i];
        (void)skip(&in, ranges[i].data - in.at);
        *bytes = (struct grpc_c_bytes){.pieces = next, .length = ranges[i].to - ranges[i].data};
        while (in.at < ranges[i].to) {
            *next = piece(&in, ranges[i].to - in.at);
            (void)skip(&in, next->iov_len);
            next++;
        }
        bytes->n_pieces = (size_t)(next - bytes->pieces);
    }
    return received;
}

/* A peer that sends single bytes is not to make us list them. */
static grpc_byte_buffer *put_together(grpc_byte_buffer *buffer)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    struct reader in = {.slices = slices};
    grpc_byte_buffer *one;
    grpc_slice slice;

    if (slices->count <= MANY || slices->length / slices->count >= LEAST_MEAN) {
        return buffer;
    }
    slice = grpc_slice_malloc(slices->length);
    settle(&in);
    (void)copy(&in, slices->length, GRPC_SLICE_START_PTR(slice));
    one = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_byte_buffer_destroy(buffer);
    return one;
}

ProtobufCMessage *gci_unpack_around(const ProtobufCMessageDescriptor *type,
                                    const ProtobufCFieldDescriptor *field, grpc_byte_buffer *buffer,
                                    size_t overhead, grpc_c_received **received,
                                    struct gci_error *error)
{
    struct ranges ranges = {.list = NULL};
    ProtobufCMessage *message = NULL;
    size_t hidden; /* of a field that is not repeated the last one counts */

    GCI_CHECK(!gci_is_compressed(buffer));
    *received = NULL;
    buffer = put_together(buffer);
    ranges.most = values_most(buffer->data.raw.slice_buffer.length, overhead);
    if (find(&buffer->data.raw.slice_buffer, type, field->id, &ranges, error)) {
        message = unpack_rest(type, &buffer->data.raw.slice_buffer, &ranges, overhead, error);
    }
    if (message != NULL) {
        hidden = field->label == PROTOBUF_C_LABEL_REPEATED || ranges.n == 0 ? 0 : ranges.n - 1;
        *received = list_pieces(buffer, hidden == 0 ? ranges.list : ranges.list + hidden,
                                ranges.n - hidden);
    }
    free(ranges.list);
    if (*received != NULL) {
        return message;
    }
    grpc_byte_buffer_destroy(buffer);
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
        (void)fail(error, GRPC_C_RESOURCE_EXHAUSTED, type, "out of memory");
    }
    return NULL;
}

/* -- what was received ------------------------------------------------------------------------ */

void gci_received_take(grpc_c_received *received)
{
    received->taken = true;
    gci_library_hold(); /* it may outlive the server */
}

bool grpc_c_received_bytes(const grpc_c_received *received, size_t i, struct grpc_c_bytes *bytes)
{
    if (received == NULL || i >= received->n) {
        return false;
    }
    *bytes = received->list[i];
    return true;
}

size_t grpc_c_received_size(const grpc_c_received *received)
{
    return received == NULL ? 0 : received->buffer->data.raw.slice_buffer.length;
}

void grpc_c_received_release(grpc_c_received *received)
{
    bool taken;

    if (received == NULL) {
        return;
    }
    taken = received->taken;
    grpc_byte_buffer_destroy(received->buffer);
    free(received);
    if (taken) {
        gci_library_release();
    }
}
