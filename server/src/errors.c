#include "errors.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"

#define DETAILS_MAX 2048 /* bytes; with the message they stay under gRPC's 4 KiB */
#define REF_MAX     256  /* bytes of the words about a ref */

struct outcome {
    enum grpc_c_code status;
    Payloadstore__V1__Reason reason;
};

#define REASON(name) PAYLOADSTORE__V1__REASON__REASON_##name

static const struct outcome outcomes[PLS_N_CODES] = {
    [PLS_OK] = {GRPC_C_INTERNAL, REASON(UNSPECIFIED)}, /* success is no way to fail */
    [PLS_INVALID_NAME] = {GRPC_C_INVALID_ARGUMENT, REASON(UNSPECIFIED)},
    [PLS_INVALID_ARGUMENT] = {GRPC_C_INVALID_ARGUMENT, REASON(UNSPECIFIED)},
    [PLS_INVALID_REF] = {GRPC_C_INVALID_ARGUMENT, REASON(UNSPECIFIED)},
    [PLS_NO_STORE] = {GRPC_C_NOT_FOUND, REASON(UNSPECIFIED)},
    [PLS_NO_RECORD] = {GRPC_C_NOT_FOUND, REASON(UNSPECIFIED)},
    [PLS_DAMAGED] = {GRPC_C_DATA_LOSS, REASON(UNSPECIFIED)},
    [PLS_PAYLOAD_TOO_LARGE] = {GRPC_C_RESOURCE_EXHAUSTED, REASON(PAYLOAD_TOO_LARGE)},
    [PLS_NO_SPACE] = {GRPC_C_RESOURCE_EXHAUSTED, REASON(DISK_RESERVE)},
    [PLS_DISK_RESERVE] = {GRPC_C_RESOURCE_EXHAUSTED, REASON(DISK_RESERVE)},
    [PLS_IO] = {GRPC_C_UNAVAILABLE, REASON(UNSPECIFIED)},
    [PLS_LOCKED] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_DENIED] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_BAD_FORMAT] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_IDS_USED_UP] = {GRPC_C_RESOURCE_EXHAUSTED, REASON(UNSPECIFIED)},
    [PLS_NO_MEMORY] = {GRPC_C_RESOURCE_EXHAUSTED, REASON(UNSPECIFIED)},
    [PLS_CLOSED] = {GRPC_C_UNAVAILABLE, REASON(UNSPECIFIED)},
    [PLS_EPOCH_STALE] = {GRPC_C_FAILED_PRECONDITION, REASON(EPOCH_STALE)},
    [PLS_EPOCH_DIFFERS] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_INCARNATION_DIFFERS] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_HANDLE_UNKNOWN] = {GRPC_C_FAILED_PRECONDITION, REASON(HANDLE_UNKNOWN)},
    [PLS_HANDLE_SUPERSEDED] = {GRPC_C_FAILED_PRECONDITION, REASON(HANDLE_SUPERSEDED)},
    [PLS_REF_NOT_KEPT] = {GRPC_C_NOT_FOUND, REASON(REF_NOT_KEPT)},
    [PLS_NOT_COMMITTED] = {GRPC_C_FAILED_PRECONDITION, REASON(UNSPECIFIED)},
    [PLS_COMPACTION_RUNNING] = {GRPC_C_ABORTED, REASON(COMPACTION_RUNNING)},
    [PLS_LIVE_NO_RECORD] = {GRPC_C_NOT_FOUND, REASON(LIVE_REF_UNREADABLE)},
    [PLS_LIVE_DAMAGED] = {GRPC_C_DATA_LOSS, REASON(LIVE_REF_UNREADABLE)},
    [PLS_EXPECTED_LIVE_DIFFERS] = {GRPC_C_FAILED_PRECONDITION, REASON(EXPECTED_LIVE_DIFFERS)},
    [PLS_CANCELLED] = {GRPC_C_CANCELLED, REASON(UNSPECIFIED)},
};

static const struct outcome *outcome_of(enum pls_code code)
{
    static const struct outcome unknown = {GRPC_C_INTERNAL, REASON(UNSPECIFIED)};
    return (unsigned)code < PLS_N_CODES ? &outcomes[code] : &unknown;
}

enum grpc_c_code psd_status_of(enum pls_code code)
{
    return outcome_of(code)->status;
}

Payloadstore__V1__Reason psd_reason_of(enum pls_code code)
{
    return outcome_of(code)->reason;
}

/* -- the details ------------------------------------------------------------------------------- */

/* "EPOCH_STALE" */
static const char *reason_name(Payloadstore__V1__Reason reason)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&payloadstore__v1__reason__descriptor, (int)reason);
    return value->name + strlen("REASON_");
}

static size_t pack_info(const char *reason, const char *store, uint8_t out[DETAILS_MAX / 2])
{
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    Google__Rpc__ErrorInfo__MetadataEntry entry = GOOGLE__RPC__ERROR_INFO__METADATA_ENTRY__INIT;
    Google__Rpc__ErrorInfo__MetadataEntry *entries[] = {&entry};
    info.reason = (char *)reason;
    info.domain = (char *)"payloadstore";
    if (store != NULL) {
        entry.key = (char *)"store";
        entry.value = (char *)store;
        info.metadata = entries;
        info.n_metadata = 1;
    }
    return google__rpc__error_info__pack(&info, out);
}

/* A google.rpc.Status with an ErrorInfo in it. All that goes in is bounded, so it fits. */
static size_t pack_details(enum grpc_c_code code, const char *message, const char *reason,
                           const char *store, uint8_t out[DETAILS_MAX + PSD_MESSAGE_MAX])
{
    uint8_t packed[DETAILS_MAX / 2];
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Any *details[] = {&any};
    any.type_url = (char *)"type.googleapis.com/google.rpc.ErrorInfo";
    any.value.data = packed;
    any.value.len = pack_info(reason, store, packed);
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    status.code = (int32_t)code;
    status.message = (char *)message;
    status.details = details;
    status.n_details = 1;
    return google__rpc__status__pack(&status, out);
}

static void finish(grpc_c_call *call, enum grpc_c_code code, Payloadstore__V1__Reason reason,
                   const char *store, const char *message)
{
    struct grpc_c_status status = {.code = code, .message = message};
    uint8_t details[DETAILS_MAX + PSD_MESSAGE_MAX];
    if (reason != REASON(UNSPECIFIED)) {
        status.details = details;
        status.details_length = pack_details(code, message, reason_name(reason), store, details);
    }
    grpc_c_call_finish(call, &status);
}

/* -- the message ------------------------------------------------------------------------------- */

/* A name that is none may be as long as a message: only its length is repeated then. */
static const char *name_in_words(const char *store, char words[64])
{
    size_t length = strlen(store);
    if (length <= PLS_NAME_MAX) {
        return store;
    }
    snprintf(words, 64, "(a name of %zu bytes)", length);
    return words;
}

static void put_in_words(char out[PSD_MESSAGE_MAX], const char *name, const char *text)
{
    snprintf(out, PSD_MESSAGE_MAX, "store \"%s\": %s", name, text);
}

static void ref_in_words(char out[REF_MAX], enum pls_code code, const struct pls_ref *ref)
{
    snprintf(out, REF_MAX, "ref %" PRIu32 ":%" PRIu64 " of %" PRIu32 " bytes: %s", ref->file_id,
             ref->offset, ref->length, pls_strerror(code));
}

void psd_fail_reason(grpc_c_call *call, enum grpc_c_code code, Payloadstore__V1__Reason reason,
                     const char *store, const char *text)
{
    char message[PSD_MESSAGE_MAX];
    char words[64];
    if (store == NULL) {
        finish(call, code, reason, NULL, text);
        return;
    }
    const char *name = name_in_words(store, words);
    put_in_words(message, name, text);
    finish(call, code, reason, name, message);
}

void psd_fail(grpc_c_call *call, enum pls_code code, const char *store, const char *text)
{
    psd_fail_reason(call, psd_status_of(code), psd_reason_of(code), store,
                    text != NULL ? text : pls_strerror(code));
}

void psd_fail_ref(grpc_c_call *call, enum pls_code code, const char *store,
                  const struct pls_ref *ref)
{
    char text[REF_MAX];
    ref_in_words(text, code, ref);
    psd_fail(call, code, store, text);
}

void psd_failure_init(struct psd_failure *failure, enum pls_code code, const char *store,
                      const char *text)
{
    payloadstore__v1__failure__init(&failure->message);
    failure->message.code = (uint32_t)psd_status_of(code);
    failure->message.reason = psd_reason_of(code);
    put_in_words(failure->text, store, text != NULL ? text : pls_strerror(code));
    failure->message.message = failure->text;
}

void psd_failure_init_ref(struct psd_failure *failure, enum pls_code code, const char *store,
                          const struct pls_ref *ref)
{
    char text[REF_MAX];
    ref_in_words(text, code, ref);
    psd_failure_init(failure, code, store, text);
}
