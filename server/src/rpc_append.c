/*
 * Append: find the store, hand the payload over, answer with the ref.
 *
 * The payload is written from where it was received, which lasts as long as the call, without a
 * copy; one that came in very many pieces is put together first. What came in one round of a
 * polling thread goes to the store together, and so into the file by one write.
 */
#include <stddef.h>
#include <stdlib.h>

#include "errors.h"
#include "service.h"

#define WAITING_MAX 64u

struct append_call {
    grpc_c_call *call;
    struct psd_service *service;
    const char *name;   /* in the request */
    pls_store *store;   /* held */
    size_t length;      /* of the payload */
    struct iovec whole; /* a payload put together, on the heap */
    struct pls_append append;
    struct pls_job create;
};

/* The appends of this thread's round. */
static _Thread_local struct {
    struct append_call *list[WAITING_MAX];
    size_t n;
} waiting;

static void free_append(struct append_call *a)
{
    free(a->whole.iov_base);
    free(a);
}

static void append_done(struct pls_append *append, enum pls_code code)
{
    struct append_call *a = append->data;
    grpc_c_call *call = a->call;
    struct pls_ref ref = append->ref;
    pls_store_release(a->store);
    if (code != PLS_OK) {
        psd_fail(call, code, a->name, NULL);
        free_append(a);
        return;
    }
    free_append(a);
    Payloadstore__V1__AppendResponse response = PAYLOADSTORE__V1__APPEND_RESPONSE__INIT;
    Payloadstore__V1__PayloadRef out;
    psd_ref_out(&ref, &out);
    response.ref = &out;
    payloadstore__v1__payload_store__append__reply(call, &response);
}

static void fail(struct append_call *a, enum pls_code code, const char *text)
{
    psd_fail(a->call, code, a->name, text);
    free_append(a);
}

/* The first append to a name makes its store, unless it is stale. On an I/O thread. */
static void create_and_append(struct pls_job *job)
{
    struct append_call *a =
        (struct append_call *)((char *)job - offsetof(struct append_call, create));
    struct pls_error error;
    enum pls_code code =
        pls_store_open(a->service->dir, a->name, a->append.epoch, &a->store, &error);
    if (code != PLS_OK) {
        fail(a, code, error.text);
        return;
    }
    pls_append(a->store, &a->append);
}

/* Gives the store of the first one that waits all those that are for it. */
static void submit_first(void)
{
    struct pls_append *appends[WAITING_MAX];
    pls_store *store = waiting.list[0]->store;
    size_t n = 0, others = 0;
    for (size_t i = 0; i < waiting.n; i++) {
        struct append_call *a = waiting.list[i];
        if (a->store == store) {
            appends[n++] = &a->append;
        } else {
            waiting.list[others++] = a;
        }
    }
    waiting.n = others;
    pls_append_several(store, appends, n);
}

void psd_append_round_end(void)
{
    while (waiting.n > 0) {
        submit_first();
    }
}

static void wait_for_round_end(struct append_call *a)
{
    if (waiting.n == WAITING_MAX) {
        psd_append_round_end();
    }
    waiting.list[waiting.n++] = a;
}

/* The pieces are not needed any more: the received message goes. */
static bool take_whole(struct append_call *a, const struct grpc_c_bytes *bytes)
{
    uint8_t *whole = malloc(bytes->length);
    if (whole == NULL) {
        return false;
    }
    a->whole = psd_put_together(bytes, whole);
    a->append.payload = &a->whole;
    a->append.n_payload = 1;
    grpc_c_received_release(grpc_c_call_take_bytes(a->call));
    return true;
}

/* False where memory has run out. */
static bool take_payload(struct append_call *a)
{
    struct grpc_c_bytes bytes = {0};
    if (!grpc_c_call_bytes(a->call, 0, &bytes)) {
        return true; /* an empty one */
    }
    a->length = bytes.length;
    if (bytes.n_pieces > PLS_PARTS_MAX) {
        return take_whole(a, &bytes);
    }
    a->append.payload = bytes.pieces;
    a->append.n_payload = (int)bytes.n_pieces;
    return true;
}

void psd_append(grpc_c_call *call, const Payloadstore__V1__AppendRequest *request, void *user)
{
    struct psd_service *service = user;
    struct append_call *a = calloc(1, sizeof *a);
    if (a == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    a->call = call;
    a->service = service;
    a->name = psd_store_name(request->store);
    a->append.epoch = request->epoch;
    a->append.done = append_done;
    a->append.data = a;
    if (!psd_durability(service, request->durability, &a->append.durability)) {
        fail(a, PLS_INVALID_ARGUMENT, "there is no such durability");
        return;
    }
    if (!take_payload(a)) {
        fail(a, PLS_NO_MEMORY, NULL);
        return;
    }
    struct pls_error error;
    enum pls_code code = pls_store_find(service->dir, a->name, &a->store, &error);
    if (code == PLS_OK) {
        wait_for_round_end(a);
    } else if (code == PLS_NO_STORE && a->length > service->payload_max_bytes) {
        fail(a, PLS_PAYLOAD_TOO_LARGE, NULL); /* what is refused makes no store */
    } else if (code == PLS_NO_STORE) {
        a->create.run = create_and_append;
        pls_dir_run(service->dir, &a->create);
    } else {
        fail(a, code, error.text);
    }
}
