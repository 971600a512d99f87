/* Metadata between our lists and core's. */
#ifndef GRPC_C_SRC_METADATA_H
#define GRPC_C_SRC_METADATA_H

#include <stdbool.h>
#include <stddef.h>

#include <grpc/grpc.h>

#include "grpc-c/metadata.h"

/* What is to be sent. Zeroed: empty. Lives until the operation that sends it is over. */
struct gci_metadata {
    grpc_metadata *entries;
    size_t n;
    size_t room;
    size_t size; /* as peers count it against their limit */
};

void gci_metadata_fini(struct gci_metadata *list);

/* Checks and copies an entry. */
enum grpc_c_metadata_fault gci_metadata_add(struct gci_metadata *list,
                                            const struct grpc_c_metadata *entry);

/* The same without a check: an entry of gRPC's own, `key` a literal. False where memory ran out. */
bool gci_metadata_add_own(struct gci_metadata *list, const char *key, const void *value,
                          size_t length);

/* What an entry counts: key and value as on the wire, and 32. */
size_t gci_metadata_cost(const char *key, size_t length);

/* What was received. */
struct gci_received {
    struct grpc_c_metadata *list; /* NULL: empty; one piece of gpr_malloc's */
    size_t n;
};

/* Copies what is the application's: status details have a place of their own. */
struct gci_received gci_metadata_copy(const grpc_metadata_array *array);

#endif
