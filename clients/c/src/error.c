/* Codes, from a call's status and the google.rpc.ErrorInfo beside it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "internal.h"

#define DOMAIN       "payloadstore"
#define INFO_TYPE    "google.rpc.ErrorInfo"
#define REASON_FIRST 100 /* the code of the reason numbered 0 */

#define SAME_AS_REASON(name)                                                                       \
    _Static_assert((int)PLC_##name == REASON_FIRST + (int)PAYLOADSTORE__V1__REASON__REASON_##name, \
                   #name)
SAME_AS_REASON(EPOCH_STALE);
SAME_AS_REASON(HANDLE_UNKNOWN);
SAME_AS_REASON(HANDLE_SUPERSEDED);
SAME_AS_REASON(COMPACTION_RUNNING);
SAME_AS_REASON(LIVE_REF_UNREADABLE);
SAME_AS_REASON(EXPECTED_LIVE_DIFFERS);
SAME_AS_REASON(REF_NOT_KEPT);
SAME_AS_REASON(DISK_RESERVE);
SAME_AS_REASON(PAYLOAD_TOO_LARGE);
SAME_AS_REASON(NOT_COMMITTED);

static const struct entry {
    enum plc_code code;
    const char *name;
    const char *text;
} entries[] = {
#define ENTRY(number, name, text) {PLC_##name, #name, text},
    PLC_CODE_MAP(ENTRY)
#undef ENTRY
};
#define N_ENTRIES (sizeof entries / sizeof entries[0])

static const struct entry *entry_of(int code)
{
    for (size_t i = 0; i < N_ENTRIES; i++) {
        if ((int)entries[i].code == code) {
            return &entries[i];
        }
    }
    return NULL;
}

const char *plc_code_name(int code)
{
    const struct entry *entry = entry_of(code);
    return entry != NULL ? entry->name : "UNKNOWN";
}

const char *plc_strerror(int code)
{
    const struct entry *entry = entry_of(code);
    return entry != NULL ? entry->text : "not a code of this library";
}

/* -- what calls return --------------------------------------------------------------------------
 */

enum plc_code plci_ok(struct plc_error *error)
{
    if (error != NULL) {
        error->code = PLC_OK;
        error->status = 0;
        error->reason[0] = '\0';
        error->message[0] = '\0';
    }
    return PLC_OK;
}

enum plc_code plci_fail(struct plc_error *error, enum plc_code code, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        plci_ok(error);
        error->code = code;
        va_start(arguments, format);
        (void)vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return code;
}

/* The code of a reason with one of its own, else the status's. */
static enum plc_code code_of(int status, int reason)
{
    const struct entry *entry = NULL;
    if (reason > 0 && reason < 100) {
        entry = entry_of(REASON_FIRST + reason);
    }
    if (entry == NULL) {
        entry = status <= GRPC_C_UNAUTHENTICATED ? entry_of(status) : NULL;
    }
    return entry != NULL && entry->code != PLC_OK ? entry->code : PLC_UNKNOWN;
}

/* What core's words do not say of a peer that hung up before there was a connection. */
static const char *hint(const char *message)
{
    if (strstr(message, "failed to connect") == NULL ||
        (strstr(message, "Socket closed") == NULL && strstr(message, "Connection reset") == NULL &&
         strstr(message, "Broken pipe") == NULL)) {
        return "";
    }
    return " (does the server speak TLS, and does it take this client's certificate?)";
}

static void tell(struct plc_error *error, enum plc_code code, int status, const char *reason,
                 const char *message)
{
    if (error == NULL) {
        return;
    }
    error->code = code;
    error->status = status;
    (void)snprintf(error->reason, sizeof error->reason, "%s", reason);
    (void)snprintf(error->message, sizeof error->message, "%s%s",
                   message[0] != '\0' ? message : plc_strerror((int)code), hint(message));
}

/* -- from a call --------------------------------------------------------------------------------
 */

/* By its name: the number does not travel. */
static int reason_number(const char *name)
{
    for (size_t i = 0; i < N_ENTRIES; i++) {
        if ((int)entries[i].code > REASON_FIRST && (int)entries[i].code < REASON_FIRST + 100 &&
            strcmp(entries[i].name, name) == 0) {
            return (int)entries[i].code - REASON_FIRST;
        }
    }
    return 0;
}

static bool is_info(const Google__Protobuf__Any *any)
{
    const char *slash = strrchr(any->type_url, '/');
    return slash != NULL && strcmp(slash + 1, INFO_TYPE) == 0;
}

/* The reason in a packed google.rpc.Status, "" where there is none of ours. */
static void take_reason(const void *details, size_t length, char reason[64])
{
    reason[0] = '\0';
    if (details == NULL) {
        return;
    }
    Google__Rpc__Status *status = google__rpc__status__unpack(NULL, length, details);
    for (size_t i = 0; status != NULL && i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];
        if (!is_info(any)) {
            continue;
        }
        Google__Rpc__ErrorInfo *info =
            google__rpc__error_info__unpack(NULL, any->value.len, any->value.data);
        if (info != NULL && strcmp(info->domain, DOMAIN) == 0) {
            (void)snprintf(reason, 64, "%s", info->reason);
        }
        google__rpc__error_info__free_unpacked(info, NULL);
    }
    google__rpc__status__free_unpacked(status, NULL);
}

enum plc_code plci_end(struct plc_error *error, struct grpc_c_result *result)
{
    enum plc_code code = PLC_OK;
    if (result->code == GRPC_C_OK) {
        plci_ok(error);
    } else {
        char reason[64];
        take_reason(result->details, result->details_length, reason);
        code = code_of((int)result->code, reason_number(reason));
        tell(error, code, (int)result->code, reason, result->message);
    }
    grpc_c_result_fini(result);
    return code;
}

enum plc_code plci_failure(struct plc_error *error, const Payloadstore__V1__Failure *failure)
{
    int status = failure->code <= GRPC_C_UNAUTHENTICATED ? (int)failure->code : GRPC_C_UNKNOWN;
    enum plc_code code = code_of(status, (int)failure->reason);
    bool named = (int)code > REASON_FIRST;
    tell(error, code, status, named ? plc_code_name((int)code) : "", failure->message);
    return code;
}
