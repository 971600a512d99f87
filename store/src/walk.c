#include "walk.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "segment.h"

struct plsi_walk *plsi_walk_create(struct plsi_blob *blob, uint64_t offset, uint64_t bytes)
{
    struct plsi_walk *walk = malloc(sizeof *walk);
    if (walk != NULL) {
        *walk = (struct plsi_walk){.blob = blob, .offset = offset, .bytes = bytes};
    }
    return walk;
}

/* How many bytes of the file the window holds from `offset` on, refilled where they are fewer than
 * `least`. */
static size_t window_at(struct plsi_walk *walk, uint64_t offset, size_t least)
{
    if (offset >= walk->at && offset - walk->at + least <= walk->filled) {
        return (size_t)(walk->at + walk->filled - offset);
    }
    enum pls_code code;
    walk->at = offset;
    walk->blob->ops->read(walk->blob, offset, walk->window, PLSI_WALK_WINDOW, PLSI_MAY_WAIT,
                          &walk->filled, &code);
    if (code != PLS_OK || walk->filled < least) {
        walk->unreadable = true;
        walk->filled = 0;
    }
    return walk->filled;
}

bool plsi_walk_fits(const struct plsi_walk *walk, uint32_t length)
{
    return length <= PLS_PAYLOAD_LIMIT && walk->bytes >= walk->offset &&
           walk->bytes - walk->offset >= plsi_record_bytes(length);
}

bool plsi_walk_length(struct plsi_walk *walk, uint32_t *length)
{
    if (!plsi_walk_fits(walk, 0) || window_at(walk, walk->offset, PLSI_PREFIX) == 0) {
        return false;
    }
    memcpy(length, walk->window + (walk->offset - walk->at), sizeof *length);
    *length = le32toh(*length);
    return plsi_walk_fits(walk, *length);
}

bool plsi_walk_crc(struct plsi_walk *walk, uint32_t length, uint32_t *crc32c)
{
    uint64_t offset = walk->offset + PLSI_PREFIX;
    *crc32c = 0;
    while (length > 0) {
        size_t part = window_at(walk, offset, 1);
        if (part == 0) {
            return false;
        }
        part = part < length ? part : length;
        *crc32c = plsi_crc32c(*crc32c, walk->window + (offset - walk->at), part);
        offset += part;
        length -= (uint32_t)part;
    }
    return true;
}

void plsi_walk_skip(struct plsi_walk *walk, uint32_t length)
{
    walk->offset += plsi_record_bytes(length);
}
