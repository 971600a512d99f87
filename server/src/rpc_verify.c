/*
 * Verify: one request in; progress and damaged refs out.
 *
 * A thread of its own reads through the store, fills `found`, and sends it with the progress as it
 * comes. One message at a time is under way: while the peer does not take it, progress is left out,
 * and once half of `found` is full, the reading waits.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "errors.h"
#include "service.h"

#define PROGRESS_MS 250
#define LOOK_MS     100 /* between two looks at whether the call or the server is to end */

struct verify_call {
    grpc_c_call *call;
    struct psd_service *service;
    const char *name; /* the request's */
    pls_verify *verify;
    int64_t sent_ms; /* when the last message was sent */
    sem_t taken;     /* 1 while no message is under way */
    size_t n_found;
    struct psd_damaged found;
};

static void destroy(void *data)
{
    struct verify_call *c = data;
    sem_destroy(&c->taken);
    free(c);
}

/* -- answering --------------------------------------------------------------------------------- */

static void on_taken(grpc_c_call *call, void *arg)
{
    struct verify_call *c = arg;
    (void)call;
    sem_post(&c->taken);
}

static void send_found(struct verify_call *c, void (*on_written)(grpc_c_call *call, void *arg))
{
    struct pls_verify_progress progress;
    pls_verify_progress(c->verify, &progress);
    psd_damaged_out(&c->found, c->n_found);
    Payloadstore__V1__VerifyResponse response = PAYLOADSTORE__V1__VERIFY_RESPONSE__INIT;
    response.records_checked = progress.records_checked;
    response.bytes_checked = progress.bytes_checked;
    response.bytes_total = progress.bytes_total;
    response.damaged = c->found.pointers;
    response.n_damaged = c->n_found;
    payloadstore__v1__payload_store__verify__send(c->call, &response, on_written, c);
    c->n_found = 0;
    c->sent_ms = psd_now_ms();
}

/* The call is finished after what is held of the store was given back. */
static void finish(struct verify_call *c, enum pls_code code, const char *text)
{
    if (code == PLS_OK) {
        send_found(c, NULL);
    }
    pls_verify_destroy(c->verify);
    if (code == PLS_OK) {
        grpc_c_call_finish(c->call, &(struct grpc_c_status){.code = GRPC_C_OK});
    } else {
        psd_fail(c->call, code, c->name, text);
    }
}

/* -- running ----------------------------------------------------------------------------------- */

static bool is_to_end(const struct verify_call *c)
{
    return grpc_c_call_cancelled(c->call) || atomic_load(&c->service->stopping);
}

/* True once no message is under way. */
static bool wait_until_taken(struct verify_call *c)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return sem_clockwait(&c->taken, CLOCK_MONOTONIC, &until) == 0;
}

/* After it there is room for half a message's refs, or the call is to end. */
static void tell(struct verify_call *c)
{
    bool full = c->n_found >= PSD_DAMAGED_MAX / 2;
    if (!full && psd_now_ms() - c->sent_ms < PROGRESS_MS) {
        return;
    }
    bool taken = sem_trywait(&c->taken) == 0;
    while (full && !taken && !is_to_end(c)) {
        taken = wait_until_taken(c);
    }
    if (taken) {
        send_found(c, on_taken);
    }
}

static void *run(void *arg)
{
    struct verify_call *c = arg;
    struct pls_error error;
    enum pls_code code = PLS_OK;
    bool more = true;
    while (code == PLS_OK && more && !is_to_end(c)) {
        size_t n;
        code = pls_verify_next(c->verify, c->found.list + c->n_found, PSD_DAMAGED_MAX - c->n_found,
                               &n, &more, &error);
        c->n_found += n;
        if (code == PLS_OK && more) {
            tell(c);
        }
    }
    if (code != PLS_OK || !more) {
        finish(c, code, error.text);
    } else if (grpc_c_call_cancelled(c->call)) {
        finish(c, PLS_CANCELLED, NULL);
    } else {
        finish(c, PLS_CLOSED, "the server is being stopped");
    }
    return NULL;
}

static enum pls_code begin(struct verify_call *c, uint64_t bytes_per_second,
                           struct pls_error *error)
{
    const struct pls_verify_options options = {.bytes_per_second = bytes_per_second};
    pls_store *store = NULL;
    enum pls_code code = pls_store_find(c->service->dir, c->name, &store, error);
    if (code == PLS_OK) {
        code = pls_verify_begin(store, &options, &c->verify, error);
    }
    pls_store_release(store);
    return code;
}

void psd_verify(grpc_c_call *call, const Payloadstore__V1__VerifyRequest *request, void *user)
{
    struct verify_call *c = malloc(sizeof *c);
    if (c == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    c->call = call;
    c->service = user;
    c->name = psd_store_name(request->store);
    c->verify = NULL;
    c->n_found = 0;
    c->sent_ms = psd_now_ms();
    sem_init(&c->taken, 0, 1);
    grpc_c_call_set_data(call, c, destroy);
    struct pls_error error;
    pthread_t thread;
    enum pls_code code = begin(c, request->bytes_per_second, &error);
    if (code != PLS_OK) {
        psd_fail(call, code, c->name, error.text);
    } else if (pthread_create(&thread, NULL, run, c) != 0) {
        finish(c, PLS_NO_MEMORY, "no memory for the scrub's thread");
    } else {
        pthread_detach(thread);
    }
}
