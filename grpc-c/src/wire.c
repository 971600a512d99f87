/*
 * One walk over a message's wire form, guided by its descriptor, before protobuf-c unpacks it.
 *
 * It need not find every malformed message, protobuf-c does that; it must never step over a string
 * or a nested message that protobuf-c would see. So lengths and tags are read as protobuf-c reads
 * them, and refused wherever the two could differ.
 */
#include <stdio.h>
#include <string.h>

#include "codec.h"

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

struct walk {
    const ProtobufCMessageDescriptor *plain; /* the last type found to hold nothing to check */
    struct gci_error *error;
};

/* `field` may be NULL: the message as a whole. */
static bool refuse(struct walk *walk, const ProtobufCMessageDescriptor *type,
                   const ProtobufCFieldDescriptor *field, const char *what)
{
    walk->error->code = GRPC_C_INVALID_ARGUMENT;
    (void)snprintf(walk->error->text, sizeof(walk->error->text), "%s%s%s: %s", type->name,
                   field == NULL ? "" : ".", field == NULL ? "" : field->name, what);
    return false;
}

static bool malformed(struct walk *walk, const ProtobufCMessageDescriptor *type)
{
    return refuse(walk, type, NULL, "malformed message");
}

/* A varint of at most `max` bytes. */
static bool read_varint(struct cursor *in, unsigned max, uint64_t *value)
{
    uint64_t result = 0;

    for (unsigned i = 0; i < max && in->at < in->end; i++) {
        uint8_t byte = *in->at++;
        result |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *value = result;
            return true;
        }
    }
    return false;
}

static bool skip_bytes(struct cursor *in, size_t n)
{
    if ((size_t)(in->end - in->at) < n) {
        return false;
    }
    in->at += n;
    return true;
}

static bool continuation(const uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return false;
        }
    }
    return true;
}

/* Bytes of the one character at `at` beyond ASCII, 0 where it is none (RFC 3629, table 3-7). */
static size_t utf8_sequence(const uint8_t *at, size_t left)
{
    uint8_t a = at[0];
    uint8_t b = left > 1 ? at[1] : 0;

    if (a >= 0xc2 && a <= 0xdf) {
        return left >= 2 && continuation(at + 1, 1) ? 2 : 0;
    }
    if ((a & 0xf0) == 0xe0) {
        bool surrogate = a == 0xed && b > 0x9f;
        bool overlong = a == 0xe0 && b < 0xa0;
        return left >= 3 && continuation(at + 1, 2) && !surrogate && !overlong ? 3 : 0;
    }
    if (a >= 0xf0 && a <= 0xf4) {
        bool beyond = a == 0xf4 && b > 0x8f;
        bool overlong = a == 0xf0 && b < 0x90;
        return left >= 4 && continuation(at + 1, 3) && !beyond && !overlong ? 4 : 0;
    }
    return 0;
}

static bool utf8_valid(const uint8_t *at, size_t n)
{
    size_t i = 0;

    while (i < n) {
        size_t step = at[i] < 0x80 ? 1 : utf8_sequence(at + i, n - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

static bool check_string(struct walk *walk, const ProtobufCMessageDescriptor *type,
                         const ProtobufCFieldDescriptor *field, const uint8_t *at, size_t n)
{
    if (memchr(at, '\0', n) != NULL) {
        return refuse(walk, type, field, "holds a NUL character");
    }
    if (!utf8_valid(at, n)) {
        return refuse(walk, type, field, "not valid UTF-8");
    }
    return true;
}

/* Whether nothing in a message of this type needs a look: no strings, no messages. */
static bool is_plain(struct walk *walk, const ProtobufCMessageDescriptor *type)
{
    if (type == walk->plain) {
        return true;
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        ProtobufCType kind = type->fields[i].type;
        if (kind == PROTOBUF_C_TYPE_STRING || kind == PROTOBUF_C_TYPE_MESSAGE) {
            return false;
        }
    }
    walk->plain = type;
    return true;
}

static bool check_message(struct walk *walk, const ProtobufCMessageDescriptor *type,
                          struct cursor in, unsigned depth);

static bool check_delimited(struct walk *walk, const ProtobufCMessageDescriptor *type,
                            uint32_t number, struct cursor *in, unsigned depth)
{
    const ProtobufCFieldDescriptor *field;
    const uint8_t *start;
    uint64_t length;

    if (!read_varint(in, 5, &length) || length > INT32_MAX) {
        return malformed(walk, type);
    }
    start = in->at;
    if (!skip_bytes(in, (size_t)length)) {
        return malformed(walk, type);
    }
    field = protobuf_c_message_descriptor_get_field(type, number);
    if (field == NULL) {
        return true;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        return check_string(walk, type, field, start, (size_t)length);
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return check_message(walk, field->descriptor, (struct cursor){start, in->at}, depth + 1);
    }
    return true;
}

static bool check_field(struct walk *walk, const ProtobufCMessageDescriptor *type,
                        struct cursor *in, unsigned depth)
{
    uint64_t tag;
    bool ok = false;

    if (!read_varint(in, 5, &tag) || tag >> 3 == 0) {
        return malformed(walk, type);
    }
    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT: {
        uint64_t ignored;
        ok = read_varint(in, 10, &ignored);
        break;
    }
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        ok = skip_bytes(in, 8);
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return check_delimited(walk, type, (uint32_t)(tag >> 3), in, depth);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        ok = skip_bytes(in, 4);
        break;
    default: /* groups, which protobuf-c does not know */
        break;
    }
    return ok || malformed(walk, type);
}

static bool check_message(struct walk *walk, const ProtobufCMessageDescriptor *type,
                          struct cursor in, unsigned depth)
{
    if (depth > GCI_MAX_NESTING) {
        return refuse(walk, type, NULL, "nested too deep");
    }
    if (is_plain(walk, type)) {
        return true;
    }
    while (in.at < in.end) {
        if (!check_field(walk, type, &in, depth)) {
            return false;
        }
    }
    return true;
}

bool gci_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t length,
                    struct gci_error *error)
{
    struct walk walk = {NULL, error};

    return check_message(&walk, type, (struct cursor){data, data + length}, 0);
}
