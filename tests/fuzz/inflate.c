/*
 * Inflating, within a bound:
 *
 *   byte 0     bit 0: gzip, else deflate; bit 1: what follows is compressed first
 *   bytes 1-2  the bound, in units of 16 bytes
 *   byte 3     the length of the pieces; 0: one
 *   then       the data
 *
 * It gives what zlib gives in one go, or fails where that does; never more than the bound, and of
 * the heap a byte more than that, zlib's own not counted.
 */
#include <zlib.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>

#include "codec.h"
#include "core.h"
#include "fuzz.h"

#define WHOLE_MAX  ((size_t)4 << 20) /* above the greatest bound */
#define PIECES_MAX 1024
#define SLOP       64 /* what malloc rounds up by */

static uint8_t whole[WHOLE_MAX];

/* All of it at once. Returns its length, SIZE_MAX where it is malformed or has a tail. */
static size_t inflate_whole(const uint8_t *data, size_t size, bool gzip)
{
    z_stream z = {.next_in = (uint8_t *)data, .avail_in = (uInt)size};
    int rc;

    z.next_out = whole;
    z.avail_out = (uInt)sizeof(whole);
    insist(inflateInit2(&z, gzip ? 31 : 15) == Z_OK);
    rc = inflate(&z, Z_FINISH);
    (void)inflateEnd(&z);
    return rc == Z_STREAM_END && z.avail_in == 0 ? (size_t)z.total_out : SIZE_MAX;
}

static uint8_t *deflate_whole(const uint8_t *data, size_t size, bool gzip, size_t *length)
{
    z_stream z = {.next_in = (uint8_t *)data, .avail_in = (uInt)size};
    uint8_t *out;

    insist(deflateInit2(&z, 6, Z_DEFLATED, gzip ? 31 : 15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    *length = deflateBound(&z, (uLong)size);
    out = malloc(*length);
    insist(out != NULL);
    z.next_out = out;
    z.avail_out = (uInt)*length;
    insist(deflate(&z, Z_FINISH) == Z_STREAM_END);
    *length = (size_t)z.total_out;
    (void)deflateEnd(&z);
    return out;
}

static grpc_byte_buffer *in_pieces(const uint8_t *data, size_t size, size_t piece, bool gzip)
{
    static grpc_slice slices[PIECES_MAX + 1];
    size_t n = 0;
    grpc_byte_buffer *buffer;

    piece = piece == 0 || size / piece >= PIECES_MAX ? size : piece;
    while (size > 0) {
        size_t length = piece < size ? piece : size;
        slices[n++] = grpc_slice_from_copied_buffer((const char *)data, length);
        data += length;
        size -= length;
    }
    buffer = grpc_raw_compressed_byte_buffer_create(
        slices, n, gzip ? GRPC_COMPRESS_GZIP : GRPC_COMPRESS_DEFLATE);
    while (n > 0) {
        grpc_slice_unref(slices[--n]);
    }
    return buffer;
}

static void check(const uint8_t *data, size_t size, bool gzip, size_t max, size_t piece)
{
    size_t length = inflate_whole(data, size, gzip);
    struct gci_error error = {0};
    grpc_byte_buffer *plain;

    heap_mark();
    plain = gci_inflate(in_pieces(data, size, piece, gzip), max, &error);
    insist(heap_most() <= max + 1 + SLOP);
    if (plain == NULL) {
        insist(error.code == GRPC_C_RESOURCE_EXHAUSTED || error.code == GRPC_C_INTERNAL);
        insist(error.text[0] != '\0');
        insist(length == SIZE_MAX || (length > max && error.code == GRPC_C_RESOURCE_EXHAUSTED));
        return;
    }
    insist(!gci_is_compressed(plain));
    insist(length <= max && grpc_byte_buffer_length(plain) == length);
    if (length > 0) {
        insist(memcmp(GRPC_SLICE_START_PTR(plain->data.raw.slice_buffer.slices[0]), whole,
                      length) == 0);
    }
    grpc_byte_buffer_destroy(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct input in = {data, size};
    unsigned how = take_byte(&in);
    size_t max = take_byte(&in);
    size_t piece;
    size_t length;
    uint8_t *compressed;

    max = (max << 8 | take_byte(&in)) * 16;
    piece = take_byte(&in);
    if (!ready) {
        gci_library_hold();
        ready = true;
    }
    if ((how & 2) == 0) {
        check(in.at, in.left, how & 1, max, piece);
        return 0;
    }
    compressed = deflate_whole(in.at, in.left, how & 1, &length);
    check(compressed, length, how & 1, max, piece);
    free(compressed);
    return 0;
}
