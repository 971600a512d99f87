/* Sets of numbers, a bit each. */
#ifndef PLSI_BITS_H
#define PLSI_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* For the numbers below n, none of them in it; NULL where memory has run out. For free. */
static inline uint64_t *plsi_bits_create(uint64_t n)
{
    return calloc(n / 64 + 1, sizeof(uint64_t));
}

static inline bool plsi_bit(const uint64_t *bits, uint64_t i)
{
    return (bits[i / 64] >> (i % 64) & 1) != 0;
}

/* False where it was set before. */
static inline bool plsi_bit_set(uint64_t *bits, uint64_t i)
{
    bool was_set = plsi_bit(bits, i);
    bits[i / 64] |= 1ull << (i % 64);
    return !was_set;
}

#endif
