#include "internal.h"

enum plc_code plc_append(plc_client *client, const struct plc_call *call, const void *payload,
                         size_t length, enum plc_durability durability, struct plc_ref *ref,
                         struct plc_error *error)
{
    const struct grpc_c_call_options options =
        plci_options(client, call, client->append_deadline_ms);
    Payloadstore__V1__AppendRequest request = PAYLOADSTORE__V1__APPEND_REQUEST__INIT;
    struct plci_unanswered unanswered;
    struct grpc_c_result result = {0};

    if (ref == NULL || (payload == NULL && length > 0)) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the payload or the ref is NULL");
    }
    if (length > PLC_PAYLOAD_LIMIT) {
        return plci_fail(error, PLC_PAYLOAD_TOO_LARGE, "a payload of %zu bytes is above %u", length,
                         PLC_PAYLOAD_LIMIT);
    }
    if (!plci_durability_out(durability, &request.durability)) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "%d is no durability", (int)durability);
    }
    request.store = (char *)plci_store(client, call);
    request.epoch = plci_epoch(call);
    request.payload.data = (uint8_t *)payload;
    request.payload.len = length;
    plci_unanswered_add(client, &unanswered);
    Payloadstore__V1__AppendResponse *response =
        payloadstore__v1__payload_store__append__sync(client->channel, &request, &options, &result);
    plci_unanswered_remove(client, &unanswered);
    if (response != NULL) {
        *ref = plci_ref_in(response->ref);
        payloadstore__v1__append_response__free_unpacked(response, NULL);
    }
    return plci_end(error, &result);
}
