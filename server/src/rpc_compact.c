/*
 * CompactSealed: a stream of live refs in; after `commit` progress, damaged refs, the map and the
 * summary out.
 *
 *   state      what runs                      goes on by
 *   gathering  a read, or an I/O thread that  a message (take_message), then another read;
 *              takes a message's live refs    a caller silent for too long (expired)
 *   running    a thread of its own (run)      pls_compact_run's end
 *   answering  a write                        its on_written (answer)
 *              an I/O thread that reads the   the message it sends (send_next)
 *              map off the table
 *
 * One of them at a time, so the fields need no lock but for `compact`, which a cancellation reaches
 * for at any moment. A stream that ends in any way without `commit` changes nothing.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "errors.h"
#include "service.h"

#define LIVE_AT_ONCE 1024u /* refs converted at a time */
#define PER_MESSAGE  256u  /* relocations: some hundred microseconds of a polling thread */

struct compact_call {
    grpc_c_call *call;
    struct psd_service *service;
    char name[PLS_NAME_MAX + 1];
    const Payloadstore__V1__CompactSealedRequest *message; /* being taken */
    struct pls_job job;
    struct psd_idle idle; /* armed while the call waits for a message */
    pls_store *store;     /* held */
    bool dry_run;
    atomic_bool progress_unsent; /* the peer has not taken the last progress message yet */
    pthread_mutex_t lock;        /* a leaf; guards `compact` */
    pls_compact *compact;
};

/* -- the end ----------------------------------------------------------------------------------- */

/* Gives back what is held of the store; after that the call is finished, and `c` no longer ours. */
static void let_go(struct compact_call *c)
{
    pthread_mutex_lock(&c->lock);
    pls_compact *compact = c->compact;
    c->compact = NULL;
    pthread_mutex_unlock(&c->lock);
    pls_compact_destroy(compact);
    pls_store_release(c->store);
    c->store = NULL;
}

static void fail(struct compact_call *c, enum pls_code code, const char *text)
{
    let_go(c);
    psd_fail(c->call, code, c->name, text);
}

static void fail_reason(struct compact_call *c, enum grpc_c_code code,
                        Payloadstore__V1__Reason reason, const char *text)
{
    let_go(c);
    psd_fail_reason(c->call, code, reason, c->name, text);
}

static void destroy(void *data)
{
    struct compact_call *c = data;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    struct compact_call *c = arg;
    (void)call;
    pthread_mutex_lock(&c->lock);
    if (c->compact != NULL) {
        pls_compact_cancel(c->compact);
    }
    pthread_mutex_unlock(&c->lock);
}

/* -- answering --------------------------------------------------------------------------------- */

/* A response's arrays, on the heap: some hundred KiB. */
struct relocations {
    struct pls_relocation map[PER_MESSAGE];
    Payloadstore__V1__PayloadRef refs[2 * PER_MESSAGE];
    Payloadstore__V1__Relocation messages[PER_MESSAGE];
    Payloadstore__V1__Relocation *pointers[PER_MESSAGE];
};

static void answer(grpc_c_call *call, void *arg);

/* True where there was something to send, or no memory to send it with. */
static bool send_damaged(struct compact_call *c)
{
    struct psd_damaged *d = malloc(sizeof *d);
    if (d == NULL) {
        fail(c, PLS_NO_MEMORY, NULL);
        return true;
    }
    Payloadstore__V1__CompactSealedResponse response =
        PAYLOADSTORE__V1__COMPACT_SEALED_RESPONSE__INIT;
    response.n_damaged = pls_compact_next_damaged(c->compact, d->list, PSD_DAMAGED_MAX);
    response.damaged = d->pointers;
    psd_damaged_out(d, response.n_damaged);
    if (response.n_damaged > 0) {
        payloadstore__v1__payload_store__compact_sealed__send(c->call, &response, answer, c);
    }
    free(d);
    return response.n_damaged > 0;
}

static bool send_relocations(struct compact_call *c)
{
    struct relocations *r = malloc(sizeof *r);
    if (r == NULL) {
        fail(c, PLS_NO_MEMORY, NULL);
        return true;
    }
    Payloadstore__V1__CompactSealedResponse response =
        PAYLOADSTORE__V1__COMPACT_SEALED_RESPONSE__INIT;
    enum pls_code code =
        pls_compact_next_map(c->compact, r->map, PER_MESSAGE, &response.n_relocations);
    if (code != PLS_OK) {
        free(r);
        fail(c, code, "the relocation table cannot be read; the compaction has committed");
        return true;
    }
    response.relocations = r->pointers;
    for (size_t i = 0; i < response.n_relocations; i++) {
        payloadstore__v1__relocation__init(&r->messages[i]);
        psd_ref_out(&r->map[i].old_ref, &r->refs[2 * i]);
        psd_ref_out(&r->map[i].new_ref, &r->refs[2 * i + 1]);
        r->messages[i].old_ref = &r->refs[2 * i];
        r->messages[i].new_ref = &r->refs[2 * i + 1];
        r->pointers[i] = &r->messages[i];
    }
    if (response.n_relocations > 0) {
        payloadstore__v1__payload_store__compact_sealed__send(c->call, &response, answer, c);
    }
    free(r);
    return response.n_relocations > 0;
}

static void send_summary(struct compact_call *c)
{
    struct pls_compact_summary s;
    pls_compact_summary(c->compact, &s);
    Payloadstore__V1__CompactionSummary summary = PAYLOADSTORE__V1__COMPACTION_SUMMARY__INIT;
    summary.live_records = s.live_records;
    summary.relocated_records = s.relocated_records;
    summary.relocated_bytes = s.relocated_bytes;
    summary.kept_segments = s.kept_segments;
    summary.deleted_segments = s.deleted_segments;
    summary.reclaimed_bytes = s.reclaimed_bytes;
    summary.dry_run = c->dry_run;
    summary.short_of_room = s.short_of_room;
    Payloadstore__V1__CompactSealedResponse response =
        PAYLOADSTORE__V1__COMPACT_SEALED_RESPONSE__INIT;
    response.summary = &summary;
    payloadstore__v1__payload_store__compact_sealed__send(c->call, &response, NULL, NULL);
    let_go(c);
    grpc_c_call_finish(c->call, &(struct grpc_c_status){.code = GRPC_C_OK});
}

/* The next message of the answer. On an I/O thread, or the compaction's own. */
static void send_next(struct compact_call *c)
{
    if (grpc_c_call_cancelled(c->call)) {
        fail(c, PLS_CANCELLED, "the caller has gone; the compaction has committed");
        return;
    }
    if (!send_damaged(c) && !send_relocations(c)) {
        send_summary(c);
    }
}

static void send_next_job(struct pls_job *job)
{
    send_next((struct compact_call *)((char *)job - offsetof(struct compact_call, job)));
}

/* The message before has been taken. */
static void answer(grpc_c_call *call, void *arg)
{
    struct compact_call *c = arg;
    (void)call;
    c->job.run = send_next_job;
    pls_dir_run(c->service->dir, &c->job);
}

/* -- running ----------------------------------------------------------------------------------- */

static void progress_sent(grpc_c_call *call, void *arg)
{
    struct compact_call *c = arg;
    (void)call;
    atomic_store(&c->progress_unsent, false);
}

/* A peer that does not read gets no further progress: it must not pile up. */
static void send_progress(void *arg, const struct pls_compact_progress *progress)
{
    struct compact_call *c = arg;
    if (atomic_exchange(&c->progress_unsent, true)) {
        return;
    }
    Payloadstore__V1__CompactionProgress message = PAYLOADSTORE__V1__COMPACTION_PROGRESS__INIT;
    message.records_done = progress->records_done;
    message.records_total = progress->records_total;
    message.bytes_done = progress->bytes_done;
    message.bytes_total = progress->bytes_total;
    Payloadstore__V1__CompactSealedResponse response =
        PAYLOADSTORE__V1__COMPACT_SEALED_RESPONSE__INIT;
    response.progress = &message;
    payloadstore__v1__payload_store__compact_sealed__send(c->call, &response, progress_sent, c);
}

static void *run(void *arg)
{
    struct compact_call *c = arg;
    struct pls_error error;
    enum pls_code code = pls_compact_run(c->compact, send_progress, c, &error);
    if (code != PLS_OK) {
        fail(c, code, error.text);
    } else {
        send_next(c);
    }
    return NULL;
}

/* A compaction takes long: not a thread that others wait for. The call's end stands for the
 * thread's. */
static void start_run(struct compact_call *c)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, c) != 0) {
        fail(c, PLS_NO_MEMORY, "no memory for the compaction's thread");
        return;
    }
    pthread_detach(thread);
}

/* -- gathering --------------------------------------------------------------------------------- */

static void wait_for_message(struct compact_call *c)
{
    psd_idle_arm(&c->service->idle, &c->idle);
    grpc_c_call_read(c->call);
}

/* The store is not to be kept from its next compaction by a caller who says nothing. */
static void expired(struct psd_idle *idle)
{
    struct compact_call *c =
        (struct compact_call *)((char *)idle - offsetof(struct compact_call, idle));
    fail_reason(c, GRPC_C_DEADLINE_EXCEEDED, PAYLOADSTORE__V1__REASON__REASON_UNSPECIFIED,
                "no message came for too long before commit; nothing was changed");
}

/* False, with the call finished, where the first message is no beginning. */
static bool begin(struct compact_call *c)
{
    const Payloadstore__V1__CompactSealedRequest *m = c->message;
    const char *name = psd_store_name(m->store);
    if (!pls_name_valid(name)) {
        psd_fail(c->call, PLS_INVALID_NAME, name, NULL);
        return false;
    }
    snprintf(c->name, sizeof c->name, "%s", name);
    if (m->seal == NULL) {
        fail(c, PLS_INVALID_ARGUMENT, "the first message has no seal");
        return false;
    }
    if (m->map_only && m->n_live > 0) {
        fail(c, PLS_INVALID_ARGUMENT, "map_only takes no live refs");
        return false;
    }
    const struct pls_seal seal = {.sealed_id = m->seal->sealed_id,
                                  .compaction_id = m->seal->compaction_id};
    const struct pls_compact_options options = {.epoch = m->epoch,
                                                .min_garbage_percent = m->min_garbage_percent,
                                                .dry_run = m->dry_run,
                                                .map_only = m->map_only,
                                                .keep_damaged = m->keep_damaged,
                                                .carry_recent_ms = m->carry_recent_ms};
    c->dry_run = m->dry_run;
    struct pls_error error;
    pls_compact *compact = NULL;
    enum pls_code code = pls_store_find(c->service->dir, c->name, &c->store, &error);
    if (code == PLS_OK) {
        code = pls_compact_begin(c->store, &seal, &options, &compact, &error);
    }
    if (code != PLS_OK) {
        fail(c, code, error.text);
        return false;
    }
    pthread_mutex_lock(&c->lock);
    c->compact = compact;
    pthread_mutex_unlock(&c->lock);
    return true;
}

static enum pls_code take_live(struct compact_call *c, struct pls_error *error)
{
    struct pls_ref refs[LIVE_AT_ONCE];
    enum pls_code code = PLS_OK;
    for (size_t i = 0; i < c->message->n_live && code == PLS_OK;) {
        size_t n = 0;
        while (n < LIVE_AT_ONCE && i < c->message->n_live) {
            refs[n++] = psd_ref_in(c->message->live[i++]);
        }
        code = pls_compact_live(c->compact, refs, n, error);
    }
    return code;
}

/* On an I/O thread: to look at a ref that no index covers is to wait for the disk. */
static void take_message(struct pls_job *job)
{
    struct compact_call *c =
        (struct compact_call *)((char *)job - offsetof(struct compact_call, job));
    if (c->compact == NULL && !begin(c)) {
        return;
    }
    struct pls_error error;
    enum pls_code code = take_live(c, &error);
    if (code != PLS_OK) {
        fail(c, code, error.text);
        return;
    }
    if (c->message->expected_live != NULL) {
        pls_compact_expect(c->compact, c->message->expected_live->value);
    }
    /* map_only changes nothing that would have to wait for a commit. */
    if (c->message->commit || c->message->map_only) {
        start_run(c);
    } else {
        wait_for_message(c);
    }
}

void psd_compact_sealed_message(grpc_c_call *call,
                                const Payloadstore__V1__CompactSealedRequest *request, void *user)
{
    struct psd_service *service = user;
    struct compact_call *c = grpc_c_call_data(call);
    if (!psd_idle_disarm(&service->idle, &c->idle)) {
        return; /* too late: the call is being finished */
    }
    if (request == NULL) {
        fail_reason(c, GRPC_C_INVALID_ARGUMENT, PAYLOADSTORE__V1__REASON__REASON_NOT_COMMITTED,
                    "the stream ended without commit; nothing was changed");
        return;
    }
    c->message = request;
    c->job.run = take_message;
    pls_dir_run(service->dir, &c->job);
}

void psd_compact_sealed(grpc_c_call *call, void *user)
{
    struct compact_call *c = calloc(1, sizeof *c);
    if (c == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    c->call = call;
    c->service = user;
    c->idle.expired = expired;
    pthread_mutex_init(&c->lock, NULL);
    grpc_c_call_set_data(call, c, destroy);
    grpc_c_call_on_cancel(call, on_cancel, c);
    wait_for_message(c);
}
