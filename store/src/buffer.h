/* The reference-counted memory that bytes read from a file lie in: a payload's, of which a view
 * holds a reference, or a block's (blocks.h). */
#ifndef PLSI_BUFFER_H
#define PLSI_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "payloadstore/payloadstore.h"

struct plsi_buffer {
    uint32_t magic;
    atomic_uint references;
    uint8_t bytes[];
};

/* With one reference; NULL where memory has run out. */
struct plsi_buffer *plsi_buffer_create(size_t size);

struct plsi_buffer *plsi_buffer_hold(struct plsi_buffer *buffer);
/* Whether the caller's reference is the only one. */
bool plsi_buffer_is_sole(struct plsi_buffer *buffer);
/* Takes NULL. */
void plsi_buffer_release(struct plsi_buffer *buffer);

#endif
