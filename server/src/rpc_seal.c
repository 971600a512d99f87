/* Seal. */
#include "errors.h"
#include "service.h"

static void seal(struct psd_work *work)
{
    const Payloadstore__V1__SealRequest *request = work->request;
    const char *name = psd_store_name(request->store);
    struct pls_error error;
    struct pls_seal handle;
    pls_store *store = NULL;
    enum pls_code code = pls_store_open(work->service->dir, name, request->epoch, &store, &error);
    if (code == PLS_OK) {
        code = pls_store_seal(store, request->epoch, &handle, &error);
    }
    pls_store_release(store);
    if (code != PLS_OK) {
        psd_fail(work->call, code, name, error.text);
        return;
    }
    Payloadstore__V1__SealResponse response = PAYLOADSTORE__V1__SEAL_RESPONSE__INIT;
    Payloadstore__V1__SealHandle out = PAYLOADSTORE__V1__SEAL_HANDLE__INIT;
    out.sealed_id = handle.sealed_id;
    out.compaction_id = handle.compaction_id;
    response.seal = &out;
    payloadstore__v1__payload_store__seal__reply(work->call, &response);
}

void psd_seal(grpc_c_call *call, const Payloadstore__V1__SealRequest *request, void *user)
{
    psd_offload(user, call, request, seal);
}
