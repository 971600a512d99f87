#include "batch.h"

#include <stdlib.h>
#include <string.h>

struct plci_batch *plci_batch_create(size_t room, size_t capacity)
{
    struct plci_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) {
        return NULL;
    }
    batch->room = room;
    batch->capacity = capacity;
    batch->data = malloc(capacity > 0 ? capacity : 1);
    batch->tags = calloc(room, sizeof *batch->tags);
    batch->payloads = calloc(room, sizeof *batch->payloads);
    if (batch->data == NULL || batch->tags == NULL || batch->payloads == NULL) {
        plci_batch_destroy(batch);
        return NULL;
    }
    return batch;
}

void plci_batch_destroy(struct plci_batch *batch)
{
    if (batch != NULL) {
        free(batch->data);
        free(batch->tags);
        free(batch->payloads);
        free(batch);
    }
}

bool plci_batch_fits(const struct plci_batch *batch, size_t length)
{
    return batch->n < batch->room && length <= batch->capacity - batch->bytes;
}

void plci_batch_add(struct plci_batch *batch, const void *payload, size_t length, void *tag)
{
    uint8_t *to = batch->data + batch->bytes;
    if (length > 0) {
        memcpy(to, payload, length);
    }
    batch->tags[batch->n] = tag;
    batch->payloads[batch->n] = (ProtobufCBinaryData){.len = length, .data = to};
    batch->bytes += length;
    batch->n++;
}
