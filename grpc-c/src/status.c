/* Status codes and their way over the wire. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "grpc-c/client.h"
#include "status.h"
#include "tls.h"

const char *grpc_c_code_name(int code)
{
    switch (code) {
#define CODE_NAME(number, name) \
    case number:                \
        return #name;
        GRPC_C_STATUS_MAP(CODE_NAME)
#undef CODE_NAME
    default:
        return "UNKNOWN";
    }
}

/* -- sending ---------------------------------------------------------------------------------- */

/* How much of `text` may go so that its percent-encoded form stays within `room`. */
static size_t fit(const char *text, size_t room)
{
    size_t i = 0;
    size_t encoded = 0;
    size_t back = 0;

    while (text[i] != '\0') {
        unsigned char c = (unsigned char)text[i];
        encoded += c >= 0x20 && c < 0x7f && c != '%' ? 1 : 3;
        if (encoded > room) {
            break;
        }
        i++;
    }
    if (text[i] != '\0') { /* not in the middle of a character, which has at most four bytes */
        while (back < 3 && back < i && ((unsigned char)text[i - back] & 0xc0) == 0x80) {
            back++;
        }
    }
    return i - back;
}

static bool need(struct gci_trailer **trailer)
{
    if (*trailer == NULL) {
        *trailer = calloc(1, sizeof(**trailer));
        if (*trailer != NULL) {
            (*trailer)->message = grpc_empty_slice();
        }
    }
    return *trailer != NULL;
}

enum grpc_c_metadata_fault gci_trailer_add(struct gci_trailer **trailer,
                                           const struct grpc_c_metadata *entry)
{
    return need(trailer) ? gci_metadata_add(&(*trailer)->metadata, entry)
                         : GRPC_C_METADATA_NO_MEMORY;
}

/* What message and details may take beside the handler's metadata. */
static size_t room_beside(const struct gci_trailer *trailer)
{
    size_t left = GCI_TRAILER_ALL_MAX - trailer->metadata.size;

    return left < GCI_TRAILER_MAX ? left : GCI_TRAILER_MAX;
}

/* Returns what the details take of `room`. */
static size_t add_details(struct gci_trailer *trailer, const struct grpc_c_status *status,
                          size_t room)
{
    size_t length = status->details == NULL ? 0 : status->details_length;
    size_t encoded = (length + 2) / 3 * 4;

    if (length == 0) {
        return 0;
    }
    if (length > GCI_DETAILS_MAX || encoded > room) {
        gci_log(GRPC_C_LOG_ERROR, "status details of %zu bytes are too large to send: dropped",
                length);
        return 0;
    }
    return gci_metadata_add_own(&trailer->metadata, GCI_DETAILS_KEY, status->details, length)
               ? encoded
               : 0;
}

void gci_trailer_set_status(struct gci_trailer **trailer, const struct grpc_c_status *status)
{
    const char *message = status->message == NULL ? "" : status->message;
    size_t room;

    if ((status->details == NULL || status->details_length == 0) && message[0] == '\0') {
        return;
    }
    if (!need(trailer)) {
        return;
    }
    room = room_beside(*trailer);
    room -= add_details(*trailer, status, room);
    (*trailer)->message = grpc_slice_from_copied_buffer(message, fit(message, room));
}

void gci_trailer_destroy(struct gci_trailer *trailer)
{
    if (trailer == NULL) {
        return;
    }
    grpc_slice_unref(trailer->message);
    gci_metadata_fini(&trailer->metadata);
    free(trailer);
}

/* -- receiving -------------------------------------------------------------------------------- */

void gci_outcome_init(struct gci_outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    grpc_metadata_array_init(&outcome->trailing);
    outcome->message = grpc_empty_slice();
}

void gci_outcome_fini(struct gci_outcome *outcome)
{
    grpc_metadata_array_destroy(&outcome->trailing);
    grpc_slice_unref(outcome->message);
}

grpc_op gci_outcome_op(struct gci_outcome *outcome)
{
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

    op.data.recv_status_on_client.trailing_metadata = &outcome->trailing;
    op.data.recv_status_on_client.status = &outcome->code;
    op.data.recv_status_on_client.status_details = &outcome->message;
    return op;
}

/* A copy as a C string; an embedded NUL of the peer's ends it early. gpr_malloc never fails. */
static char *copy_text(const void *text, size_t length)
{
    char *copy = gpr_malloc(length + 1);

    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

static void take_details(const grpc_metadata_array *trailing, struct grpc_c_result *result)
{
    for (size_t i = 0; i < trailing->count; i++) {
        const grpc_metadata *md = &trailing->metadata[i];
        size_t length = GRPC_SLICE_LENGTH(md->value);
        if (grpc_slice_str_cmp(md->key, GCI_DETAILS_KEY) != 0 || length == 0) {
            continue;
        }
        result->details = copy_text(GRPC_SLICE_START_PTR(md->value), length);
        result->details_length = length;
        return;
    }
}

void gci_result_from_outcome(struct grpc_c_result *result, const struct gci_outcome *outcome,
                             struct gci_received headers)
{
    struct gci_received trailers = gci_metadata_copy(&outcome->trailing);

    memset(result, 0, sizeof(*result));
    result->headers = headers.list;
    result->n_headers = headers.n;
    result->trailers = trailers.list;
    result->n_trailers = trailers.n;
    /* A number that is no code is UNKNOWN to the protocol, as its name says. */
    result->code = outcome->code >= GRPC_STATUS_OK && outcome->code <= GRPC_STATUS_UNAUTHENTICATED
                       ? (enum grpc_c_code)outcome->code
                       : GRPC_C_UNKNOWN;
    result->message =
        copy_text(GRPC_SLICE_START_PTR(outcome->message), GRPC_SLICE_LENGTH(outcome->message));
    take_details(&outcome->trailing, result);
}

void gci_result_set_peer(struct grpc_c_result *result, grpc_call *core)
{
    result->peer = grpc_call_get_peer(core);
    result->identity = gci_identity(core);
}

void gci_result_set(struct grpc_c_result *result, enum grpc_c_code code, const char *message)
{
    gpr_free(result->message);
    gpr_free(result->details);
    result->details = NULL;
    result->details_length = 0;
    result->code = code;
    result->message = copy_text(message, strlen(message));
}

void grpc_c_result_fini(struct grpc_c_result *result)
{
    if (result != NULL) {
        gpr_free(result->message);
        gpr_free(result->details);
        gpr_free(result->headers);
        gpr_free(result->trailers);
        gpr_free(result->peer);
        gpr_free(result->identity);
        memset(result, 0, sizeof(*result));
    }
}
