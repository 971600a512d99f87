/* Numbers in files: little-endian, through a cursor over memory whose length the caller has
 * checked. */
#ifndef PLSI_BYTES_H
#define PLSI_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

struct plsi_bytes {
    uint8_t *at;
};

static inline void plsi_put_bytes(struct plsi_bytes *c, const void *bytes, size_t n)
{
    memcpy(c->at, bytes, n);
    c->at += n;
}

static inline void plsi_put16(struct plsi_bytes *c, uint16_t value)
{
    value = htole16(value);
    plsi_put_bytes(c, &value, sizeof value);
}

static inline void plsi_put32(struct plsi_bytes *c, uint32_t value)
{
    value = htole32(value);
    plsi_put_bytes(c, &value, sizeof value);
}

static inline void plsi_put64(struct plsi_bytes *c, uint64_t value)
{
    value = htole64(value);
    plsi_put_bytes(c, &value, sizeof value);
}

static inline void plsi_get_bytes(struct plsi_bytes *c, void *bytes, size_t n)
{
    memcpy(bytes, c->at, n);
    c->at += n;
}

static inline uint16_t plsi_get16(struct plsi_bytes *c)
{
    uint16_t value;
    plsi_get_bytes(c, &value, sizeof value);
    return le16toh(value);
}

static inline uint32_t plsi_get32(struct plsi_bytes *c)
{
    uint32_t value;
    plsi_get_bytes(c, &value, sizeof value);
    return le32toh(value);
}

static inline uint64_t plsi_get64(struct plsi_bytes *c)
{
    uint64_t value;
    plsi_get_bytes(c, &value, sizeof value);
    return le64toh(value);
}

#endif
