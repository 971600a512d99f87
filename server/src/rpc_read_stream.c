/*
 * ReadStream: refs in, their payloads or failures out, in order.
 *
 * A request is cut into chunks, one for each response: so many refs that their answer stays well
 * under 1 MiB, or one larger payload. A chunk's reads run at the same time, each into its place in
 * the answer (read_results.h); that goes out from there once all are done and the chunks before it
 * have gone. Where one has failed, or there is one larger payload, which stays in the memory that
 * the store read it into, protobuf-c packs the answer. As many chunks run as the stream may have
 * charged: a peer that does not read stops its own.
 */
#include <stddef.h>
#include <stdlib.h>

#include "errors.h"
#include "read_results.h"
#include "stream.h"

#define CHARGED_MAX (1u << 20)   /* bytes of chunks under way, beyond which none is begun */
#define CHUNK_BYTES (256u << 10) /* of a response, unless one payload is larger */
#define FAILURE_MAX 1200u        /* bytes: PSD_MESSAGE_MAX and what is around it */
#define RESULT_COST 256u         /* bytes a result takes beside its payload */

struct chunk {
    struct chunk *next;
    struct read_stream *stream;
    atomic_uint references; /* the stream's, and one for each payload or answer that is lent */
    atomic_size_t running;  /* reads, and the step that starts them */
    atomic_bool done;
    atomic_bool failed; /* one of the reads */
    size_t n;
    enum pls_code *codes; /* behind the reads */
    uint8_t *answer;      /* behind those; NULL: the payload has memory of its own */
    size_t answer_bytes;
    struct pls_read reads[];
};

struct read_stream {
    struct psd_stream base;                       /* first */
    Payloadstore__V1__ReadStreamRequest *request; /* owned, being answered; NULL: none */
    size_t next_ref;                              /* of the request, in no chunk yet */
    struct chunk *first, *last;                   /* not answered yet, in order */
};

/* -- chunks ------------------------------------------------------------------------------------ */

/* Takes its payloads along. */
static void chunk_release(void *arg)
{
    struct chunk *chunk = arg;
    if (atomic_fetch_sub(&chunk->references, 1) > 1) {
        return;
    }
    for (size_t i = 0; i < chunk->n; i++) {
        pls_view_release(&chunk->reads[i].view);
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
    chunk->codes[read - chunk->reads] = code;
    if (code != PLS_OK) {
        atomic_store(&chunk->failed, true);
    }
    if (one_is_done(chunk)) {
        atomic_store(&chunk->done, true); /* which may be its end */
        psd_stream_run(stream);
        psd_stream_release(stream);
    }
}

/* Whether a payload may be that long at all. */
static bool is_possible(const Payloadstore__V1__PayloadRef *ref)
{
    return ref->length <= PLS_PAYLOAD_LIMIT;
}

static size_t answer_bytes(Payloadstore__V1__PayloadRef **refs, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += is_possible(refs[i]) ? psd_result_bytes(refs[i]->length) : 0;
    }
    return bytes;
}

static void set_reads(struct chunk *chunk, Payloadstore__V1__PayloadRef **refs)
{
    uint8_t *result = chunk->answer;
    for (size_t i = 0; i < chunk->n; i++) {
        struct pls_read *read = &chunk->reads[i];
        *read = (struct pls_read){.ref = psd_ref_in(refs[i]), .done = read_done, .data = chunk};
        if (result != NULL && is_possible(refs[i])) {
            read->room = psd_result_room(result, read->ref.length);
            result += psd_result_bytes(read->ref.length);
        }
    }
}

/* `in_place`: the payloads are read into the answer, which is as large as the refs say, whatever
 * there is. */
static struct chunk *chunk_create(struct read_stream *s, Payloadstore__V1__PayloadRef **refs,
                                  size_t n, bool in_place)
{
    size_t bytes = in_place ? answer_bytes(refs, n) : 0;
    struct chunk *chunk =
        malloc(sizeof *chunk + n * (sizeof chunk->reads[0] + sizeof *chunk->codes) + bytes);
    if (chunk == NULL) {
        return NULL;
    }
    *chunk = (struct chunk){.stream = s, .n = n, .answer_bytes = bytes};
    chunk->codes = (enum pls_code *)&chunk->reads[n];
    chunk->answer = in_place ? (uint8_t *)&chunk->codes[n] : NULL;
    atomic_init(&chunk->references, 1);
    atomic_init(&chunk->running, n + 1);
    set_reads(chunk, refs);
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
    uint64_t length = !is_possible(ref) || ref->length < FAILURE_MAX ? FAILURE_MAX : ref->length;
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
    struct chunk *chunk = chunk_create(s, s->request->refs + s->next_ref, n, cost <= CHUNK_BYTES);
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

static struct grpc_c_lent lend(struct chunk *chunk, const uint8_t *data, size_t length)
{
    atomic_fetch_add(&chunk->references, 1); /* until the transport has sent it */
    return (struct grpc_c_lent){
        .data = data, .length = length, .release = chunk_release, .arg = chunk};
}

/* All payloads lie where they belong. */
static void send_in_place(struct read_stream *s, struct chunk *chunk)
{
    uint8_t *result = chunk->answer;
    for (size_t i = 0; i < chunk->n; i++) {
        result = psd_result_finish(result, chunk->reads[i].ref.length);
    }
    struct grpc_c_lent lent = lend(chunk, chunk->answer, chunk->answer_bytes);
    grpc_c_call_write_encoded(s->base.call, &lent, psd_stream_on_written, &s->base);
}

/* A result as protobuf-c packs it. */
struct packed {
    Payloadstore__V1__ReadResult result;
    struct psd_failure failure;
};

static void set_result(struct packed *packed, const struct chunk *chunk, size_t i,
                       const char *store)
{
    const struct pls_read *read = &chunk->reads[i];
    payloadstore__v1__read_result__init(&packed->result);
    if (chunk->codes[i] == PLS_OK) {
        packed->result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD;
        packed->result.payload.data = (uint8_t *)read->view.data;
        packed->result.payload.len = read->view.length;
    } else {
        psd_failure_init_ref(&packed->failure, chunk->codes[i], store, &read->ref);
        packed->result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_FAILURE;
        packed->result.failure = &packed->failure.message;
    }
}

/* Of several payloads none is so large that it is worth lending. */
static void send_packed(struct read_stream *s, struct chunk *chunk,
                        Payloadstore__V1__ReadResult **results)
{
    Payloadstore__V1__ReadStreamResponse response = PAYLOADSTORE__V1__READ_STREAM_RESPONSE__INIT;
    struct grpc_c_lent lent;
    size_t n_lent = 0;
    response.results = results;
    response.n_results = chunk->n;
    if (chunk->answer == NULL && chunk->codes[0] == PLS_OK) {
        lent = lend(chunk, chunk->reads[0].view.data, chunk->reads[0].view.length);
        n_lent = 1;
    }
    payloadstore__v1__payload_store__read_stream__send_lent(s->base.call, &response, &lent, n_lent,
                                                            psd_stream_on_written, &s->base);
}

static void pack(struct read_stream *s, struct chunk *chunk)
{
    Payloadstore__V1__ReadResult **results =
        malloc(chunk->n * sizeof(Payloadstore__V1__ReadResult *));
    struct packed *packed = malloc(chunk->n * sizeof *packed);
    if (results == NULL || packed == NULL) {
        psd_stream_deny(&s->base, PLS_NO_MEMORY, NULL);
    } else {
        for (size_t i = 0; i < chunk->n; i++) {
            set_result(&packed[i], chunk, i, s->base.name);
            results[i] = &packed[i].result;
        }
        send_packed(s, chunk, results);
    }
    free(results);
    free(packed);
}

/* OK, or what the store says of itself instead of a ref. */
static enum pls_code store_code(const struct chunk *chunk)
{
    for (size_t i = 0; i < chunk->n; i++) {
        if (chunk->codes[i] == PLS_NO_STORE || chunk->codes[i] == PLS_CLOSED) {
            return chunk->codes[i];
        }
    }
    return PLS_OK;
}

static void answer(struct read_stream *s, struct chunk *chunk)
{
    bool failed = atomic_load(&chunk->failed);
    enum pls_code code = failed ? store_code(chunk) : PLS_OK;
    if (code != PLS_OK) {
        psd_stream_deny(&s->base, code, NULL);
    } else if (failed || chunk->answer == NULL) {
        pack(s, chunk);
    } else {
        send_in_place(s, chunk);
    }
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
