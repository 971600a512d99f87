/*
 * A ReadStream, by one thread: it sends while fewer than WINDOW batches have results to come, else
 * it receives. The requests of a whole window fit into what a peer that does not read lets through
 * (64 KiB), so that sending never waits for a server that waits for us.
 */
#include "internal.h"

#define PER_BATCH 64u /* refs: at most 30 bytes each */
#define WINDOW    8u

struct reading {
    const struct plc_ref *refs;
    size_t n;
    size_t sent;
    size_t told;
    bool (*read)(void *arg, const struct plc_read_result *result);
    void *arg;
    bool stopped;
    bool unsound; /* an answer made no sense */
};

static bool send_batch(struct reading *r, grpc_c_stream *stream, const char *store)
{
    Payloadstore__V1__ReadStreamRequest request = PAYLOADSTORE__V1__READ_STREAM_REQUEST__INIT;
    Payloadstore__V1__PayloadRef messages[PER_BATCH];
    Payloadstore__V1__PayloadRef *pointers[PER_BATCH];

    request.store = (char *)store;
    request.refs = pointers;
    while (request.n_refs < PER_BATCH && r->sent < r->n) {
        plci_ref_out(&r->refs[r->sent++], &messages[request.n_refs]);
        pointers[request.n_refs] = &messages[request.n_refs];
        request.n_refs++;
    }
    return payloadstore__v1__payload_store__read_stream__write(stream, &request) == 0;
}

/* False where there shall be no more of them. */
static bool tell(struct reading *r, const Payloadstore__V1__ReadResult *result)
{
    struct plc_error error;
    struct plc_read_result told = {.index = r->told, .error = &error};

    if (r->told == r->sent) {
        r->unsound = true;
        return false;
    }
    plci_ok(&error);
    if (result->outcome_case == PAYLOADSTORE__V1__READ_RESULT__OUTCOME_FAILURE) {
        told.code = plci_failure(&error, result->failure);
    } else if (result->outcome_case == PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD) {
        told.data = result->payload.data;
        told.length = result->payload.len;
    } else {
        told.code = plci_fail(&error, PLC_INTERNAL, "the result is neither payload nor failure");
    }
    r->told++;
    r->stopped = !r->read(r->arg, &told);
    return !r->stopped;
}

/* One message's results; false at the end of the stream. */
static bool receive(struct reading *r, grpc_c_stream *stream)
{
    Payloadstore__V1__ReadStreamResponse *response =
        payloadstore__v1__payload_store__read_stream__read(stream);
    bool go_on = response != NULL;

    for (size_t i = 0; go_on && i < response->n_results; i++) {
        go_on = tell(r, response->results[i]);
    }
    payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    return go_on;
}

static void run(struct reading *r, grpc_c_stream *stream, const char *store)
{
    bool open = true; /* for sending */

    for (;;) {
        if (open && r->sent < r->n && r->sent - r->told < WINDOW * (size_t)PER_BATCH) {
            open = send_batch(r, stream, store);
        } else if (open && r->sent == r->n) {
            (void)grpc_c_stream_writes_done(stream);
            open = false;
        } else if (!receive(r, stream)) {
            return;
        }
    }
}

static enum plc_code finish(struct reading *r, grpc_c_stream *stream, struct plc_error *error)
{
    struct grpc_c_result result = {0};

    if (r->stopped || r->unsound) {
        grpc_c_stream_cancel(stream);
    }
    grpc_c_stream_finish(stream, &result);
    enum plc_code code = plci_end(error, &result);
    if (r->stopped) {
        return plci_fail(error, PLC_STOPPED, "the callback stopped the reading");
    }
    if (r->unsound || (code == PLC_OK && r->told < r->n)) {
        return plci_fail(error, PLC_INTERNAL, "the server gave too few or too many results");
    }
    return code;
}

enum plc_code plc_read_many(plc_client *client, const struct plc_call *call,
                            const struct plc_ref *refs, size_t n,
                            bool (*read)(void *arg, const struct plc_read_result *result),
                            void *arg, size_t *n_read, struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    struct reading r = {.refs = refs, .n = n, .read = read, .arg = arg};

    if ((refs == NULL && n > 0) || read == NULL || n_read == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "refs, callback or n_read is NULL");
    }
    *n_read = 0;
    if (n == 0) {
        return plci_ok(error);
    }
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__read_stream__open(client->channel, &options);
    if (stream == NULL) {
        return plci_fail(error, PLC_NO_MEMORY, "no memory for the call");
    }
    run(&r, stream, plci_store(client, call));
    enum plc_code code = finish(&r, stream, error);
    *n_read = r.told;
    return code;
}
