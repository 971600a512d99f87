/* Unary calls: one batch with everything; and those that wait for its end. */
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/support/alloc.h>

#include "client.h"
#include "codec.h"
#include "status.h"

void gci_unary_init(struct gci_unary *unary, const ProtobufCMessage *request,
                    const struct grpc_c_call_options *options,
                    void (*done)(struct gci_tag *tag, bool ok))
{
    memset(unary, 0, sizeof(*unary));
    gci_tag_init(&unary->tag, done);
    grpc_metadata_array_init(&unary->headers);
    gci_outcome_init(&unary->outcome);
    unary->request = gci_client_pack(request, options);
}

void gci_unary_start(struct gci_unary *unary, const grpc_c_channel *channel, grpc_call *core,
                     const struct grpc_c_call_options *options)
{
    grpc_op ops[6] = {
        gci_client_open_op(core, options, &unary->sent),
        {.op = GRPC_OP_SEND_MESSAGE},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA},
        {.op = GRPC_OP_RECV_MESSAGE},
        gci_outcome_op(&unary->outcome),
    };

    unary->core = core;
    unary->tell_peer = options != NULL && options->tell_peer;
    (void)gci_client_may_send(channel, core, unary->request);
    ops[1].data.send_message.send_message = unary->request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &unary->headers;
    ops[4].data.recv_message.recv_message = &unary->response;
    GCI_CHECK(grpc_call_start_batch(core, ops, 6, gci_tag_arm(&unary->tag), NULL) == GRPC_CALL_OK);
}

/* The response of a call that ended well, or INTERNAL in its place. */
static ProtobufCMessage *take_response(struct gci_unary *unary, const grpc_c_channel *channel,
                                       const struct grpc_c_method *method,
                                       struct grpc_c_result *result)
{
    grpc_byte_buffer *buffer = unary->response;
    ProtobufCMessage *message;
    struct gci_error error;

    unary->response = NULL;
    if (buffer == NULL) {
        gci_result_set(result, GRPC_C_INTERNAL, "the server answered OK without a message");
        return NULL;
    }
    result->compressed = gci_is_compressed(buffer);
    message = gci_client_unpack(channel, method, buffer, &error);
    if (message == NULL) {
        gci_result_set(result, error.code, error.text);
    }
    return message;
}

ProtobufCMessage *gci_unary_end(struct gci_unary *unary, const grpc_c_channel *channel,
                                const struct grpc_c_method *method, struct grpc_c_result *result)
{
    ProtobufCMessage *message = NULL;

    gci_result_from_outcome(result, &unary->outcome, gci_metadata_copy(&unary->headers));
    if (unary->tell_peer) {
        gci_result_set_peer(result, unary->core);
    }
    if (result->code == GRPC_C_OK) {
        message = take_response(unary, channel, method, result);
    }
    grpc_byte_buffer_destroy(unary->request);
    grpc_byte_buffer_destroy(unary->response);
    gci_outcome_fini(&unary->outcome);
    grpc_metadata_array_destroy(&unary->headers);
    gci_metadata_fini(&unary->sent);
    return message;
}

/* -- with a wait ------------------------------------------------------------------------------ */

/* Lives on the caller's stack until `done`. */
struct waiting {
    struct gci_unary unary;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done; /* lock */
};

static void on_done(struct gci_tag *tag, bool ok)
{
    struct waiting *waiting = gci_container_of(tag, struct waiting, unary.tag);

    (void)ok; /* the status says it */
    pthread_mutex_lock(&waiting->lock);
    waiting->done = true;
    pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&waiting->lock);
}

static void wait_for(struct waiting *waiting)
{
    pthread_mutex_lock(&waiting->lock);
    while (!waiting->done) {
        pthread_cond_wait(&waiting->changed, &waiting->lock);
    }
    pthread_mutex_unlock(&waiting->lock);
    pthread_cond_destroy(&waiting->changed);
    pthread_mutex_destroy(&waiting->lock);
}

ProtobufCMessage *grpc_c_unary(grpc_c_channel *channel, const struct grpc_c_method *method,
                               const ProtobufCMessage *request,
                               const struct grpc_c_call_options *options,
                               struct grpc_c_result *result)
{
    grpc_call *core = gci_client_call(channel, method, options);
    struct grpc_c_result unwanted;
    ProtobufCMessage *message;
    struct waiting waiting = {.done = false};

    pthread_mutex_init(&waiting.lock, NULL);
    pthread_cond_init(&waiting.changed, NULL);
    gci_unary_init(&waiting.unary, request, options, on_done);
    gci_unary_start(&waiting.unary, channel, core, options);
    wait_for(&waiting);
    message = gci_unary_end(&waiting.unary, channel, method, result == NULL ? &unwanted : result);
    grpc_call_unref(core);
    if (result == NULL) {
        grpc_c_result_fini(&unwanted);
    }
    return message;
}
