#include "fuzz.h"

/* Reads one character, however it is written. Returns its bytes, 0 where it is none. */
static size_t decode(const uint8_t *at, size_t left, uint32_t *c)
{
    size_t n = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

    if (n > left || (at[0] >= 0x80 && at[0] < 0xc0) || at[0] >= 0xf8) {
        return 0;
    }
    *c = n == 1 ? at[0] : at[0] & (0x3fu >> (n - 1));
    for (size_t i = 1; i < n; i++) {
        if (at[i] >> 6 != 2) {
            return 0;
        }
        *c = *c << 6 | (at[i] & 0x3f);
    }
    return n;
}

static size_t shortest(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

bool is_utf8(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        uint32_t c = 0;
        size_t n = decode(bytes + i, length - i, &c);
        if (n == 0 || n != shortest(c) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
            return false;
        }
        i += n;
    }
    return true;
}
