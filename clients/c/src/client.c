/* Opening and closing, and what all calls go by. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#define MAX_PAYLOAD_DEFAULT ((size_t)64 << 20)
#define MESSAGE_OVERHEAD    1024 /* bytes around a payload */
#define DAMAGED_AT_ONCE     256

int64_t plci_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct grpc_c_channel_tls tls_of(const struct plc_tls *tls)
{
    return (struct grpc_c_channel_tls){tls->ca_file, tls->certificate_file, tls->key_file,
                                       tls->server_name};
}

static plc_client *create(const char *target, const struct plc_options *options)
{
    size_t max_payload =
        options->max_payload_bytes != 0 ? options->max_payload_bytes : MAX_PAYLOAD_DEFAULT;
    const struct grpc_c_channel_tls tls =
        options->tls != NULL ? tls_of(options->tls) : (struct grpc_c_channel_tls){0};
    const struct grpc_c_channel_options channel_options = {
        .max_receive_bytes = max_payload + MESSAGE_OVERHEAD,
        .tls = options->tls != NULL ? &tls : NULL,
        .keepalive_ms = options->keepalive_ms,
        .keepalive_timeout_ms = options->keepalive_timeout_ms,
        .connect_timeout_ms = options->connect_timeout_ms,
        .slowest_connect_ms = options->reconnect_ms,
    };
    plc_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    client->store = strdup(options->store != NULL ? options->store : "");
    if (client->store == NULL) {
        goto free_client;
    }
    client->channel = grpc_c_channel_create(target, &channel_options);
    if (client->channel == NULL) {
        goto free_store;
    }
    client->deadline_ms =
        options->deadline_ms != 0 ? options->deadline_ms : PLC_DEADLINE_DEFAULT_MS;
    client->append_deadline_ms =
        options->append_deadline_ms != 0 ? options->append_deadline_ms : client->deadline_ms;
    client->wait_for_server = options->wait_for_server;
    client->unanswered.next = client->unanswered.prev = &client->unanswered;
    pthread_mutex_init(&client->lock, NULL);
    return client;

free_store:
    free(client->store);
free_client:
    free(client);
    return NULL;
}

/* Before the channel is made, which tells its causes to the log alone. */
static enum plc_code check_tls(const struct plc_tls *tls, struct plc_error *error)
{
    const struct grpc_c_channel_tls files = tls_of(tls);
    char cause[512];

    if (grpc_c_channel_tls_check(&files, cause, sizeof cause) != 0) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "TLS: %s", cause);
    }
    return PLC_OK;
}

enum plc_code plc_client_open(const char *target, const struct plc_options *options,
                              plc_client **client, struct plc_error *error)
{
    static const struct plc_options defaults;
    options = options != NULL ? options : &defaults;
    if (target == NULL || target[0] == '\0') {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the target is empty");
    }
    if (options->deadline_ms < 0 || options->append_deadline_ms < 0) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "a deadline is below 0");
    }
    if (options->max_payload_bytes > PLC_PAYLOAD_LIMIT - MESSAGE_OVERHEAD) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "max_payload_bytes is above %u",
                         PLC_PAYLOAD_LIMIT - MESSAGE_OVERHEAD);
    }
    if (options->tls != NULL && check_tls(options->tls, error) != PLC_OK) {
        return PLC_INVALID_ARGUMENT;
    }
    plc_client *opened = create(target, options);
    if (opened == NULL) {
        return plci_fail(error, PLC_NO_MEMORY, "no memory, or no thread, for a client");
    }
    *client = opened;
    return plci_ok(error);
}

void plc_client_close(plc_client *client)
{
    if (client == NULL) {
        return;
    }
    grpc_c_channel_destroy(client->channel);
    pthread_mutex_destroy(&client->lock);
    free(client->store);
    free(client);
}

/* -- calls ------------------------------------------------------------------------------------- */

const char *plci_store(const plc_client *client, const struct plc_call *call)
{
    return call != NULL && call->store != NULL ? call->store : client->store;
}

uint64_t plci_epoch(const struct plc_call *call)
{
    return call != NULL ? call->epoch : 0;
}

struct grpc_c_call_options plci_options(const plc_client *client, const struct plc_call *call,
                                        int64_t usual_ms)
{
    int64_t deadline_ms = call != NULL && call->deadline_ms != 0 ? call->deadline_ms : usual_ms;
    return (struct grpc_c_call_options){
        /* To the shim 0 means none. One below 0 has passed. */
        .timeout_ms = deadline_ms,
        .wait_for_ready = client->wait_for_server,
    };
}

/* -- appends without an answer ------------------------------------------------------------------
 */

void plci_unanswered_add(plc_client *client, struct plci_unanswered *unanswered)
{
    pthread_mutex_lock(&client->lock);
    unanswered->since_ms = plci_now_ms(); /* under the lock, so that the ring is in order */
    unanswered->prev = client->unanswered.prev;
    unanswered->next = &client->unanswered;
    unanswered->prev->next = unanswered;
    unanswered->next->prev = unanswered;
    pthread_mutex_unlock(&client->lock);
}

void plci_unanswered_remove(plc_client *client, struct plci_unanswered *unanswered)
{
    pthread_mutex_lock(&client->lock);
    unanswered->prev->next = unanswered->next;
    unanswered->next->prev = unanswered->prev;
    pthread_mutex_unlock(&client->lock);
}

int64_t plci_unanswered_since(plc_client *client)
{
    pthread_mutex_lock(&client->lock);
    const struct plci_unanswered *oldest = client->unanswered.next;
    int64_t since = oldest != &client->unanswered ? oldest->since_ms : plci_now_ms();
    pthread_mutex_unlock(&client->lock);
    return since;
}

/* -- messages ---------------------------------------------------------------------------------- */

void plci_ref_out(const struct plc_ref *ref, Payloadstore__V1__PayloadRef *out)
{
    payloadstore__v1__payload_ref__init(out);
    out->file_id = ref->file_id;
    out->offset = ref->offset;
    out->length = ref->length;
    out->crc32c = ref->crc32c;
}

struct plc_ref plci_ref_in(const Payloadstore__V1__PayloadRef *ref)
{
    if (ref == NULL) {
        return (struct plc_ref){0};
    }
    return (struct plc_ref){ref->file_id, ref->offset, ref->length, ref->crc32c};
}

void plci_tell_damaged(Payloadstore__V1__DamagedRef *const *refs, size_t n,
                       void (*damaged)(void *arg, const struct plc_damaged *damaged, size_t n),
                       void *arg)
{
    struct plc_damaged told[DAMAGED_AT_ONCE];
    size_t filled = 0;

    for (size_t i = 0; i < n && damaged != NULL; i++) {
        told[filled++] = (struct plc_damaged){
            plci_ref_in(refs[i]->ref),
            refs[i]->code == GRPC_C_NOT_FOUND ? PLC_NOT_FOUND : PLC_DATA_LOSS, refs[i]->message};
        if (filled == DAMAGED_AT_ONCE || i == n - 1) {
            damaged(arg, told, filled);
            filled = 0;
        }
    }
}

bool plci_durability_out(enum plc_durability durability, Payloadstore__V1__Durability *out)
{
    switch (durability) {
    case PLC_SERVER_DEFAULT:
        *out = PAYLOADSTORE__V1__DURABILITY__DURABILITY_UNSPECIFIED;
        return true;
    case PLC_BUFFERED:
        *out = PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED;
        return true;
    case PLC_SYNCED:
        *out = PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED;
        return true;
    default:
        return false;
    }
}
