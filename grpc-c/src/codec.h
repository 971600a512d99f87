/*
 * Messages to byte buffers and back.
 *
 * What comes from a peer is checked before protobuf-c sees it, because protobuf-c does not:
 * nesting (it recurses without a limit), UTF-8, and NUL bytes in strings (it cuts the string short
 * there). What it allocates is held to a budget, because two bytes on the wire can become a hundred
 * in memory.
 */
#ifndef GRPC_C_SRC_CODEC_H
#define GRPC_C_SRC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>

#include "grpc-c/bytes.h"
#include "grpc-c/status.h"

/* A message inside a message inside ... at most this often: protobuf's own limit. */
#define GCI_MAX_NESTING 100

/* Why a message was refused: a status for the peer. */
struct gci_error {
    enum grpc_c_code code;
    char text[256];
};

/* Serialises. The caller owns the buffer; it is never NULL. */
grpc_byte_buffer *gci_pack(const ProtobufCMessage *message);

/* The same with lent ranges (bytes.h): takes over calling each range's release. */
grpc_byte_buffer *gci_pack_lent(const ProtobufCMessage *message, const struct grpc_c_lent *lent,
                                size_t n_lent);

/* A message that is serialised already, over the memory it lies in. */
grpc_byte_buffer *gci_lend(const struct grpc_c_lent *message);

/*
 * Checks and unpacks. Takes `buffer`, also on failure. `overhead` bytes of heap may be taken above
 * the message's size on the wire; SIZE_MAX: no limit. The message is freed with
 * protobuf_c_message_free_unpacked(message, NULL). NULL with the cause in `error`: INVALID_ARGUMENT
 * for a malformed message, RESOURCE_EXHAUSTED for one over budget. It must not be compressed.
 */
ProtobufCMessage *gci_unpack(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
                             size_t overhead, struct gci_error *error);

/*
 * The same, but for the contents of one `bytes` field of the type, which stay in `buffer`:
 * *received, never NULL where a message is returned, has them and the buffer.
 */
ProtobufCMessage *gci_unpack_around(const ProtobufCMessageDescriptor *type,
                                    const ProtobufCFieldDescriptor *field, grpc_byte_buffer *buffer,
                                    size_t overhead, grpc_c_received **received,
                                    struct gci_error *error);

/* It will outlive its call. */
void gci_received_take(grpc_c_received *received);

/* Checks and unpacks what lies in one piece. */
ProtobufCMessage *gci_unpack_bytes(const ProtobufCMessageDescriptor *type, const uint8_t *data,
                                   size_t length, size_t overhead, struct gci_error *error);

/* Whether it has to go through gci_inflate first. */
static inline bool gci_is_compressed(const grpc_byte_buffer *buffer)
{
    return buffer->data.raw.compression != GRPC_COMPRESS_NONE;
}

/*
 * Inflates to at most `max` bytes, below 4 GiB. Takes `buffer`, also on failure. NULL with the
 * cause in `error`: RESOURCE_EXHAUSTED where there is more, INTERNAL for malformed data.
 */
grpc_byte_buffer *gci_inflate(grpc_byte_buffer *buffer, size_t max, struct gci_error *error);

/* The check alone, in wire.c. False with INVALID_ARGUMENT and the place in `error`. */
bool gci_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t length,
                    struct gci_error *error);

#endif
