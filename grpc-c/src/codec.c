/* Unpacking within a budget, and plain packing. Packing with lent ranges is in lent.c. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>

#include "codec.h"
#include "core.h"

/* Messages up to this size that came in pieces are put together on the stack. */
#define STACK_MESSAGE 4096

grpc_byte_buffer *gci_pack(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    grpc_byte_buffer *buffer;

    (void)protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

/* -- the budgeted allocator: malloc and free, counted ----------------------------------------- */

struct budget {
    size_t left;
    bool refused; /* by the budget or by malloc */
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    void *memory = size <= budget->left ? malloc(size) : NULL;
    size_t taken = memory == NULL ? 0 : malloc_usable_size(memory) + sizeof(size_t);

    if (memory == NULL || taken > budget->left) {
        free(memory);
        budget->refused = true;
        return NULL;
    }
    budget->left -= taken;
    return memory;
}

static void budget_free(void *data, void *memory)
{
    struct budget *budget = data;

    if (memory != NULL) {
        budget->left += malloc_usable_size(memory) + sizeof(size_t);
        free(memory);
    }
}

/* -- unpacking -------------------------------------------------------------------------------- */

ProtobufCMessage *gci_unpack_bytes(const ProtobufCMessageDescriptor *type, const uint8_t *data,
                                   size_t length, size_t overhead, struct gci_error *error)
{
    struct budget budget = {overhead > SIZE_MAX - length ? SIZE_MAX : overhead + length, false};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    ProtobufCMessage *message;

    if (!gci_wire_check(type, data, length, error)) {
        return NULL;
    }
    message = protobuf_c_message_unpack(type, &allocator, length, data);
    if (message == NULL && budget.refused) {
        error->code = GRPC_C_RESOURCE_EXHAUSTED;
        (void)snprintf(error->text, sizeof(error->text),
                       "%s: %zu bytes on the wire take too much memory", type->name, length);
    } else if (message == NULL) {
        error->code = GRPC_C_INVALID_ARGUMENT;
        (void)snprintf(error->text, sizeof(error->text), "%s: malformed message", type->name);
    }
    return message;
}

static void gather(const grpc_slice_buffer *slices, uint8_t *out)
{
    for (size_t i = 0; i < slices->count; i++) {
        memcpy(out, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
        out += GRPC_SLICE_LENGTH(slices->slices[i]);
    }
}

/* protobuf-c wants its input in one piece. Core's pieces are let go before it makes its copy. */
static ProtobufCMessage *unpack_gathered(const ProtobufCMessageDescriptor *type,
                                         grpc_byte_buffer *buffer, size_t overhead,
                                         struct gci_error *error)
{
    uint8_t stack[STACK_MESSAGE];
    size_t length = buffer->data.raw.slice_buffer.length;
    uint8_t *whole = length <= sizeof(stack) ? stack : malloc(length);
    ProtobufCMessage *message = NULL;

    if (whole == NULL) {
        error->code = GRPC_C_RESOURCE_EXHAUSTED;
        (void)snprintf(error->text, sizeof(error->text), "%s: out of memory", type->name);
        grpc_byte_buffer_destroy(buffer);
        return NULL;
    }
    gather(&buffer->data.raw.slice_buffer, whole);
    grpc_byte_buffer_destroy(buffer);
    message = gci_unpack_bytes(type, whole, length, overhead, error);
    if (whole != stack) {
        free(whole);
    }
    return message;
}

ProtobufCMessage *gci_unpack(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
                             size_t overhead, struct gci_error *error)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    ProtobufCMessage *message = NULL;

    GCI_CHECK(!gci_is_compressed(buffer));
    if (slices->count != 1) {
        return unpack_gathered(type, buffer, overhead, error);
    }
    message = gci_unpack_bytes(type, GRPC_SLICE_START_PTR(slices->slices[0]),
                               GRPC_SLICE_LENGTH(slices->slices[0]), overhead, error);
    grpc_byte_buffer_destroy(buffer);
    return message;
}
