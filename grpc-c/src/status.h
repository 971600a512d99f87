/* A call's end on the wire: what a server sends as trailers, and what a client gets. */
#ifndef GRPC_C_SRC_STATUS_H
#define GRPC_C_SRC_STATUS_H

#include <grpc/grpc.h>

#include "core.h"
#include "grpc-c/client.h"
#include "grpc-c/status.h"

/*
 * Clients built on core lose the whole status where trailers exceed 8,000 bytes, so what is sent
 * stays well below, in its encoded form: a message is cut short, details too large are dropped.
 */
#define GCI_TRAILER_MAX 6000u
#define GCI_DETAILS_MAX 4000u /* in base64 5,336 */

/* The rare part of a status, allocated only where there is one. Lives until the status is sent. */
struct gci_trailer {
    grpc_slice message;
    grpc_metadata details;
    size_t n_details; /* 0 or 1 */
};

/* NULL where the status has neither message nor details, or memory has run out. */
struct gci_trailer *gci_trailer_create(const struct grpc_c_status *status);

/* Takes NULL. */
void gci_trailer_destroy(struct gci_trailer *trailer);

/* Where core puts a call's status on the client's side. */
struct gci_outcome {
    grpc_metadata_array trailing;
    grpc_status_code code;
    grpc_slice message;
};

void gci_outcome_init(struct gci_outcome *outcome);
void gci_outcome_fini(struct gci_outcome *outcome);

/* The operation that fills it. */
grpc_op gci_outcome_op(struct gci_outcome *outcome);

/* Fills `result`, which holds nothing. Before the call is unreferenced: core owns the metadata. */
void gci_result_from_outcome(struct grpc_c_result *result, const struct gci_outcome *outcome);

/* Replaces what `result` holds. */
void gci_result_set(struct grpc_c_result *result, enum grpc_c_code code, const char *message);

#endif
