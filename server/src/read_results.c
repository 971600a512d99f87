#include "read_results.h"

#include <payloadstore/payloadstore.h>

#define TAG 0x0au /* field 1, of bytes: `results` of the response, and `payload` of a result */

static size_t varint_bytes(uint64_t value)
{
    size_t n = 1;
    for (; value >= 0x80; value >>= 7) {
        n++;
    }
    return n;
}

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        *out++ = (uint8_t)(value | 0x80);
    }
    *out++ = (uint8_t)value;
    return out;
}

/* Of the field `payload`. */
static uint64_t field_bytes(uint32_t length)
{
    return 1 + varint_bytes(length) + (uint64_t)length;
}

size_t psd_result_bytes(uint32_t length)
{
    uint64_t field = field_bytes(length);
    return (size_t)(1 + varint_bytes(field) + field);
}

uint8_t *psd_result_room(uint8_t *result, uint32_t length)
{
    return result + psd_result_bytes(length) - PLS_ROOM(length);
}

uint8_t *psd_result_finish(uint8_t *result, uint32_t length)
{
    *result++ = TAG;
    result = put_varint(result, field_bytes(length));
    *result++ = TAG;
    return put_varint(result, length) + length;
}
