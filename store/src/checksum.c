#include "checksum.h"

#include <isa-l/crc.h>

#define PART ((size_t)1 << 30) /* ISA-L takes an int */

uint32_t plsi_crc32c(uint32_t crc, const void *data, size_t length)
{
    const unsigned char *bytes = data;
    uint32_t state = ~crc;
    while (length > 0) {
        size_t part = length < PART ? length : PART;
        /* The parameter is not const; the library only reads. */
        state = crc32_iscsi((unsigned char *)bytes, (int)part, state);
        bytes += part;
        length -= part;
    }
    return ~state;
}

uint32_t plsi_crc32c_iov(const struct iovec *iov, int n)
{
    uint32_t crc = 0;
    for (int i = 0; i < n; i++) {
        crc = plsi_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
    }
    return crc;
}
