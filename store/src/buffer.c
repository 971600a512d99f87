#include "buffer.h"

#include <assert.h>
#include <stdlib.h>

#define MAGIC 0x42554646u /* "BUFF" */

struct plsi_buffer *plsi_buffer_create(size_t size)
{
    struct plsi_buffer *buffer = malloc(sizeof *buffer + size);
    if (buffer != NULL) {
        buffer->magic = MAGIC;
        atomic_init(&buffer->references, 1);
    }
    return buffer;
}

struct plsi_buffer *plsi_buffer_hold(struct plsi_buffer *buffer)
{
    atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
    return buffer;
}

/* Acquires, as the release before freeing does: what others did with it was before. */
bool plsi_buffer_is_sole(struct plsi_buffer *buffer)
{
    return atomic_load_explicit(&buffer->references, memory_order_acquire) == 1;
}

void plsi_buffer_release(struct plsi_buffer *buffer)
{
    if (buffer == NULL) {
        return;
    }
    assert(buffer->magic == MAGIC);
    if (atomic_fetch_sub_explicit(&buffer->references, 1, memory_order_acq_rel) == 1) {
        buffer->magic = 0;
        free(buffer);
    }
}

void pls_view_release(struct pls_view *view)
{
    plsi_buffer_release(view->owner);
    *view = (struct pls_view){0};
}
