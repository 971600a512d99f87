/*
 * Changes messages so that they mostly stay messages: libFuzzer's own changes seldom leave the
 * lengths of what encloses them right, and reach little beyond the first check.
 */
#include "fuzz.h"

#define FIELDS_MAX 512
#define DEPTH_MAX  12
#define HEAD_MAX   10u /* bytes of a tag and a length, each as short as can be */

/* One field as it lies in the message. */
struct field {
    const uint8_t *at;
    const uint8_t *content; /* of a length-delimited one */
    size_t size;            /* all of it */
    size_t length;          /* of the content */
    uint64_t tag;
};

static uint32_t chance(unsigned *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

/* -- reading ---------------------------------------------------------------------------------- */

static bool get_varint(struct input *in, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned byte;
        if (in->left == 0) {
            return false;
        }
        byte = take_byte(in);
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool get_field(struct input *in, struct field *field)
{
    uint64_t value = 0;
    size_t wanted = 0;
    size_t got = 0;

    *field = (struct field){.at = in->at};
    if (!get_varint(in, &field->tag)) {
        return false;
    }
    switch (field->tag & 7) {
    case 0:
        if (!get_varint(in, &value)) {
            return false;
        }
        break;
    case 1:
        wanted = 8;
        break;
    case 2:
        if (!get_varint(in, &value) || value > in->left) {
            return false;
        }
        wanted = (size_t)value;
        break;
    case 5:
        wanted = 4;
        break;
    default:
        return false;
    }
    field->content = take(in, wanted, &got);
    field->length = got;
    field->size = (size_t)(in->at - field->at);
    return got == wanted;
}

/* The number of fields; 0 where these bytes are no message, or one with too many. */
static size_t get_fields(const uint8_t *data, size_t size, struct field *fields)
{
    struct input in = {data, size};
    size_t n = 0;

    while (in.left > 0) {
        if (n == FIELDS_MAX || !get_field(&in, &fields[n])) {
            return 0;
        }
        n++;
    }
    return n;
}

/* -- writing ---------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *out, const void *bytes, size_t n)
{
    memcpy(out, bytes, n);
    return out + n;
}

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    while (value > 0x7f) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *put_content(uint8_t *out, const struct field *field, const uint8_t *content,
                            size_t length)
{
    out = put_varint(out, field->tag);
    out = put_varint(out, length);
    return put(out, content, length);
}

/* -- the changes: each writes `out`, which has room for `max` bytes and some ------------------- */

/* A field's content, changed in its turn. */
static uint8_t *change_content(uint8_t *out, const struct field *field, size_t max, unsigned depth,
                               unsigned *state)
{
    uint8_t *content = malloc(max + 1);
    size_t length = field->length;

    insist(content != NULL);
    memcpy(content, field->content, length);
    if (depth < DEPTH_MAX && chance(state, 5) != 0) {
        length = mutate_message(content, length, max, depth + 1, chance(state, UINT32_MAX));
    } else {
        length = LLVMFuzzerMutate(content, length, max);
    }
    out = put_content(out, field, content, length);
    free(content);
    return out;
}

static uint8_t *put_changed(uint8_t *out, const struct field *field, const struct field *other,
                            size_t room, unsigned depth, unsigned *state)
{
    bool holds = (field->tag & 7) == 2;

    switch (chance(state, 8)) {
    case 0: /* gone */
        return out;
    case 1: /* twice */
        if (room >= field->size) {
            out = put(out, field->at, field->size);
        }
        return put(out, field->at, field->size);
    case 2: /* another's place taken */
        return room >= other->size ? put(out, other->at, other->size) : out;
    case 3: /* another's content */
        if (holds && room >= other->length + HEAD_MAX) {
            return put_content(out, field, other->content, other->length);
        }
        break;
    default:
        break;
    }
    if (holds) {
        return change_content(out, field, field->length + room, depth, state);
    }
    if ((field->tag & 7) == 0 && room >= (size_t)2 * HEAD_MAX) {
        out = put_varint(out, field->tag);
        return put_varint(out, chance(state, 1u << chance(state, 24)));
    }
    return put(out, field->at, field->size);
}

size_t mutate_message(uint8_t *data, size_t size, size_t max, unsigned depth, unsigned seed)
{
    struct field *fields = malloc(FIELDS_MAX * sizeof(*fields));
    uint8_t *changed = malloc(2 * max + (size_t)4 * HEAD_MAX);
    unsigned state = seed;
    uint8_t *out = changed;
    size_t chosen;
    size_t n;

    insist(fields != NULL && changed != NULL);
    n = get_fields(data, size, fields);
    if (n == 0 || size + HEAD_MAX > max || chance(&state, 20) == 0) {
        size = LLVMFuzzerMutate(data, size, max);
    } else {
        chosen = chance(&state, (uint32_t)n);
        for (size_t i = 0; i < n; i++) {
            out = i != chosen ? put(out, fields[i].at, fields[i].size)
                              : put_changed(out, &fields[i], &fields[chance(&state, (uint32_t)n)],
                                            max - size - HEAD_MAX, depth, &state);
        }
        size = (size_t)(out - changed) < max ? (size_t)(out - changed) : max;
        memcpy(data, changed, size);
    }
    free(fields);
    free(changed);
    return size;
}
