/* A batch of payloads on its way to the server. */
#ifndef CLIENTS_C_SRC_BATCH_H
#define CLIENTS_C_SRC_BATCH_H

#include "internal.h"

struct plci_batch {
    struct plci_batch *next;
    struct plci_unanswered unanswered;
    bool sent;       /* on the stream there is */
    size_t n;        /* payloads */
    size_t room;     /* for payloads */
    size_t bytes;    /* of them */
    size_t capacity; /* of `data`, bytes */
    uint8_t *data;
    void **tags;
    ProtobufCBinaryData *payloads; /* into `data` */
};

/* NULL where memory has run out. */
struct plci_batch *plci_batch_create(size_t room, size_t capacity);
/* Takes NULL. */
void plci_batch_destroy(struct plci_batch *batch);
bool plci_batch_fits(const struct plci_batch *batch, size_t length);
/* Copies a payload that fits. */
void plci_batch_add(struct plci_batch *batch, const void *payload, size_t length, void *tag);

#endif
