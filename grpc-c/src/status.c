/* Status codes and their way over the wire. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "grpc-c/client.h"
#include "status.h"

#define DETAILS_KEY "grpc-status-details-bin"

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

    while (text[i] != '\0') {
        unsigned char c = (unsigned char)text[i];
        encoded += c >= 0x20 && c < 0x7f && c != '%' ? 1 : 3;
        if (encoded > room) {
            break;
        }
        i++;
    }
    if (text[i] != '\0') { /* not in the middle of a character */
        while (i > 0 && ((unsigned char)text[i] & 0xc0) == 0x80) {
            i--;
        }
    }
    return i;
}

struct gci_trailer *gci_trailer_create(const struct grpc_c_status *status)
{
    size_t details_length = status->details == NULL ? 0 : status->details_length;
    const char *message = status->message == NULL ? "" : status->message;
    struct gci_trailer *trailer;

    if (details_length == 0 && message[0] == '\0') {
        return NULL;
    }
    trailer = calloc(1, sizeof(*trailer));
    if (trailer == NULL) {
        return NULL;
    }
    if (details_length > GCI_DETAILS_MAX) {
        gci_log(GRPC_C_LOG_ERROR, "status details of %zu bytes are too large to send: dropped",
                details_length);
        details_length = 0;
    }
    trailer->message = grpc_slice_from_copied_buffer(
        message, fit(message, GCI_TRAILER_MAX - (details_length + 2) / 3 * 4));
    if (details_length > 0) {
        trailer->details.key = grpc_slice_from_static_string(DETAILS_KEY);
        trailer->details.value = grpc_slice_from_copied_buffer(status->details, details_length);
        trailer->n_details = 1;
    }
    return trailer;
}

void gci_trailer_destroy(struct gci_trailer *trailer)
{
    if (trailer == NULL) {
        return;
    }
    grpc_slice_unref(trailer->message);
    if (trailer->n_details > 0) {
        grpc_slice_unref(trailer->details.value);
    }
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
        if (grpc_slice_str_cmp(md->key, DETAILS_KEY) != 0 || length == 0) {
            continue;
        }
        result->details = copy_text(GRPC_SLICE_START_PTR(md->value), length);
        result->details_length = length;
        return;
    }
}

void gci_result_from_outcome(struct grpc_c_result *result, const struct gci_outcome *outcome)
{
    memset(result, 0, sizeof(*result));
    /* A number that is no code is UNKNOWN to the protocol, as its name says. */
    result->code = outcome->code >= GRPC_STATUS_OK && outcome->code <= GRPC_STATUS_UNAUTHENTICATED
                       ? (enum grpc_c_code)outcome->code
                       : GRPC_C_UNKNOWN;
    result->message =
        copy_text(GRPC_SLICE_START_PTR(outcome->message), GRPC_SLICE_LENGTH(outcome->message));
    take_details(&outcome->trailing, result);
}

void gci_result_set(struct grpc_c_result *result, enum grpc_c_code code, const char *message)
{
    grpc_c_result_fini(result);
    result->code = code;
    result->message = copy_text(message, strlen(message));
}

void grpc_c_result_fini(struct grpc_c_result *result)
{
    if (result != NULL) {
        gpr_free(result->message);
        gpr_free(result->details);
        memset(result, 0, sizeof(*result));
    }
}
