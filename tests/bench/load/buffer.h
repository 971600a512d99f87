/* Bytes that grow. A benchmark without memory ends. */
#ifndef LOAD_BUFFER_H
#define LOAD_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    uint8_t *data;
    size_t n, room;
};

/* Prints and exits with 2: not a wrong answer of the server's, but no measurement either. */
_Noreturn static inline void load_fail(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(2);
}

static inline void *load_alloc(void *old, size_t size)
{
    void *memory = realloc(old, size ? size : 1);
    if (!memory) {
        load_fail("out of memory");
    }
    return memory;
}

/* Room for `more` bytes at the end, which the caller fills and counts. */
static inline uint8_t *buffer_room(struct buffer *buffer, size_t more)
{
    if (buffer->room - buffer->n < more) {
        buffer->room = 2 * buffer->room + more;
        buffer->data = load_alloc(buffer->data, buffer->room);
    }
    return buffer->data + buffer->n;
}

static inline void buffer_add(struct buffer *buffer, const void *data, size_t n)
{
    if (n) {
        memcpy(buffer_room(buffer, n), data, n);
        buffer->n += n;
    }
}

static inline void buffer_drop(struct buffer *buffer, size_t n)
{
    buffer->n -= n;
    if (buffer->n && n) {
        memmove(buffer->data, buffer->data + n, buffer->n);
    }
}

static inline void buffer_fini(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

#endif
