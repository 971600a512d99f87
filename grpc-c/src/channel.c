/* Channels: a connection to a server, and the thread that takes its events. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "client.h"
#include "codec.h"
#include "tls.h"

#define DEFAULT_MAX_RECEIVE  ((size_t)4 << 20)
#define KEEPALIVE_MS         20000 /* with the timeout: a dead server is found in 30 s */
#define KEEPALIVE_TIMEOUT_MS 10000
#define FIRST_CONNECT_MS     100
#define SLOWEST_CONNECT_MS   5000  /* core's own two minutes outlast any restart of a server */
#define CONNECT_TIMEOUT_MS   10000 /* TCP and HTTP/2; a busy machine needs more than it seems */
#define IDLE_TIMEOUT_MS      1800000

#define MAX_ARGS 16u

struct args {
    grpc_arg list[MAX_ARGS];
    size_t n;
};

static void add_int(struct args *args, const char *key, int value)
{
    grpc_arg *arg = &args->list[args->n++];

    GCI_CHECK(args->n <= MAX_ARGS);
    arg->type = GRPC_ARG_INTEGER;
    arg->key = (char *)key;
    arg->value.integer = value;
}

static void add_ms(struct args *args, const char *key, unsigned ms, int standard)
{
    add_int(args, key, ms == 0 ? standard : ms < INT_MAX ? (int)ms : INT_MAX);
}

static void add_string(struct args *args, const char *key, const char *value)
{
    if (value != NULL) {
        grpc_arg *arg = &args->list[args->n++];
        GCI_CHECK(args->n <= MAX_ARGS);
        arg->type = GRPC_ARG_STRING;
        arg->key = (char *)key;
        arg->value.string = (char *)value;
    }
}

static void add_keepalive(struct args *args, const struct grpc_c_channel_options *options)
{
    if (options->keepalive_ms < 0) {
        return; /* core's own default */
    }
    add_ms(args, GRPC_ARG_KEEPALIVE_TIME_MS, (unsigned)options->keepalive_ms, KEEPALIVE_MS);
    add_ms(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options->keepalive_timeout_ms,
           KEEPALIVE_TIMEOUT_MS);
    add_int(args, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, options->keepalive_without_calls);
    add_int(args, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

/* Takes the credentials. */
static grpc_channel *create_core(const char *target, int max_receive,
                                 const struct grpc_c_channel_options *options,
                                 grpc_channel_credentials *credentials)
{
    struct args args = {.n = 0};
    grpc_channel *core;

    add_int(&args, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max_receive);
    add_int(&args, GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0); /* inflate.c has bounds */
    add_int(&args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
            1); /* a channel is a connection of its own */
    add_int(&args, GRPC_ARG_ENABLE_CHANNELZ, 0);
    add_keepalive(&args, options);
    add_ms(&args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, options->first_connect_ms,
           FIRST_CONNECT_MS);
    add_ms(&args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, options->slowest_connect_ms,
           SLOWEST_CONNECT_MS);
    add_ms(&args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, options->connect_timeout_ms,
           CONNECT_TIMEOUT_MS); /* so core calls it */
    add_ms(&args, GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, options->idle_timeout_ms, IDLE_TIMEOUT_MS);
    add_string(&args, GRPC_ARG_DEFAULT_AUTHORITY, options->authority);
    add_string(&args, GRPC_ARG_PRIMARY_USER_AGENT_STRING, options->user_agent);
    add_string(&args, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
               options->tls == NULL ? NULL : options->tls->server_name);
    core = grpc_channel_create(target, credentials,
                               &(grpc_channel_args){.num_args = args.n, .args = args.list});
    grpc_channel_credentials_release(credentials);
    return core;
}

static void free_channel(grpc_c_channel *channel)
{
    pthread_cond_destroy(&channel->changed);
    pthread_mutex_destroy(&channel->lock);
    free(channel);
}

grpc_c_channel *grpc_c_channel_create(const char *target,
                                      const struct grpc_c_channel_options *options)
{
    static const struct grpc_c_channel_options standard;
    grpc_channel_credentials *credentials;
    grpc_c_channel *channel = calloc(1, sizeof(*channel));

    options = options == NULL ? &standard : options;
    if (channel == NULL) {
        return NULL;
    }
    channel->max_receive =
        options->max_receive_bytes == 0 ? DEFAULT_MAX_RECEIVE : options->max_receive_bytes;
    channel->max_receive = channel->max_receive < INT32_MAX ? channel->max_receive : INT32_MAX;
    channel->max_send = options->max_send_bytes == 0 ? SIZE_MAX : options->max_send_bytes;
    pthread_mutex_init(&channel->lock, NULL);
    pthread_cond_init(&channel->changed, NULL);
    gci_library_hold();
    gci_poller_init(&channel->poller, gci_poller_step);
    if (gci_poller_start(&channel->poller, "grpc-c/channel") != 0) {
        goto fini_poller;
    }
    credentials = options->tls == NULL ? grpc_insecure_credentials_create()
                                       : gci_channel_tls_credentials(options->tls);
    if (credentials == NULL) {
        goto fini_poller;
    }
    channel->core = create_core(target, (int)channel->max_receive, options, credentials);
    return channel;

fini_poller:
    gci_poller_fini(&channel->poller);
    gci_library_release();
    free_channel(channel);
    return NULL;
}

void grpc_c_channel_destroy(grpc_c_channel *channel)
{
    if (channel == NULL) {
        return;
    }
    gci_client_end_handles(channel);
    grpc_channel_destroy(channel->core);
    gci_poller_fini(&channel->poller);
    free_channel(channel);
    gci_library_release();
}

/* -- calls ------------------------------------------------------------------------------------ */

static gpr_timespec deadline_of(const struct grpc_c_call_options *options)
{
    if (options == NULL || options->timeout_ms == 0) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    return gci_deadline_in(options->timeout_ms);
}

grpc_call *gci_client_call(grpc_c_channel *channel, const struct grpc_c_method *method,
                           const struct grpc_c_call_options *options)
{
    return grpc_channel_create_call(
        channel->core, NULL, GRPC_PROPAGATE_DEFAULTS, channel->poller.queue,
        grpc_slice_from_static_string(method->path), NULL, deadline_of(options), NULL);
}

static void refuse(grpc_call *core, const struct grpc_c_metadata *entry,
                   enum grpc_c_metadata_fault fault)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "metadata \"%.100s\": %s",
                   entry->key == NULL ? "" : entry->key, grpc_c_metadata_fault_text(fault));
    (void)grpc_call_cancel_with_status(core,
                                       fault == GRPC_C_METADATA_NO_MEMORY
                                           ? GRPC_STATUS_RESOURCE_EXHAUSTED
                                           : GRPC_STATUS_INVALID_ARGUMENT,
                                       text, NULL);
}

grpc_byte_buffer *gci_client_pack(const ProtobufCMessage *request,
                                  const struct grpc_c_call_options *options)
{
    return options == NULL || options->n_lent == 0
               ? gci_pack(request)
               : gci_pack_lent(request, options->lent, options->n_lent);
}

void gci_client_give_back(const struct grpc_c_call_options *options)
{
    for (size_t i = 0; options != NULL && i < options->n_lent; i++) {
        options->lent[i].release(options->lent[i].arg);
    }
}

bool gci_client_may_send(const grpc_c_channel *channel, grpc_call *core,
                         const grpc_byte_buffer *message)
{
    size_t length = message->data.raw.slice_buffer.length;
    char text[128];

    if (length <= channel->max_send) {
        return true;
    }
    (void)snprintf(text, sizeof(text),
                   "a message of %zu bytes is larger than this channel's limit of %zu", length,
                   channel->max_send);
    (void)grpc_call_cancel_with_status(core, GRPC_STATUS_RESOURCE_EXHAUSTED, text, NULL);
    return false;
}

grpc_op gci_client_open_op(grpc_call *core, const struct grpc_c_call_options *options,
                           struct gci_metadata *metadata)
{
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};

    for (size_t i = 0; options != NULL && i < options->n_metadata; i++) {
        enum grpc_c_metadata_fault fault = gci_metadata_add(metadata, &options->metadata[i]);
        if (fault != GRPC_C_METADATA_OK) {
            refuse(core, &options->metadata[i], fault);
            break;
        }
    }
    if (options != NULL && options->compression != GRPC_C_IDENTITY) {
        const char *name = options->compression == GRPC_C_GZIP ? "gzip" : "deflate";
        (void)gci_metadata_add_own(metadata, GRPC_COMPRESSION_REQUEST_ALGORITHM_MD_KEY, name,
                                   strlen(name));
    }
    op.data.send_initial_metadata.metadata = metadata->entries;
    op.data.send_initial_metadata.count = metadata->n;
    if (options != NULL && options->wait_for_ready) {
        op.flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                   GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
    }
    return op;
}

ProtobufCMessage *gci_client_unpack(const grpc_c_channel *channel,
                                    const struct grpc_c_method *method, grpc_byte_buffer *buffer,
                                    struct gci_error *error)
{
    ProtobufCMessage *message = NULL;
    struct gci_error cause;

    if (gci_is_compressed(buffer)) {
        buffer = gci_inflate(buffer, channel->max_receive, &cause);
    }
    if (buffer != NULL) {
        message = gci_unpack(method->response, buffer, SIZE_MAX, &cause);
    }
    if (message == NULL) {
        error->code = cause.code == GRPC_C_RESOURCE_EXHAUSTED ? cause.code : GRPC_C_INTERNAL;
        (void)snprintf(error->text, sizeof(error->text), "the answer cannot be read: %.200s",
                       cause.text);
    }
    return message;
}
