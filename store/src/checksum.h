/* CRC-32C (Castagnoli), as iSCSI has it: RFC 3720, B.4. From ISA-L, with the CPU's instruction
 * where it has one. */
#ifndef PLSI_CHECKSUM_H
#define PLSI_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The checksum of what `crc` covers, 0 for nothing, with `length` bytes after it. */
uint32_t plsi_crc32c(uint32_t crc, const void *data, size_t length);

uint32_t plsi_crc32c_iov(const struct iovec *iov, int n);

#endif
