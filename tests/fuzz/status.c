/*
 * How a call ends, from the one who ends it to the one who is told. Byte 0 says which way:
 *
 *   0  a status with message and details, beside metadata, through the shim's two sides
 *   1  anything a peer might send as its status
 *   2  an error of the store's, through the server and the C client library
 *
 * What arrives is what was sent, or of a message that is too long a beginning, in whole characters.
 */
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "errors.h"
#include "fuzz.h"
#include "internal.h" /* the client library's */
#include "status.h"

static enum grpc_c_code code_from(unsigned byte)
{
    return (enum grpc_c_code)(byte % (GRPC_C_UNAUTHENTICATED + 1));
}

/* -- the shim's two sides --------------------------------------------------------------------- */

/* What core's other end would put there. */
static struct grpc_c_result arrive(struct gci_trailer *trailer, int code)
{
    struct grpc_c_result result = {0};
    struct gci_outcome outcome = {.code = (grpc_status_code)code};

    outcome.message = trailer == NULL ? grpc_empty_slice() : trailer->message;
    if (trailer != NULL) {
        outcome.trailing.count = trailer->metadata.n;
        outcome.trailing.metadata = trailer->metadata.entries;
    }
    gci_result_from_outcome(&result, &outcome, (struct gci_received){NULL, 0});
    return result;
}

static size_t encoded(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++) {
        n += *text >= 0x20 && *text < 0x7f && *text != '%' ? 1 : 3;
    }
    return n;
}

static void check_message(const char *sent, const char *got)
{
    size_t length = strlen(got);

    insist(strncmp(sent, got, length) == 0);
    if (is_utf8((const uint8_t *)sent, strlen(sent))) {
        insist(is_utf8((const uint8_t *)got, length));
    }
}

static void check_size(const struct grpc_c_result *result, const struct grpc_c_status *sent,
                       size_t beside)
{
    size_t details = (result->details_length + 2) / 3 * 4;
    size_t message = encoded(result->message);
    bool all = strcmp(result->message, sent->message == NULL ? "" : sent->message) == 0;

    insist(message + details <= GCI_TRAILER_MAX);
    insist(beside + message + details <= GCI_TRAILER_ALL_MAX);
    /* Nothing is dropped without need: four bytes of UTF-8 take twelve. */
    insist(all || message + details + 12 > GCI_TRAILER_MAX ||
           beside + message + details + 12 > GCI_TRAILER_ALL_MAX);
    insist(result->details != NULL || sent->details_length > GCI_DETAILS_MAX ||
           sent->details_length == 0 ||
           beside + (sent->details_length + 2) / 3 * 4 > GCI_TRAILER_ALL_MAX);
}

static void check_status(struct input *in)
{
    unsigned code = take_byte(in);
    unsigned n_entries = take_byte(in) % 3;
    struct gci_trailer *trailer = NULL;
    struct grpc_c_status status = {.code = code_from(code)};
    struct grpc_c_result result;
    size_t beside = 0;
    char *message;

    for (unsigned i = 0; i < n_entries; i++) {
        struct grpc_c_metadata entry = {.key = "beside-bin"};
        entry.value = take(in, (size_t)take_byte(in) * 8, &entry.length);
        insist(gci_trailer_add(&trailer, &entry) == GRPC_C_METADATA_OK);
    }
    beside = trailer == NULL ? 0 : trailer->metadata.size;
    message = take_string(in, (size_t)take_byte(in) * 32);
    status.message = message;
    status.details = take(in, in->left, &status.details_length);
    gci_trailer_set_status(&trailer, &status);
    result = arrive(trailer, (int)status.code);
    insist(result.code == status.code && result.n_trailers == n_entries);
    check_message(message, result.message);
    check_size(&result, &status, beside);
    if (result.details != NULL) {
        insist(result.details_length == status.details_length);
        insist(memcmp(result.details, status.details, result.details_length) == 0);
    }
    grpc_c_result_fini(&result);
    gci_trailer_destroy(trailer);
    free(message);
}

/* -- anything --------------------------------------------------------------------------------- */

static grpc_slice take_slice(struct input *in, size_t n)
{
    size_t length;
    const uint8_t *bytes = take(in, n, &length);

    return grpc_slice_from_copied_buffer((const char *)bytes, length);
}

static void check_anything(struct input *in)
{
    grpc_metadata entries[4] = {0};
    struct gci_trailer trailer = {.metadata = {entries, 0, 4, 0}};
    int code = (int)take_byte(in) - 128;
    struct grpc_c_result result;
    struct plc_error error;

    trailer.message = take_slice(in, take_byte(in));
    for (; trailer.metadata.n < 4 && in->left > 0; trailer.metadata.n++) {
        unsigned length = take_byte(in);
        grpc_metadata *entry = &entries[trailer.metadata.n];
        entry->key = length % 2 == 0 ? grpc_slice_from_static_string(GCI_DETAILS_KEY)
                                     : grpc_slice_from_static_string("other-bin");
        entry->value = take_slice(in, trailer.metadata.n == 3 ? in->left : length);
    }
    result = arrive(&trailer, code);
    insist(strlen(result.message) <= GRPC_SLICE_LENGTH(trailer.message));
    insist(code == (int)result.code || result.code == GRPC_C_UNKNOWN);
    insist((result.details != NULL) == (result.details_length > 0));
    memset(&error, 0xff, sizeof(error));
    insist((plci_end(&error, &result) == PLC_OK) == (code == GRPC_C_OK));
    insist(memchr(error.message, '\0', sizeof(error.message)) != NULL);
    insist(memchr(error.reason, '\0', sizeof(error.reason)) != NULL);
    insist(code == GRPC_C_OK || error.message[0] != '\0');
    for (size_t i = 0; i < trailer.metadata.n; i++) {
        grpc_slice_unref(entries[i].value);
    }
    grpc_slice_unref(trailer.message);
}

/* -- the store's errors ----------------------------------------------------------------------- */

static struct grpc_c_result finished;
static char message_sent[PSD_MESSAGE_MAX];

void __wrap_grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status);

/* In place of sending it. The linker puts it in front of the shim's. */
void __wrap_grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status)
{
    struct gci_trailer *trailer = NULL;

    (void)call;
    insist(strlen(status->message) < sizeof(message_sent));
    memcpy(message_sent, status->message, strlen(status->message) + 1);
    gci_trailer_set_status(&trailer, status);
    insist(status->details == NULL || trailer->metadata.n == 1); /* it was not dropped */
    finished = arrive(trailer, (int)status->code);
    gci_trailer_destroy(trailer);
}

static void check_error(struct input *in)
{
    enum pls_code code = (enum pls_code)(1 + take_byte(in) % (PLS_N_CODES - 1));
    char *store = take_string(in, (size_t)take_byte(in) * 2);
    char *text = take_string(in, sizeof(((struct pls_error *)0)->text) - 1);
    Payloadstore__V1__Reason reason = psd_reason_of(code);
    bool clean = is_utf8((const uint8_t *)store, strlen(store)) &&
                 is_utf8((const uint8_t *)text, strlen(text));
    struct plc_error error;
    enum plc_code got;

    psd_fail((grpc_c_call *)&finished, code, store[0] == '\0' ? NULL : store, text);
    got = plci_end(&error, &finished);
    insist(got == error.code && error.status == (int)psd_status_of(code));
    insist(got != PLC_OK && got != PLC_UNKNOWN);
    insist(strstr(message_sent, text) != NULL);
    insist(message_sent[0] == '\0' || strcmp(error.message, message_sent) == 0);
    insist(!clean || is_utf8((const uint8_t *)error.message, strlen(error.message)));
    if (reason == PAYLOADSTORE__V1__REASON__REASON_UNSPECIFIED) {
        insist(error.reason[0] == '\0');
    } else {
        insist(strcmp(error.reason, plc_code_name((int)got)) == 0);
        insist((int)got == 100 + (int)reason);
    }
    free(store);
    free(text);
}

static void ignore(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    grpc_c_set_logger(ignore); /* details that are dropped are logged */
    switch (take_byte(&in) % 3) {
    case 0:
        check_status(&in);
        break;
    case 1:
        check_anything(&in);
        break;
    default:
        check_error(&in);
        break;
    }
    return 0;
}
