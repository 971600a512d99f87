#include "service_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PER_MESSAGE 5000u

/* Long: a server under a sanitizer is slow, and one that hangs must still end the test. */
static const struct grpc_c_call_options patient = {.timeout_ms = 300000, .wait_for_ready = true};

int ref_compare(const void *a, const void *b)
{
    const struct ref *x = a, *y = b;
    if (x->file_id != y->file_id) {
        return x->file_id < y->file_id ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static struct ref ref_in(const Payloadstore__V1__PayloadRef *ref)
{
    return (struct ref){ref->file_id, ref->offset, ref->length, ref->crc32c};
}

static void ref_out(const struct ref *ref, Payloadstore__V1__PayloadRef *out)
{
    payloadstore__v1__payload_ref__init(out);
    out->file_id = ref->file_id;
    out->offset = ref->offset;
    out->length = ref->length;
    out->crc32c = ref->crc32c;
}

static enum grpc_c_code end(struct grpc_c_result *result)
{
    enum grpc_c_code code = result->code;
    if (code != GRPC_C_OK) {
        printf("# %s: %s\n", grpc_c_code_name((int)code), result->message);
    }
    grpc_c_result_fini(result);
    return code;
}

enum grpc_c_code client_append(grpc_c_channel *channel, const char *store, const void *payload,
                               size_t length, Payloadstore__V1__Durability durability,
                               struct ref *ref)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__AppendRequest request = PAYLOADSTORE__V1__APPEND_REQUEST__INIT;
    request.store = (char *)store;
    request.payload.data = (uint8_t *)payload;
    request.payload.len = length;
    request.durability = durability;
    Payloadstore__V1__AppendResponse *response =
        payloadstore__v1__payload_store__append__sync(channel, &request, &patient, &result);
    if (response != NULL) {
        *ref = ref_in(response->ref);
        payloadstore__v1__append_response__free_unpacked(response, NULL);
    }
    return end(&result);
}

enum grpc_c_code client_read(grpc_c_channel *channel, const char *store, const struct ref *ref,
                             uint8_t **payload, size_t *length)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__PayloadRef out;
    Payloadstore__V1__ReadRequest request = PAYLOADSTORE__V1__READ_REQUEST__INIT;
    ref_out(ref, &out);
    request.store = (char *)store;
    request.ref = &out;
    Payloadstore__V1__ReadResponse *response =
        payloadstore__v1__payload_store__read__sync(channel, &request, &patient, &result);
    if (response != NULL) {
        *length = response->payload.len;
        *payload = response->payload.data;
        response->payload.data = NULL; /* it is the caller's now */
        response->payload.len = 0;
        payloadstore__v1__read_response__free_unpacked(response, NULL);
    }
    enum grpc_c_code code = result.code;
    grpc_c_result_fini(&result);
    return code;
}

enum grpc_c_code client_seal(grpc_c_channel *channel, const char *store, uint32_t *sealed_id)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__SealRequest request = PAYLOADSTORE__V1__SEAL_REQUEST__INIT;
    request.store = (char *)store;
    Payloadstore__V1__SealResponse *response =
        payloadstore__v1__payload_store__seal__sync(channel, &request, &patient, &result);
    if (response != NULL) {
        *sealed_id = response->seal->sealed_id;
        payloadstore__v1__seal_response__free_unpacked(response, NULL);
    }
    return end(&result);
}

uint64_t client_disk_usage(grpc_c_channel *channel, const char *store)
{
    struct grpc_c_result result = {0};
    uint64_t usage = UINT64_MAX;
    Payloadstore__V1__StatRequest request = PAYLOADSTORE__V1__STAT_REQUEST__INIT;
    request.store = (char *)store;
    Payloadstore__V1__StatResponse *response =
        payloadstore__v1__payload_store__stat__sync(channel, &request, &patient, &result);
    if (response != NULL) {
        usage = response->disk_usage_bytes;
        payloadstore__v1__stat_response__free_unpacked(response, NULL);
    }
    end(&result);
    return usage;
}

grpc_c_stream *client_compact_open(grpc_c_channel *channel, const char *store, uint32_t sealed_id)
{
    Payloadstore__V1__SealHandle seal = PAYLOADSTORE__V1__SEAL_HANDLE__INIT;
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    seal.sealed_id = sealed_id;
    seal.compaction_id = sealed_id + 1;
    request.store = (char *)store;
    request.seal = &seal;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__compact_sealed__open(channel, &patient);
    payloadstore__v1__payload_store__compact_sealed__write(stream, &request);
    return stream;
}

static void send_live(grpc_c_stream *stream, const struct ref *refs, size_t n, size_t stride)
{
    Payloadstore__V1__PayloadRef *out = calloc(n, sizeof *out);
    Payloadstore__V1__PayloadRef **pointers = calloc(n, sizeof(Payloadstore__V1__PayloadRef *));
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    for (size_t i = 0; i < n; i++) {
        ref_out(&refs[i * stride], &out[i]);
        pointers[i] = &out[i];
    }
    request.live = pointers;
    request.n_live = n;
    payloadstore__v1__payload_store__compact_sealed__write(stream, &request);
    free(pointers);
    free(out);
}

void client_compact_live(grpc_c_stream *stream, const struct ref *refs, size_t n, size_t stride)
{
    for (size_t i = 0; i < n; i += PER_MESSAGE) {
        size_t part = n - i < PER_MESSAGE ? n - i : PER_MESSAGE;
        send_live(stream, &refs[i * stride], part, stride);
    }
}

void client_compact_commit(grpc_c_stream *stream)
{
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    request.commit = true;
    payloadstore__v1__payload_store__compact_sealed__write(stream, &request);
    grpc_c_stream_writes_done(stream);
}

enum grpc_c_code client_compact_finish(grpc_c_stream *stream,
                                       void (*moved)(void *arg, const struct ref *old_ref,
                                                     const struct ref *new_ref),
                                       void *arg, struct client_summary *summary)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__CompactSealedResponse *response;
    while ((response = payloadstore__v1__payload_store__compact_sealed__read(stream)) != NULL) {
        for (size_t i = 0; i < response->n_relocations; i++) {
            struct ref old_ref = ref_in(response->relocations[i]->old_ref);
            struct ref new_ref = ref_in(response->relocations[i]->new_ref);
            moved(arg, &old_ref, &new_ref);
        }
        if (response->summary != NULL) {
            *summary = (struct client_summary){
                response->summary->live_records, response->summary->relocated_records,
                response->summary->deleted_segments, response->summary->reclaimed_bytes};
        }
        payloadstore__v1__compact_sealed_response__free_unpacked(response, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    return end(&result);
}
