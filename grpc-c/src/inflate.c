/* Inflating what came compressed, within a bound. */
#include <stdio.h>
#include <stdlib.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/slice_buffer.h>

#include <zlib.h>

#include "codec.h"
#include "core.h"

#define FIRST_GUESS 4u /* times as much as came; most text is below */
#define LEAST_ROOM  256u
#define WINDOW_BITS 15 /* the largest window; deflate means zlib's format here */
#define GZIP_FORMAT 16

struct output {
    uint8_t *data;
    size_t room; /* at most max + 1: one byte too many shows that there would be more */
    size_t max;
};

static int fail(struct gci_error *error, enum grpc_c_code code, const char *text)
{
    error->code = code;
    (void)snprintf(error->text, sizeof(error->text), "%s", text);
    return -1;
}

static int grow(struct output *out, z_stream *z, struct gci_error *error)
{
    size_t used = (size_t)z->total_out;
    size_t room = out->room * 2;
    uint8_t *data;

    if (used > out->max) {
        error->code = GRPC_C_RESOURCE_EXHAUSTED;
        (void)snprintf(error->text, sizeof(error->text),
                       "message inflates to more than the limit of %zu bytes", out->max);
        return -1;
    }
    room = room <= out->max ? room : out->max + 1;
    data = realloc(out->data, room);
    if (data == NULL) {
        return fail(error, GRPC_C_RESOURCE_EXHAUSTED, "out of memory while inflating a message");
    }
    out->data = data;
    out->room = room;
    z->next_out = data + used;
    z->avail_out = (uInt)(room - used);
    return 0;
}

/* Feeds one slice. *ended: the compressed data is complete. */
static int feed(struct output *out, z_stream *z, grpc_slice *slice, bool *ended,
                struct gci_error *error)
{
    z->next_in = GRPC_SLICE_START_PTR(*slice);
    z->avail_in = (uInt)GRPC_SLICE_LENGTH(*slice);
    while (z->avail_in > 0 && !*ended) {
        int rc = inflate(z, Z_NO_FLUSH);
        *ended = rc == Z_STREAM_END;
        if (rc == Z_MEM_ERROR) {
            return fail(error, GRPC_C_RESOURCE_EXHAUSTED, "out of memory while inflating");
        }
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
            return fail(error, GRPC_C_INTERNAL, "malformed compressed message");
        }
        if (z->avail_out == 0 && grow(out, z, error) != 0) {
            return -1;
        }
    }
    return z->avail_in == 0 ? 0 : fail(error, GRPC_C_INTERNAL, "compressed message has a tail");
}

/* What the last slice left in zlib because the room was used up. */
static int run_out(struct output *out, z_stream *z, bool *ended, struct gci_error *error)
{
    while (!*ended) {
        uLong before = z->total_out;
        int rc = inflate(z, Z_NO_FLUSH);
        *ended = rc == Z_STREAM_END;
        if (!*ended && z->total_out == before) {
            return fail(error, GRPC_C_INTERNAL, "compressed message is cut short");
        }
        if (z->avail_out == 0 && grow(out, z, error) != 0) {
            return -1;
        }
    }
    return 0;
}

static int inflate_slices(struct output *out, z_stream *z, const grpc_slice_buffer *slices,
                          struct gci_error *error)
{
    bool ended = false;

    for (size_t i = 0; i < slices->count; i++) {
        if (feed(out, z, &slices->slices[i], &ended, error) != 0) {
            return -1;
        }
    }
    if (run_out(out, z, &ended, error) != 0) {
        return -1;
    }
    if (z->total_out > out->max) {
        return grow(out, z, error); /* says that it is too much */
    }
    return 0;
}

static int inflate_buffer(struct output *out, const grpc_byte_buffer *buffer, size_t *length,
                          struct gci_error *error)
{
    bool gzip = buffer->data.raw.compression == GRPC_COMPRESS_GZIP;
    z_stream z = {.next_out = out->data, .avail_out = (uInt)out->room};
    int rc;

    if (inflateInit2(&z, WINDOW_BITS + (gzip ? GZIP_FORMAT : 0)) != Z_OK) {
        return fail(error, GRPC_C_RESOURCE_EXHAUSTED, "out of memory while inflating a message");
    }
    rc = inflate_slices(out, &z, &buffer->data.raw.slice_buffer, error);
    *length = (size_t)z.total_out;
    (void)inflateEnd(&z);
    return rc;
}

static size_t guess(size_t compressed, size_t max)
{
    size_t room = compressed > max / FIRST_GUESS ? max + 1 : compressed * FIRST_GUESS;

    return room > LEAST_ROOM ? room : LEAST_ROOM < max ? LEAST_ROOM : max + 1;
}

grpc_byte_buffer *gci_inflate(grpc_byte_buffer *buffer, size_t max, struct gci_error *error)
{
    struct output out = {.max = max};
    grpc_byte_buffer *plain = NULL;
    grpc_slice slice;
    size_t length;

    GCI_CHECK(max < UINT32_MAX); /* zlib counts in 32 bits */
    out.room = guess(buffer->data.raw.slice_buffer.length, max);
    out.data = malloc(out.room);
    if (out.data == NULL) {
        (void)fail(error, GRPC_C_RESOURCE_EXHAUSTED, "out of memory while inflating a message");
    } else if (inflate_buffer(&out, buffer, &length, error) != 0) {
        free(out.data);
    } else {
        slice = grpc_slice_new(out.data, length, free);
        plain = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
    }
    grpc_byte_buffer_destroy(buffer);
    return plain;
}
