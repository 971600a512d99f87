/*
 * ReadStream: refs in, their payloads or failures out, in order.
 *
 * A request is cut into chunks, one for each response: so many refs that their answer stays well
 * under 1 MiB, or one larger payload. A chunk's reads run at the same time; its answer goes out
 * once all are done and the chunks before it have gone, lent from the memory that the store read
 * into. As many chunks run as the stream may have charged: a peer that does not read stops its own.
 */
#include <stddef.h>
#include <stdlib.h>

#include "errors.h"
#include "stream.h"

#define CHARGED_MAX (1u << 20)   /* bytes of chunks under way, beyond which none is begun */
#define CHUNK_BYTES (256u << 10) /* of a response, unless one payload is larger */
#define FAILURE_MAX 1200u        /* bytes: PSD_MESSAGE_MAX and what is around it */
#define RESULT_COST 256u         /* bytes a result takes beside its payload */

struct slot {
    enum pls_code code;
    Payloadstore__V1__ReadResult result;
    struct psd_failure *failure;
};

struct chunk {
    struct chunk *next;
    struct read_stream *stream;
    atomic_uint references; /* the stream's, and one for each payload that is lent */
    atomic_size_t running;  /* reads, and the step that starts them */
    atomic_bool done;
    size_t n;
    struct pls_read *reads; /* behind the slots */
    struct slot slots[];
};

struct read_stream {
    struct psd_stream base;                       /* first */
    Payloadstore__V1__ReadStreamRequest *request; /* owned, being answered; NULL: none */
    size_t next_ref;                              /* of the request, in no chunk yet */
    struct chunk *first, *last;                   /* not answered yet, in order */
};

/* -- chunks ------------------------------------------------------------------------------------ */

/* Takes its payloads along. */
static void chunk_release(struct chunk *chunk)
{
    if (atomic_fetch_sub(&chunk->references, 1) > 1) {
        return;
    }
    for (size_t i = 0; i < chunk->n; i++) {
        pls_view_release(&chunk->reads[i].view);
        free(chunk->slots[i].failure);
    }
    free(chunk);
}

/* True for whoever was the last to be done. */
static bool one_is_done(struct chunk *chunk)
{
    return atomic_fetch_sub(&chunk->running, 1) == 1;
}

static void read_done(struct pls_read *read, enum pls_code code)
{
    struct chunk *chunk = read->data;
    struct psd_stream *stream = &chunk->stream->base;
    chunk->slots[read - chunk->reads].code = code;
    if (one_is_done(chunk)) {
        atomic_store(&chunk->done, true); /* which may be its end */
        psd_stream_run(stream);
        psd_stream_release(stream);
    }
}

static struct chunk *chunk_create(struct read_stream *s, Payloadstore__V1__PayloadRef **refs,
                                  size_t n)
{
    struct chunk *chunk =
        calloc(1, sizeof *chunk + n * (sizeof chunk->slots[0] + sizeof chunk->reads[0]));
    if (chunk == NULL) {
        return NULL;
    }
    chunk->stream = s;
    chunk->n = n;
    chunk->reads = (struct pls_read *)&chunk->slots[n];
    atomic_init(&chunk->references, 1);
    atomic_init(&chunk->running, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct pls_read *read = &chunk->reads[i];
        read->ref = psd_ref_in(refs[i]);
        read->done = read_done;
        read->data = chunk;
    }
    return chunk;
}

static void chunk_start(struct chunk *chunk, pls_store *store)
{
    struct psd_stream *stream = psd_stream_hold(&chunk->stream->base);
    pls_read_batch(store, chunk->reads, chunk->n);
    if (one_is_done(chunk)) { /* nothing had to wait for the disk */
        atomic_store(&chunk->done, true);
        psd_stream_release(stream);
    }
}

/* -- requests ---------------------------------------------------------------------------------- */

/* One that is too long for a payload can only fail. */
static uint64_t cost_of(const Payloadstore__V1__PayloadRef *ref)
{
    bool fails = ref->length > PLS_PAYLOAD_LIMIT;
    uint64_t length = fails || ref->length < FAILURE_MAX ? FAILURE_MAX : ref->length;
    return RESULT_COST + length;
}

/* How many of the request's refs, from next_ref on, make a chunk. */
static size_t next_chunk(const struct read_stream *s, uint64_t *cost)
{
    size_t n = 0;
    *cost = 0;
    for (size_t i = s->next_ref; i < s->request->n_refs; i++) {
        uint64_t more = cost_of(s->request->refs[i]);
        if (n > 0 && *cost + more > CHUNK_BYTES) {
            break;
        }
        *cost += more;
        n++;
    }
    return n;
}

static void drop_request(struct read_stream *s)
{
    if (s->request != NULL) {
        payloadstore__v1__read_stream_request__free_unpacked(s->request, NULL);
        s->request = NULL;
    }
}

/* What a request still asks for is answered when the server stops, too. */
static bool is_to_go_on(const struct read_stream *s)
{
    return s->base.code == PLS_OK || s->base.code == PLS_CLOSED;
}

/* Also for a request without refs: it gets an answer without results. */
static void start_chunk(struct read_stream *s, size_t n, uint64_t cost)
{
    struct chunk *chunk = chunk_create(s, s->request->refs + s->next_ref, n);
    if (chunk == NULL) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL);
        return;
    }
    psd_stream_charge(&s->base, cost);
    if (s->last != NULL) {
        s->last->next = chunk;
    } else {
        s->first = chunk;
    }
    s->last = chunk;
    s->next_ref += n;
    chunk_start(chunk, s->base.store);
}

static void start_chunks(struct read_stream *s)
{
    while (s->request != NULL && is_to_go_on(s)) {
        uint64_t cost;
        size_t n = next_chunk(s, &cost);
        if (!psd_stream_has_room(&s->base, cost, CHARGED_MAX)) {
            return;
        }
        start_chunk(s, n, cost);
        if (s->next_ref == s->request->n_refs) {
            drop_request(s);
        }
    }
}

/* Takes the request. */
static void take_request(struct read_stream *s, Payloadstore__V1__ReadStreamRequest *request)
{
    struct pls_error error;
    s->request = request;
    s->next_ref = 0;
    if (psd_stream_take_name(&s->base, request->store) && s->base.store == NULL) {
        enum pls_code code =
            pls_store_find(s->base.service->dir, s->base.name, &s->base.store, &error);
        if (code != PLS_OK) {
            psd_stream_deny(&s->base, code, error.text);
        }
    }
}

/* -- answers ----------------------------------------------------------------------------------- */

/* The transport has sent the payload. */
static void payload_sent(void *arg)
{
    chunk_release(arg);
}

/* The results' arrays, and what of them is lent. */
struct answer {
    Payloadstore__V1__ReadResult **results;
    struct grpc_c_lent *lent;
    size_t n_lent;
};

/* False where memory has run out. */
static bool add_failure(struct slot *slot, const struct pls_ref *ref, const char *store)
{
    slot->failure = malloc(sizeof *slot->failure);
    if (slot->failure == NULL) {
        return false;
    }
    psd_failure_init_ref(slot->failure, slot->code, store, ref);
    slot->result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_FAILURE;
    slot->result.failure = &slot->failure->message;
    return true;
}

static void add_payload(struct answer *answer, struct chunk *chunk, size_t i)
{
    struct slot *slot = &chunk->slots[i];
    const struct pls_view *view = &chunk->reads[i].view;
    slot->result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD;
    slot->result.payload.data = (uint8_t *)view->data;
    slot->result.payload.len = view->length;
    if (view->length >= PSD_LEND_LEAST) {
        answer->lent[answer->n_lent++] = (struct grpc_c_lent){
            .data = view->data, .length = view->length, .release = payload_sent, .arg = chunk};
    }
}

/* False, with the stream denied, where that is no answer. */
static bool add_result(struct read_stream *s, struct answer *answer, struct chunk *chunk, size_t i)
{
    struct slot *slot = &chunk->slots[i];
    payloadstore__v1__read_result__init(&slot->result);
    if (slot->code == PLS_NO_STORE || slot->code == PLS_CLOSED) {
        psd_stream_deny(&s->base, slot->code, NULL);
        return false;
    }
    if (slot->code == PLS_OK) {
        add_payload(answer, chunk, i);
    } else if (!add_failure(slot, &chunk->reads[i].ref, s->base.name)) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL);
        return false;
    }
    return true;
}

static void send_chunk(struct read_stream *s, struct chunk *chunk, struct answer *answer)
{
    for (size_t i = 0; i < chunk->n; i++) {
        if (!add_result(s, answer, chunk, i)) {
            return;
        }
        answer->results[i] = &chunk->slots[i].result;
    }
    Payloadstore__V1__ReadStreamResponse response = PAYLOADSTORE__V1__READ_STREAM_RESPONSE__INIT;
    response.results = answer->results;
    response.n_results = chunk->n;
    atomic_fetch_add(&chunk->references, (unsigned)answer->n_lent);
    payloadstore__v1__payload_store__read_stream__send_lent(
        s->base.call, &response, answer->lent, answer->n_lent, psd_stream_on_written, &s->base);
}

static void answer(struct read_stream *s, struct chunk *chunk)
{
    struct answer answer = {.results =
                                malloc((chunk->n + 1) * sizeof(Payloadstore__V1__ReadResult *)),
                            .lent = malloc((chunk->n + 1) * sizeof *answer.lent)};
    if (answer.results == NULL || answer.lent == NULL) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL);
    } else {
        send_chunk(s, chunk, &answer);
    }
    free(answer.results);
    free(answer.lent);
}

static void answer_done(struct read_stream *s)
{
    while (s->first != NULL && atomic_load(&s->first->done)) {
        struct chunk *chunk = s->first;
        s->first = chunk->next;
        if (s->first == NULL) {
            s->last = NULL;
        }
        answer(s, chunk);
        chunk_release(chunk);
    }
}

/* -- the stream -------------------------------------------------------------------------------- */

/* The request that came while the one before it was being answered, too. */
static void work(struct read_stream *s)
{
    do {
        ProtobufCMessage *message =
            s->request == NULL ? psd_stream_take_message(&s->base, NULL) : NULL;
        if (message != NULL) {
            take_request(s, (Payloadstore__V1__ReadStreamRequest *)message);
        }
        start_chunks(s);
        answer_done(s);
    } while (s->request == NULL && psd_stream_has_message(&s->base));
}

static void step(struct psd_stream *stream)
{
    struct read_stream *s = (struct read_stream *)stream;
    if (!psd_stream_take_events(stream)) {
        return;
    }
    work(s);
    if (!is_to_go_on(s)) {
        drop_request(s);
    }
    psd_stream_read(stream); /* one ahead, so that a half-close is seen */
    if (stream->ending && s->request == NULL && s->first == NULL) {
        psd_stream_finish(stream);
    }
}

static void destroy(struct psd_stream *stream)
{
    struct read_stream *s = (struct read_stream *)stream;
    drop_request(s);
    free(s);
}

void psd_read_stream_message(grpc_c_call *call, const Payloadstore__V1__ReadStreamRequest *request,
                             void *user)
{
    (void)request; /* taken as a whole */
    (void)user;
    psd_stream_on_message(call);
}

void psd_read_stream(grpc_c_call *call, void *user)
{
    struct read_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        psd_fail(call, PLS_NO_MEMORY, NULL, NULL);
        return;
    }
    s->base.step = step;
    s->base.destroy = destroy;
    psd_stream_begin(&s->base, call, user);
}
