/* protobuf's wire format, as far as needed before and beside unpacking. */
#include "plugin.h"

static int take_varint(struct gen_wire *wire, uint64_t *value)
{
    unsigned shift;

    *value = 0;
    for (shift = 0; shift < 70; shift += 7) {
        uint8_t byte;

        if (wire->length == 0) {
            return -1;
        }
        byte = *wire->data;
        wire->data++;
        wire->length--;
        if (shift < 64) {
            *value |= (uint64_t)(byte & 0x7f) << shift;
        }
        if ((byte & 0x80) == 0) {
            return 0;
        }
    }
    return -1;
}

static int take_bytes(struct gen_wire *wire, struct gen_wire_field *field, uint64_t length)
{
    if (length > wire->length) {
        return -1;
    }
    field->data = wire->data;
    field->length = (size_t)length;
    wire->data += length;
    wire->length -= (size_t)length;
    return 0;
}

int gen_wire_next(struct gen_wire *wire, struct gen_wire_field *field)
{
    uint64_t value;
    int rc;

    *field = (struct gen_wire_field){0};
    if (wire->length == 0) {
        return 0;
    }
    if (take_varint(wire, &value) != 0 || value > UINT32_MAX) {
        return -1;
    }
    field->number = (uint32_t)(value >> 3);
    field->type = (unsigned)(value & 7);
    switch (field->type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        rc = take_varint(wire, &value);
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        rc = take_bytes(wire, field, 8);
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        rc = take_varint(wire, &value) != 0 ? -1 : take_bytes(wire, field, value);
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        rc = take_bytes(wire, field, 4);
        break;
    default: /* groups: protobuf-c does not take them either */
        rc = -1;
        break;
    }
    return rc != 0 ? -1 : 1;
}
