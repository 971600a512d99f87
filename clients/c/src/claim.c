#include "google/protobuf/wrappers.pb-c.h"
#include "internal.h"

enum plc_code plc_claim(plc_client *client, const struct plc_call *call, const char *owner,
                        const uint64_t *if_epoch, uint64_t *epoch, struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    Payloadstore__V1__ClaimRequest request = PAYLOADSTORE__V1__CLAIM_REQUEST__INIT;
    Google__Protobuf__UInt64Value expected = GOOGLE__PROTOBUF__UINT64_VALUE__INIT;
    struct grpc_c_result result = {0};

    if (epoch == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the epoch is NULL");
    }
    request.store = (char *)plci_store(client, call);
    request.owner = (char *)(owner != NULL ? owner : "");
    if (if_epoch != NULL) {
        expected.value = *if_epoch;
        request.if_epoch = &expected;
    }
    Payloadstore__V1__ClaimResponse *response =
        payloadstore__v1__payload_store__claim__sync(client->channel, &request, &options, &result);
    if (response != NULL) {
        *epoch = response->epoch;
        payloadstore__v1__claim_response__free_unpacked(response, NULL);
    }
    return plci_end(error, &result);
}
