/* The one place that turns a store's error into what a caller sees: status, message,
 * google.rpc.ErrorInfo. */
#ifndef PAYLOADSTORED_ERRORS_H
#define PAYLOADSTORED_ERRORS_H

#include <stddef.h>

#include <grpc-c/server.h>
#include <payloadstore/payloadstore.h>

#include "payloadstore/v1/payload_store.pb-c.h"

#define PSD_MESSAGE_MAX 1024 /* bytes of the words about a failure */

enum grpc_c_code psd_status_of(enum pls_code code);
Payloadstore__V1__Reason psd_reason_of(enum pls_code code);

/*
 * Fails a call with what the store said. `store`: its name as the caller gave it, NULL where none
 * is concerned. `text`: the story, NULL: the code's own words.
 */
void psd_fail(grpc_c_call *call, enum pls_code code, const char *store, const char *text);

/* The same, about a ref. */
void psd_fail_ref(grpc_c_call *call, enum pls_code code, const char *store,
                  const struct pls_ref *ref);

/* Fails a call for a reason of the service's own. */
void psd_fail_reason(grpc_c_call *call, enum grpc_c_code code, Payloadstore__V1__Reason reason,
                     const char *store, const char *text);

/* What stands in a stream's answer for a part of it that failed, while the stream goes on. Not to
 * be copied. */
struct psd_failure {
    Payloadstore__V1__Failure message;
    char text[PSD_MESSAGE_MAX];
};

/* The failure that psd_fail, and psd_fail_ref, would have made of it. */
void psd_failure_init(struct psd_failure *failure, enum pls_code code, const char *store,
                      const char *text);
void psd_failure_init_ref(struct psd_failure *failure, enum pls_code code, const char *store,
                          const struct pls_ref *ref);

#endif
