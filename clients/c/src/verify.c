#include "internal.h"

/* False where the caller wants no more of it. */
static bool take(struct plc_verified *verified, const struct plc_verify_callbacks *callbacks,
                 const Payloadstore__V1__VerifyResponse *response)
{
    verified->records_checked = response->records_checked;
    verified->bytes_checked = response->bytes_checked;
    verified->bytes_total = response->bytes_total;
    verified->damaged += response->n_damaged;
    if (callbacks == NULL) {
        return true;
    }
    plci_tell_damaged(response->damaged, response->n_damaged, callbacks->damaged, callbacks->arg);
    return callbacks->progress == NULL || callbacks->progress(callbacks->arg, verified);
}

enum plc_code plc_verify(plc_client *client, const struct plc_call *call, uint64_t bytes_per_second,
                         const struct plc_verify_callbacks *callbacks,
                         struct plc_verified *verified, struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, 0);
    Payloadstore__V1__VerifyRequest request = PAYLOADSTORE__V1__VERIFY_REQUEST__INIT;
    Payloadstore__V1__VerifyResponse *response;
    struct grpc_c_result result = {0};
    bool go_on = true;

    if (verified == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "verified is NULL");
    }
    *verified = (struct plc_verified){0};
    request.store = (char *)plci_store(client, call);
    request.bytes_per_second = bytes_per_second;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__verify__open(client->channel, &options);
    if (stream == NULL) {
        return plci_fail(error, PLC_NO_MEMORY, "no memory for the call");
    }
    /* Where this fails the stream has ended, which is read. */
    (void)payloadstore__v1__payload_store__verify__write(stream, &request);
    (void)grpc_c_stream_writes_done(stream);
    while (go_on && (response = payloadstore__v1__payload_store__verify__read(stream)) != NULL) {
        go_on = take(verified, callbacks, response);
        payloadstore__v1__verify_response__free_unpacked(response, NULL);
    }
    if (!go_on) {
        grpc_c_stream_cancel(stream);
    }
    grpc_c_stream_finish(stream, &result);
    enum plc_code code = plci_end(error, &result);
    return go_on ? code : plci_fail(error, PLC_STOPPED, "the callback stopped the verifying");
}
