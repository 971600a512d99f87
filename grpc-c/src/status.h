/* A call's end on the wire: what a server sends as trailers, and what a client gets. */
#ifndef GRPC_C_SRC_STATUS_H
#define GRPC_C_SRC_STATUS_H

#include <grpc/grpc.h>

#include "core.h"
#include "grpc-c/client.h"
#include "grpc-c/status.h"
#include "metadata.h"

/*
 * Clients built on core lose the whole status where trailers exceed 8,000 bytes, so what is sent
 * stays well below, in its encoded form: a message is cut short, details too large are dropped.
 */
#define GCI_TRAILER_MAX     6000u /* message and details */
#define GCI_TRAILER_ALL_MAX 7500u /* these and the handler's metadata */
#define GCI_DETAILS_MAX     4000u /* in base64 5,336 */

#define GCI_DETAILS_KEY "grpc-status-details-bin"

/* The rare part of a status, allocated only where there is one. Lives until the status is sent. */
struct gci_trailer {
    grpc_slice message;
    struct gci_metadata metadata;
};

/* Adds a handler's entry to *trailer, which is made where it is NULL. */
enum grpc_c_metadata_fault gci_trailer_add(struct gci_trailer **trailer,
                                           const struct grpc_c_metadata *entry);

/*
 * Puts message and details of the status into *trailer, which is made where it is NULL and there
 * are any. Where memory has run out they are lost, not the code.
 */
void gci_trailer_set_status(struct gci_trailer **trailer, const struct grpc_c_status *status);

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

/*
 * Fills `result`, which holds nothing. Before the call is unreferenced: core owns the metadata.
 * Takes `headers`.
 */
void gci_result_from_outcome(struct grpc_c_result *result, const struct gci_outcome *outcome,
                             struct gci_received headers);

/* Says who answered the call. */
void gci_result_set_peer(struct grpc_c_result *result, grpc_call *core);

/* Replaces the status that `result` holds; what was received stays. */
void gci_result_set(struct grpc_c_result *result, enum grpc_c_code code, const char *message);

#endif
