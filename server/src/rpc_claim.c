/* Claim. */
#include "errors.h"
#include "service.h"

static void claim(struct psd_work *work)
{
    const Payloadstore__V1__ClaimRequest *request = work->request;
    const char *name = psd_store_name(request->store);
    const uint64_t *if_epoch = request->if_epoch != NULL ? &request->if_epoch->value : NULL;
    struct pls_error error;
    uint64_t epoch = 0;
    enum pls_code code =
        pls_store_claim(work->service->dir, name, request->owner, if_epoch, &epoch, &error);
    if (code != PLS_OK) {
        psd_fail(work->call, code, name, error.text);
        return;
    }
    Payloadstore__V1__ClaimResponse response = PAYLOADSTORE__V1__CLAIM_RESPONSE__INIT;
    response.epoch = epoch;
    payloadstore__v1__payload_store__claim__reply(work->call, &response);
}

void psd_claim(grpc_c_call *call, const Payloadstore__V1__ClaimRequest *request, void *user)
{
    psd_offload(user, call, request, claim);
}
