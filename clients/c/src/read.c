#include <stdlib.h>

#include "internal.h"

enum plc_code plc_read(plc_client *client, const struct plc_call *call, const struct plc_ref *ref,
                       struct plc_payload *payload, struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    Payloadstore__V1__ReadRequest request = PAYLOADSTORE__V1__READ_REQUEST__INIT;
    Payloadstore__V1__PayloadRef out;
    struct grpc_c_result result = {0};

    if (ref == NULL || payload == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the ref or the payload is NULL");
    }
    plci_ref_out(ref, &out);
    request.store = (char *)plci_store(client, call);
    request.ref = &out;
    Payloadstore__V1__ReadResponse *response =
        payloadstore__v1__payload_store__read__sync(client->channel, &request, &options, &result);
    if (response != NULL) {
        payload->data = response->payload.data;
        payload->length = response->payload.len;
        response->payload.data = NULL; /* it is the caller's now */
        response->payload.len = 0;
        payloadstore__v1__read_response__free_unpacked(response, NULL);
    }
    return plci_end(error, &result);
}

void plc_payload_fini(struct plc_payload *payload)
{
    free(payload->data);
    *payload = (struct plc_payload){0};
}
