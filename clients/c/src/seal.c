#include "internal.h"

enum plc_code plc_seal_store(plc_client *client, const struct plc_call *call, struct plc_seal *seal,
                             struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    Payloadstore__V1__SealRequest request = PAYLOADSTORE__V1__SEAL_REQUEST__INIT;
    struct grpc_c_result result = {0};
    bool no_handle = false;

    if (seal == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the seal is NULL");
    }
    request.store = (char *)plci_store(client, call);
    request.epoch = plci_epoch(call);
    Payloadstore__V1__SealResponse *response =
        payloadstore__v1__payload_store__seal__sync(client->channel, &request, &options, &result);
    if (response != NULL) {
        no_handle = response->seal == NULL;
        if (!no_handle) {
            *seal = (struct plc_seal){response->seal->sealed_id, response->seal->compaction_id};
        }
        payloadstore__v1__seal_response__free_unpacked(response, NULL);
    }
    enum plc_code code = plci_end(error, &result);
    return no_handle ? plci_fail(error, PLC_INTERNAL, "the answer has no seal handle") : code;
}
