#include "internal.h"

enum plc_code plc_delete_store(plc_client *client, const struct plc_call *call,
                               const char *incarnation, struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    Payloadstore__V1__DeleteStoreRequest request = PAYLOADSTORE__V1__DELETE_STORE_REQUEST__INIT;
    struct grpc_c_result result = {0};

    if (call == NULL || call->store == NULL || call->store[0] == '\0') {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the store to delete is not named");
    }
    request.store = (char *)call->store;
    request.epoch = call->epoch;
    request.incarnation = (char *)(incarnation != NULL ? incarnation : "");
    Payloadstore__V1__DeleteStoreResponse *response =
        payloadstore__v1__payload_store__delete_store__sync(client->channel, &request, &options,
                                                            &result);
    payloadstore__v1__delete_store_response__free_unpacked(response, NULL);
    return plci_end(error, &result);
}
