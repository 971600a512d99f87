/*
 * AppendStream: batches in, their refs out, in order.
 *
 * A batch's payloads are written from where they were received, which the batch keeps; one that
 * came in pieces is put together. Several of a stream may be in the store at once; its queue keeps
 * them in order, and a batch that is done waits here for those before it.
 */
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "stream.h"

#define CHARGED_MAX  (8u << 20) /* bytes of batches under way, beyond which no other is read */
#define PAYLOADS_MAX 32768u /* in a batch: their refs are under 30 bytes each, the answer 1 MiB */
#define PAYLOAD_COST 128u   /* bytes a payload takes beside its own */

struct batch {
    struct batch *next;
    struct append_stream *stream;
    grpc_c_received *payloads; /* owned; being written */
    uint8_t *whole;            /* those that came in pieces; NULL: none */
    struct pls_append append;
    enum pls_code code; /* set before `done` */
    char *text;         /* its story; NULL: the code's own */
    atomic_bool done;
    size_t n_payloads;
    size_t n; /* records: as many, or 0 where they are too many */
    struct pls_record records[];
};

struct append_stream {
    struct psd_stream base; /* first */
    enum pls_durability durability;
    Payloadstore__V1__Durability durability_given;
    uint64_t epoch;
    struct batch *first, *last; /* not answered yet, in order */

    struct batch *opening; /* the last one; its store is being made */
    struct pls_job open_job;
    enum pls_code open_code; /* set, with what follows, before `opened` */
    struct pls_error open_error;
    pls_store *open_store;
    atomic_bool opened;
};

/* -- batches ----------------------------------------------------------------------------------- */

/* What a batch is to hold. */
struct measure {
    size_t n_payloads;
    size_t in_pieces; /* bytes of those that came so */
    uint64_t cost;    /* that is charged for it */
};

static struct measure measure_payloads(const grpc_c_received *payloads)
{
    struct measure m = {.cost = PAYLOAD_COST + grpc_c_received_size(payloads)};
    struct grpc_c_bytes bytes;
    for (; grpc_c_received_bytes(payloads, m.n_payloads, &bytes); m.n_payloads++) {
        m.in_pieces += bytes.n_pieces > 1 ? bytes.length : 0;
        m.cost += PAYLOAD_COST;
    }
    m.cost += m.in_pieces;
    return m;
}

static void set_records(struct batch *b)
{
    uint8_t *whole = b->whole;
    for (size_t i = 0; i < b->n; i++) {
        struct grpc_c_bytes bytes = {0};
        (void)grpc_c_received_bytes(b->payloads, i, &bytes);
        if (bytes.n_pieces == 1) {
            b->records[i].payload = bytes.pieces[0];
        } else if (bytes.n_pieces > 1) {
            assert(whole != NULL); /* batch_create has seen the same */
            b->records[i].payload = psd_put_together(&bytes, whole);
            whole += bytes.length;
        }
    }
}

/* Takes the payloads where it succeeds. */
static struct batch *batch_create(struct append_stream *s, grpc_c_received *payloads,
                                  const struct measure *m)
{
    size_t n = m->n_payloads <= PAYLOADS_MAX ? m->n_payloads : 0;
    struct batch *b = calloc(1, sizeof *b + n * sizeof b->records[0]);
    if (b == NULL) {
        return NULL;
    }
    if (n > 0 && m->in_pieces > 0) {
        b->whole = malloc(m->in_pieces);
        if (b->whole == NULL) {
            free(b);
            return NULL;
        }
    }
    b->stream = s;
    b->payloads = payloads;
    b->n_payloads = m->n_payloads;
    b->n = n;
    set_records(b);
    return b;
}

static void batch_destroy(struct batch *b)
{
    grpc_c_received_release(b->payloads);
    free(b->whole);
    free(b->text);
    free(b);
}

static void end_batch(struct batch *b, enum pls_code code, const char *text)
{
    b->code = code;
    b->text = text != NULL ? strdup(text) : NULL;
    atomic_store(&b->done, true);
}

/* -- into the store ---------------------------------------------------------------------------- */

static void append_done(struct pls_append *append, enum pls_code code)
{
    struct batch *b = append->data;
    struct psd_stream *stream = &b->stream->base;
    end_batch(b, code, NULL); /* which may be its end */
    psd_stream_run(stream);
    psd_stream_release(stream);
}

static void submit(struct append_stream *s, struct batch *b)
{
    b->append.durability = s->durability;
    b->append.epoch = s->epoch;
    b->append.done = append_done;
    b->append.data = b;
    psd_stream_hold(&s->base);
    pls_append_batch(s->base.store, &b->append, b->records, b->n);
}

/* On an I/O thread. */
static void make_store(struct pls_job *job)
{
    struct append_stream *s =
        (struct append_stream *)((char *)job - offsetof(struct append_stream, open_job));
    s->open_code = pls_store_open(s->base.service->dir, s->base.name, s->epoch, &s->open_store,
                                  &s->open_error);
    atomic_store(&s->opened, true);
    psd_stream_run(&s->base);
    psd_stream_release(&s->base);
}

static void take_made_store(struct append_stream *s)
{
    if (s->opening == NULL || !atomic_exchange(&s->opened, false)) {
        return;
    }
    struct batch *b = s->opening;
    s->opening = NULL;
    if (s->open_code == PLS_OK) {
        s->base.store = s->open_store;
        submit(s, b);
    } else {
        end_batch(b, s->open_code, s->open_error.text);
    }
}

/* The first batch to a name makes its store, unless it is refused. */
static void find_store_and_submit(struct append_stream *s, struct batch *b)
{
    struct pls_error error;
    enum pls_code code = pls_store_find(s->base.service->dir, s->base.name, &s->base.store, &error);
    if (code == PLS_OK) {
        submit(s, b);
    } else if (code == PLS_NO_STORE) {
        s->opening = b;
        s->open_job.run = make_store;
        psd_stream_hold(&s->base);
        pls_dir_run(s->base.service->dir, &s->open_job);
    } else {
        end_batch(b, code, error.text);
    }
}

/* -- messages ---------------------------------------------------------------------------------- */

/* False, with the batch ended, where the store is not to be asked. */
static bool is_to_store(const struct append_stream *s, struct batch *b)
{
    char text[128];
    if (b->n_payloads > PAYLOADS_MAX) {
        snprintf(text, sizeof text, "a batch of %zu payloads; %u are the most", b->n_payloads,
                 PAYLOADS_MAX);
        end_batch(b, PLS_PAYLOAD_TOO_LARGE, text);
        return false;
    }
    if (b->n == 0) {
        end_batch(b, PLS_OK, NULL);
        return false;
    }
    for (size_t i = 0; i < b->n; i++) {
        if (b->records[i].payload.iov_len > s->base.service->payload_max_bytes) {
            snprintf(text, sizeof text, "payload %zu of the batch: %s", i,
                     pls_strerror(PLS_PAYLOAD_TOO_LARGE));
            end_batch(b, PLS_PAYLOAD_TOO_LARGE, text);
            return false;
        }
    }
    return true;
}

static bool take_first(struct append_stream *s,
                       const Payloadstore__V1__AppendStreamRequest *request)
{
    if (!psd_durability(s->base.service, request->durability, &s->durability)) {
        psd_stream_deny(&s->base, PLS_INVALID_ARGUMENT, "there is no such durability");
        return false;
    }
    s->durability_given = request->durability;
    s->epoch = request->epoch;
    return true;
}

static bool is_like_first(struct append_stream *s,
                          const Payloadstore__V1__AppendStreamRequest *request)
{
    const char *what = NULL;
    if (request->durability != 0 && request->durability != s->durability_given) {
        what = "a later message has another durability than the first";
    } else if (request->epoch != 0 && request->epoch != s->epoch) {
        what = "a later message has another epoch than the first";
    }
    if (what != NULL) {
        psd_stream_deny(&s->base, PLS_INVALID_ARGUMENT, what);
    }
    return what == NULL;
}

/* False with the stream denied. */
static bool take_settings(struct append_stream *s,
                          const Payloadstore__V1__AppendStreamRequest *request)
{
    bool first = !s->base.named;
    return psd_stream_take_name(&s->base, request->store) &&
           (first ? take_first(s, request) : is_like_first(s, request));
}

/* Takes the payloads. */
static void take_request(struct append_stream *s,
                         const Payloadstore__V1__AppendStreamRequest *request,
                         grpc_c_received *payloads)
{
    struct measure m = measure_payloads(payloads);
    struct batch *b = take_settings(s, request) ? batch_create(s, payloads, &m) : NULL;
    if (b == NULL) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL); /* unless it is denied already */
        grpc_c_received_release(payloads);
        return;
    }
    psd_stream_charge(&s->base, m.cost);
    if (s->last != NULL) {
        s->last->next = b;
    } else {
        s->first = b;
    }
    s->last = b;
    if (is_to_store(s, b)) {
        if (s->base.store != NULL) {
            submit(s, b);
        } else {
            find_store_and_submit(s, b);
        }
    }
}

/* -- answers ----------------------------------------------------------------------------------- */

static void send(struct append_stream *s, const Payloadstore__V1__AppendStreamResponse *response)
{
    payloadstore__v1__payload_store__append_stream__send(s->base.call, response,
                                                         psd_stream_on_written, &s->base);
}

static void send_failure(struct append_stream *s, const struct batch *b)
{
    Payloadstore__V1__AppendStreamResponse response =
        PAYLOADSTORE__V1__APPEND_STREAM_RESPONSE__INIT;
    struct psd_failure failure;
    psd_failure_init(&failure, b->code, s->base.name, b->text);
    response.failure = &failure.message;
    send(s, &response);
}

static void send_refs(struct append_stream *s, const struct batch *b)
{
    Payloadstore__V1__AppendStreamResponse response =
        PAYLOADSTORE__V1__APPEND_STREAM_RESPONSE__INIT;
    Payloadstore__V1__PayloadRef *refs = malloc(b->n * sizeof *refs + 1);
    Payloadstore__V1__PayloadRef **pointers =
        malloc(b->n * sizeof(Payloadstore__V1__PayloadRef *) + 1);
    if (refs == NULL || pointers == NULL) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL);
    } else {
        for (size_t i = 0; i < b->n; i++) {
            psd_ref_out(&b->records[i].ref, &refs[i]);
            pointers[i] = &refs[i];
        }
        response.refs = pointers;
        response.n_refs = b->n;
        send(s, &response);
    }
    free(pointers);
    free(refs);
}

/* A batch of a store that has gone is the stream's end, and so are those behind it. */
static void answer(struct append_stream *s, const struct batch *b)
{
    if (b->code == PLS_NO_STORE || b->code == PLS_CLOSED) {
        psd_stream_deny(&s->base, b->code, NULL);
    } else if (b->code == PLS_OK) {
        send_refs(s, b);
    } else {
        send_failure(s, b);
    }
}

static void answer_done(struct append_stream *s)
{
    while (s->first != NULL && atomic_load(&s->first->done)) {
        struct batch *b = s->first;
        s->first = b->next;
        if (s->first == NULL) {
            s->last = NULL;
        }
        answer(s, b);
        batch_destroy(b);
    }
}

/* -- the stream -------------------------------------------------------------------------------- */

static void step(struct psd_stream *stream)
{
    struct append_stream *s = (struct append_stream *)stream;
    if (!psd_stream_take_events(stream)) {
        return;
    }
    take_made_store(s);
    grpc_c_received *payloads = NULL;
    ProtobufCMessage *message = psd_stream_take_message(stream, &payloads);
    if (message != NULL) {
        take_request(s, (Payloadstore__V1__AppendStreamRequest *)message, payloads);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    answer_done(s);
    if (s->opening == NULL && psd_stream_has_room(stream, 1, CHARGED_MAX)) {
        psd_stream_read(stream);
    }
    if (stream->ending && s->first == NULL) {
        psd_stream_finish(stream);
    }
}

static void destroy(struct psd_stream *stream)
{
    free(stream);
}

void psd_append_stream_message(grpc_c_call *call,
                               const Payloadstore__V1__AppendStreamRequest *request, void *user)
{
    (void)request; /* taken as a whole */
    (void)user;
    psd_stream_on_message(call);
}

void psd_append_stream(grpc_c_call *call, void *user)
{
    struct append_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    s->base.step = step;
    s->base.destroy = destroy;
    psd_stream_begin(&s->base, call, user);
}
