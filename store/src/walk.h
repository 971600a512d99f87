/*
 * Going through the records of a segment by their length prefixes, where no index says where they
 * begin. One thread.
 */
#ifndef PLSI_WALK_H
#define PLSI_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"

#define PLSI_WALK_WINDOW (64u << 10)

struct plsi_walk {
    struct plsi_blob *blob;
    uint64_t offset; /* of the next record */
    uint64_t bytes;  /* of the file */
    bool unreadable; /* the disk, not a record, ended the walk */
    uint64_t at;     /* what the window holds: `filled` bytes from here */
    size_t filled;
    uint8_t window[PLSI_WALK_WINDOW];
};

/* A walk from a record's beginning on. NULL where memory has run out; free() ends it. */
struct plsi_walk *plsi_walk_create(struct plsi_blob *blob, uint64_t offset, uint64_t bytes);

/* Whether a record of that payload length, at the walk's offset, fits into the file. */
bool plsi_walk_fits(const struct plsi_walk *walk, uint32_t length);
/* The payload length that the next record's prefix says; false where no whole record follows. */
bool plsi_walk_length(struct plsi_walk *walk, uint32_t *length);
/* The next record's checksum, from its bytes; false where the disk does not read them. */
bool plsi_walk_crc(struct plsi_walk *walk, uint32_t length, uint32_t *crc32c);
void plsi_walk_skip(struct plsi_walk *walk, uint32_t length);

#endif
