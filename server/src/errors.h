/* The one place that turns a store's error into what a caller sees: status, message,
 * google.rpc.ErrorInfo. */
#ifndef PAYLOADSTORED_ERRORS_H
#define PAYLOADSTORED_ERRORS_H

#include <stddef.h>

#include <grpc-c/server.h>
#include <payloadstore/payloadstore.h>

#include "payloadstore/v1/payload_store.pb-c.h"

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

#endif
