/* AppendStream and ReadStream. */
#include "server_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"
#include "work_dir.h"

#define KIB         1024u
#define PAYLOAD_MAX (2u << 20)
#define MESSAGE_MAX (1u << 20)
#define BATCH_MAX   32768u

typedef Payloadstore__V1__PayloadRef ref_message;
typedef Payloadstore__V1__AppendStreamRequest append_request;
typedef Payloadstore__V1__AppendStreamResponse append_response;
typedef Payloadstore__V1__ReadStreamRequest read_request;
typedef Payloadstore__V1__ReadStreamResponse read_response;

struct streams_fixture {
    struct server_fixture grpc;
    struct psd_service service;
    char dir[PATH_MAX];
};

static int set_up(void **state)
{
    struct streams_fixture *f = calloc(1, sizeof *f);
    struct pls_error error;
    const struct pls_options options = {.payload_max_bytes = PAYLOAD_MAX};
    work_dir_create(f->dir);
    f->service.payload_max_bytes = PAYLOAD_MAX;
    assert_int_equal(pls_dir_open(f->dir, &options, &f->service.dir, &error), PLS_OK);
    assert_int_equal(psd_service_init(&f->service), 0);
    server_fixture_create(&f->grpc);
    assert_int_equal(psd_service_register(&f->service, f->grpc.server), 0);
    server_fixture_start(&f->grpc);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct streams_fixture *f = *state;
    server_fixture_destroy(&f->grpc);
    psd_service_fini(&f->service);
    assert_int_equal(pls_dir_close(f->service.dir), PLS_OK);
    work_dir_remove(f->dir);
    free(f);
    return 0;
}

/* -- payloads and refs ------------------------------------------------------------------------- */

static uint8_t byte_of(uint32_t seed, size_t i)
{
    return (uint8_t)(seed + i * 7 + (i >> 8));
}

static void assert_payload(const ProtobufCBinaryData *got, uint32_t seed, size_t length)
{
    assert_int_equal(got->len, length);
    for (size_t i = 0; i < length; i++) {
        if (got->data[i] != byte_of(seed, i)) {
            fail_msg("byte %zu of payload %u differs", i, seed);
        }
    }
}

/* Refs as they came, in order. */
struct refs {
    ref_message *list;
    ref_message **pointers;
    size_t n;
};

static void refs_add(struct refs *refs, const ref_message *ref)
{
    refs->list = realloc(refs->list, (refs->n + 1) * sizeof *refs->list);
    refs->pointers = realloc(refs->pointers, (refs->n + 1) * sizeof(ref_message *));
    ref_message *copy = &refs->list[refs->n++];
    payloadstore__v1__payload_ref__init(copy);
    copy->file_id = ref->file_id;
    copy->offset = ref->offset;
    copy->length = ref->length;
    copy->crc32c = ref->crc32c;
    for (size_t i = 0; i < refs->n; i++) {
        refs->pointers[i] = &refs->list[i];
    }
}

static void refs_fini(struct refs *refs)
{
    free(refs->list);
    free(refs->pointers);
    *refs = (struct refs){0};
}

/* -- AppendStream's client --------------------------------------------------------------------- */

static grpc_c_stream *open_append(struct streams_fixture *f)
{
    return payloadstore__v1__payload_store__append_stream__open(f->grpc.channel, &patient);
}

static append_request settings(const char *store, uint64_t epoch)
{
    append_request request = PAYLOADSTORE__V1__APPEND_STREAM_REQUEST__INIT;
    request.store = (char *)store;
    request.epoch = epoch;
    request.durability = PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED;
    return request;
}

/* n payloads of `length` bytes, made from seed, seed + 1, ... */
static void send_batch(grpc_c_stream *stream, append_request request, size_t n, size_t length,
                       uint32_t seed)
{
    uint8_t *bytes = malloc(n * length + 1);
    ProtobufCBinaryData *payloads = calloc(n + 1, sizeof *payloads);
    for (size_t i = 0; i < n; i++) {
        payloads[i] = (ProtobufCBinaryData){length, bytes + i * length};
        for (size_t k = 0; k < length; k++) {
            payloads[i].data[k] = byte_of(seed + (uint32_t)i, k);
        }
    }
    request.payloads = payloads;
    request.n_payloads = n;
    payloadstore__v1__payload_store__append_stream__write(stream, &request);
    free(payloads);
    free(bytes);
}

static append_response *next_append(grpc_c_stream *stream)
{
    return payloadstore__v1__payload_store__append_stream__read(stream);
}

static void expect_refs(grpc_c_stream *stream, size_t n, struct refs *refs)
{
    append_response *response = next_append(stream);
    assert_non_null(response);
    assert_null(response->failure);
    assert_int_equal(response->n_refs, n);
    for (size_t i = 0; refs != NULL && i < n; i++) {
        refs_add(refs, response->refs[i]);
    }
    payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
}

static void assert_failure(const Payloadstore__V1__Failure *failure, enum grpc_c_code code,
                           Payloadstore__V1__Reason reason)
{
    assert_non_null(failure);
    assert_int_equal(failure->code, code);
    assert_int_equal(failure->reason, reason);
    assert_true(strlen(failure->message) > 10);
}

static void expect_failure(grpc_c_stream *stream, enum grpc_c_code code,
                           Payloadstore__V1__Reason reason)
{
    append_response *response = next_append(stream);
    assert_non_null(response);
    assert_int_equal(response->n_refs, 0);
    assert_failure(response->failure, code, reason);
    payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
}

/* The stream's status; no answer is left. */
static void expect_end(grpc_c_stream *stream, enum grpc_c_code code)
{
    struct grpc_c_result result = {0};
    assert_null(next_append(stream)); /* either method's: there is nothing to unpack */
    grpc_c_stream_finish(stream, &result);
    if (result.code != code) {
        fail_msg("%s: %s", grpc_c_code_name((int)result.code), result.message);
    }
    grpc_c_result_fini(&result);
}

static void append_some(struct streams_fixture *f, const char *store, size_t n, size_t length,
                        uint32_t seed, struct refs *refs)
{
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, settings(store, 0), n, length, seed);
    expect_refs(stream, n, refs);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

/* -- ReadStream's client ----------------------------------------------------------------------- */

static grpc_c_stream *open_read(struct streams_fixture *f)
{
    return payloadstore__v1__payload_store__read_stream__open(f->grpc.channel, &patient);
}

static void ask(grpc_c_stream *stream, const char *store, ref_message **refs, size_t n)
{
    read_request request = PAYLOADSTORE__V1__READ_STREAM_REQUEST__INIT;
    request.store = (char *)store;
    request.refs = refs;
    request.n_refs = n;
    payloadstore__v1__payload_store__read_stream__write(stream, &request);
}

static read_response *next_read(grpc_c_stream *stream)
{
    return payloadstore__v1__payload_store__read_stream__read(stream);
}

/* n payloads, made from seed, seed + 1, ..., in how many messages it may be. Returns how many. */
static unsigned expect_payloads(grpc_c_stream *stream, size_t n, size_t length, uint32_t seed)
{
    unsigned messages = 0;
    for (size_t got = 0; got < n; messages++) {
        read_response *response = next_read(stream);
        assert_non_null(response);
        size_t size = payloadstore__v1__read_stream_response__get_packed_size(response);
        assert_true(size <= MESSAGE_MAX || response->n_results == 1);
        for (size_t i = 0; i < response->n_results; i++, got++) {
            const Payloadstore__V1__ReadResult *result = response->results[i];
            assert_int_equal(result->outcome_case, PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD);
            assert_payload(&result->payload, seed + (uint32_t)got, length);
        }
        payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    }
    return messages;
}

static bool store_exists(struct streams_fixture *f, const char *name)
{
    struct pls_error error;
    pls_store *store = NULL;
    bool found = pls_store_find(f->service.dir, name, &store, &error) == PLS_OK;
    pls_store_release(store);
    return found;
}

/* -- AppendStream ------------------------------------------------------------------------------ */

static void many_batches_are_answered_in_order(void **state)
{
    enum { ROUNDS = 60, WINDOW = 20, SIZE = 100 };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    uint32_t seed = 0;
    grpc_c_stream *stream = open_append(f);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < WINDOW; i++) {
            append_request request = settings(round == 0 && i == 0 ? "" : "default", 0);
            send_batch(stream, request, 1 + i, SIZE, seed);
            seed += 1 + i;
        }
        for (uint32_t i = 0; i < WINDOW; i++) {
            expect_refs(stream, 1 + i, &refs);
        }
    }
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    assert_int_equal(refs.n, seed);

    stream = open_read(f);
    ask(stream, "", refs.pointers, refs.n);
    grpc_c_stream_writes_done(stream);
    expect_payloads(stream, refs.n, SIZE, 0);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void an_empty_batch_gets_an_empty_answer_and_makes_no_store(void **state)
{
    struct streams_fixture *f = *state;
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, settings("s", 0), 0, 0, 0);
    expect_refs(stream, 0, NULL);
    assert_false(store_exists(f, "s"));
    send_batch(stream, settings("", 0), 1, 1, 0);
    expect_refs(stream, 1, NULL);
    assert_true(store_exists(f, "s"));
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

static void a_stream_without_messages_ends_well(void **state)
{
    struct streams_fixture *f = *state;
    grpc_c_stream *stream = open_append(f);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    stream = open_read(f);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

static void a_later_message_that_differs_ends_the_stream_behind_its_answers(void **state)
{
    struct streams_fixture *f = *state;
    append_request first = settings("s", 0);
    append_request differ[] = {settings("t", 0), settings("s", 1), settings("", 0)};
    differ[2].durability = PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED;
    append_request unset = PAYLOADSTORE__V1__APPEND_STREAM_REQUEST__INIT;
    for (size_t i = 0; i < 3; i++) {
        grpc_c_stream *stream = open_append(f);
        send_batch(stream, first, 1, 10, 0);
        send_batch(stream, unset, 2, 10, 0);
        send_batch(stream, first, 3, 10, 0);
        send_batch(stream, differ[i], 4, 10, 0);
        send_batch(stream, first, 5, 10, 0);
        expect_refs(stream, 1, NULL);
        expect_refs(stream, 2, NULL);
        expect_refs(stream, 3, NULL);
        expect_end(stream, GRPC_C_INVALID_ARGUMENT);
    }
    assert_false(store_exists(f, "t"));
}

static void a_first_message_that_is_no_beginning_ends_the_stream(void **state)
{
    struct streams_fixture *f = *state;
    append_request durability = settings("s", 0);
    durability.durability = (Payloadstore__V1__Durability)7;
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, durability, 1, 10, 0);
    expect_end(stream, GRPC_C_INVALID_ARGUMENT);
    stream = open_append(f);
    send_batch(stream, settings("no/name", 0), 1, 10, 0);
    expect_end(stream, GRPC_C_INVALID_ARGUMENT);
    assert_false(store_exists(f, "s"));
}

static void a_refused_batch_is_a_failure_in_its_place(void **state)
{
    struct streams_fixture *f = *state;
    const Payloadstore__V1__Reason too_large = PAYLOADSTORE__V1__REASON__REASON_PAYLOAD_TOO_LARGE;
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, settings("s", 0), 1, PAYLOAD_MAX + 1, 0);
    expect_failure(stream, GRPC_C_RESOURCE_EXHAUSTED, too_large);
    assert_false(store_exists(f, "s")); /* what is refused makes no store */
    send_batch(stream, settings("s", 0), BATCH_MAX + 1, 0, 0);
    expect_failure(stream, GRPC_C_RESOURCE_EXHAUSTED, too_large);
    send_batch(stream, settings("s", 0), 1, 100, 0);
    send_batch(stream, settings("s", 0), 1, PAYLOAD_MAX + 1, 0);
    send_batch(stream, settings("s", 0), 2, 100, 0);
    expect_refs(stream, 1, NULL);
    expect_failure(stream, GRPC_C_RESOURCE_EXHAUSTED, too_large);
    expect_refs(stream, 2, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

/* Its answer is the largest that there is. */
static void the_largest_batch_is_answered_in_one_message_under_a_mib(void **state)
{
    struct streams_fixture *f = *state;
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, settings("s", 0), BATCH_MAX, 33, 0);
    append_response *response = next_append(stream);
    assert_non_null(response);
    assert_int_equal(response->n_refs, BATCH_MAX);
    assert_true(payloadstore__v1__append_stream_response__get_packed_size(response) <= MESSAGE_MAX);
    payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

static void a_claim_meanwhile_fails_batches_and_not_the_stream(void **state)
{
    struct streams_fixture *f = *state;
    struct pls_error error;
    uint64_t epoch;
    grpc_c_stream *stream = open_append(f);
    send_batch(stream, settings("s", 0), 1, 10, 0);
    expect_refs(stream, 1, NULL);
    assert_int_equal(pls_store_claim(f->service.dir, "s", "me", NULL, &epoch, &error), PLS_OK);
    for (int i = 0; i < 2; i++) {
        send_batch(stream, settings("s", 0), 1, 10, 0);
        expect_failure(stream, GRPC_C_FAILED_PRECONDITION,
                       PAYLOADSTORE__V1__REASON__REASON_EPOCH_STALE);
    }
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    stream = open_append(f);
    send_batch(stream, settings("s", epoch), 1, 10, 0);
    expect_refs(stream, 1, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

/* Its name keeps the epoch: only the holder brings it to life again. */
static void a_stale_first_batch_makes_no_store(void **state)
{
    struct streams_fixture *f = *state;
    struct pls_error error;
    uint64_t epoch;
    assert_int_equal(pls_store_claim(f->service.dir, "s", "me", NULL, &epoch, &error), PLS_OK);
    assert_int_equal(pls_store_delete(f->service.dir, "s", epoch, NULL, &error), PLS_OK);
    grpc_c_stream *stream = open_append(f);
    for (int i = 0; i < 2; i++) {
        send_batch(stream, settings("s", 0), 1, 10, 0);
        expect_failure(stream, GRPC_C_FAILED_PRECONDITION,
                       PAYLOADSTORE__V1__REASON__REASON_EPOCH_STALE);
    }
    assert_false(store_exists(f, "s"));
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

/* -- ReadStream -------------------------------------------------------------------------------- */

static void a_large_request_is_answered_in_several_messages(void **state)
{
    enum { N = 300, SIZE = 20 * KIB };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", N / 2, SIZE, 0, &refs);
    append_some(f, "s", N / 2, SIZE, N / 2, &refs);
    grpc_c_stream *stream = open_read(f);
    ask(stream, "s", refs.pointers, N);
    assert_true(expect_payloads(stream, N, SIZE, 0) > 5);
    ask(stream, "", refs.pointers, N);
    ask(stream, "s", refs.pointers, 1);
    grpc_c_stream_writes_done(stream);
    expect_payloads(stream, N, SIZE, 0);
    expect_payloads(stream, 1, SIZE, 0);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void a_larger_payload_has_a_message_to_itself(void **state)
{
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", 1, 100, 0, &refs);
    append_some(f, "s", 1, PAYLOAD_MAX, 1, &refs);
    append_some(f, "s", 1, 100, 2, &refs);
    grpc_c_stream *stream = open_read(f);
    ask(stream, "s", refs.pointers, 3);
    static const size_t lengths[] = {100, PAYLOAD_MAX, 100};
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(expect_payloads(stream, 1, lengths[i], i), 1);
    }
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void assert_read(struct streams_fixture *f, ref_message *ref, uint32_t seed, size_t length)
{
    Payloadstore__V1__ReadRequest request = PAYLOADSTORE__V1__READ_REQUEST__INIT;
    request.store = (char *)"s";
    request.ref = ref;
    Payloadstore__V1__ReadResponse *response =
        payloadstore__v1__payload_store__read__sync(f->grpc.channel, &request, &patient, NULL);
    assert_non_null(response);
    assert_payload(&response->payload, seed, length);
    payloadstore__v1__read_response__free_unpacked(response, NULL);
}

/* What is shorter than PSD_LEND_LEAST is copied into the answer, the rest is lent. */
static void copied_and_lent_payloads_come_in_one_answer(void **state)
{
    static const size_t lengths[] = {0,
                                     PSD_LEND_LEAST,
                                     1,
                                     PSD_LEND_LEAST - 1,
                                     100,
                                     (size_t)20 * KIB,
                                     (size_t)20 * KIB,
                                     PSD_LEND_LEAST + 1};
    enum { N = sizeof lengths / sizeof *lengths };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    for (uint32_t i = 0; i < N; i++) {
        append_some(f, "s", 1, lengths[i], i, &refs);
    }
    grpc_c_stream *stream = open_read(f);
    ask(stream, "s", refs.pointers, N);
    read_response *response = next_read(stream);
    assert_non_null(response);
    assert_int_equal(response->n_results, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_payload(&response->results[i]->payload, i, lengths[i]);
        assert_read(f, refs.pointers[i], i, lengths[i]);
    }
    payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void a_bad_ref_is_a_failure_in_its_place(void **state)
{
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", 3, 10, 0, &refs);
    refs.list[1].offset += 1;
    append_some(f, "s", 2, 0, 3, &refs);
    refs.list[3].length = 0xffffffffu;
    grpc_c_stream *stream = open_read(f);
    ask(stream, "s", refs.pointers, 5);
    read_response *response = next_read(stream);
    assert_non_null(response);
    assert_int_equal(response->n_results, 5);
    assert_payload(&response->results[0]->payload, 0, 10);
    assert_failure(response->results[1]->failure, GRPC_C_NOT_FOUND, 0);
    assert_payload(&response->results[2]->payload, 2, 10);
    assert_failure(response->results[3]->failure, GRPC_C_INVALID_ARGUMENT, 0);
    assert_payload(&response->results[4]->payload, 4, 0);
    payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void a_request_without_refs_gets_an_answer_without_results(void **state)
{
    struct streams_fixture *f = *state;
    append_some(f, "s", 1, 1, 0, NULL);
    grpc_c_stream *stream = open_read(f);
    ask(stream, "s", NULL, 0);
    read_response *response = next_read(stream);
    assert_non_null(response);
    assert_int_equal(response->n_results, 0);
    payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    grpc_c_stream_writes_done(stream);
    expect_end(stream, GRPC_C_OK);
}

static void reading_needs_one_store_that_exists(void **state)
{
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", 1, 1, 7, &refs);
    grpc_c_stream *stream = open_read(f);
    ask(stream, "none", refs.pointers, 1);
    expect_end(stream, GRPC_C_NOT_FOUND);
    stream = open_read(f);
    ask(stream, "no/name", refs.pointers, 1);
    expect_end(stream, GRPC_C_INVALID_ARGUMENT);
    stream = open_read(f);
    ask(stream, "s", refs.pointers, 1);
    ask(stream, "t", refs.pointers, 1);
    expect_payloads(stream, 1, 1, 7);
    expect_end(stream, GRPC_C_INVALID_ARGUMENT);
    refs_fini(&refs);
}

/* -- ends -------------------------------------------------------------------------------------- */

static void delete_store(struct streams_fixture *f, const char *name)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__DeleteStoreRequest request = PAYLOADSTORE__V1__DELETE_STORE_REQUEST__INIT;
    request.store = (char *)name;
    Payloadstore__V1__DeleteStoreResponse *response =
        payloadstore__v1__payload_store__delete_store__sync(f->grpc.channel, &request, &patient,
                                                            &result);
    assert_non_null(response);
    payloadstore__v1__delete_store_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static void silent_streams_end_with_their_store_and_others_do_not(void **state)
{
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "gone", 1, 10, 0, &refs);
    grpc_c_stream *appends[2], *reads[2];
    static const char *const names[] = {"gone", "stays"};
    append_some(f, "stays", 1, 10, 0, NULL);
    for (int i = 0; i < 2; i++) {
        appends[i] = open_append(f);
        send_batch(appends[i], settings(names[i], 0), 1, 10, 0);
        expect_refs(appends[i], 1, NULL);
        reads[i] = open_read(f);
        ask(reads[i], names[i], refs.pointers, 1);
        expect_payloads(reads[i], 1, 10, 0);
    }
    delete_store(f, "gone");
    expect_end(appends[0], GRPC_C_NOT_FOUND);
    expect_end(reads[0], GRPC_C_NOT_FOUND);
    send_batch(appends[1], settings("", 0), 1, 10, 0);
    expect_refs(appends[1], 1, NULL);
    ask(reads[1], "", refs.pointers, 1);
    expect_payloads(reads[1], 1, 10, 0);
    grpc_c_stream_writes_done(appends[1]);
    grpc_c_stream_writes_done(reads[1]);
    expect_end(appends[1], GRPC_C_OK);
    expect_end(reads[1], GRPC_C_OK);
    assert_false(store_exists(f, "gone"));
    refs_fini(&refs);
}

/* Deleted by nobody who tells the streams of it: as one that is deleted at this moment. */
static void a_request_to_a_deleted_store_ends_the_stream(void **state)
{
    struct streams_fixture *f = *state;
    struct pls_error error;
    struct refs refs = {0};
    append_some(f, "s", 1, 10, 0, &refs);
    grpc_c_stream *append = open_append(f), *read = open_read(f);
    send_batch(append, settings("s", 0), 1, 10, 0);
    expect_refs(append, 1, NULL);
    ask(read, "s", refs.pointers, 1);
    expect_payloads(read, 1, 10, 0);
    assert_int_equal(pls_store_delete(f->service.dir, "s", 0, NULL, &error), PLS_OK);
    send_batch(append, settings("s", 0), 1, 10, 0);
    expect_end(append, GRPC_C_NOT_FOUND);
    ask(read, "s", refs.pointers, 1);
    expect_end(read, GRPC_C_NOT_FOUND);
    assert_false(store_exists(f, "s"));
    refs_fini(&refs);
}

static void a_stop_ends_silent_streams_and_those_that_still_come(void **state)
{
    enum { N = 20 };
    struct streams_fixture *f = *state;
    grpc_c_stream *streams[N];
    struct refs refs = {0};
    append_some(f, "s", 1, 10, 0, &refs);
    for (int i = 0; i < N; i++) {
        streams[i] = i % 2 == 0 ? open_append(f) : open_read(f);
        if (i % 2 == 0) {
            send_batch(streams[i], settings("s", 0), 1, 10, 0);
            expect_refs(streams[i], 1, NULL);
        } else {
            ask(streams[i], "s", refs.pointers, 1);
            expect_payloads(streams[i], 1, 10, 0);
        }
    }
    psd_service_stop(&f->service);
    for (int i = 0; i < N; i++) {
        expect_end(streams[i], GRPC_C_UNAVAILABLE);
    }
    expect_end(open_append(f), GRPC_C_UNAVAILABLE);
    expect_end(open_read(f), GRPC_C_UNAVAILABLE);
    refs_fini(&refs);
}

static void a_stop_lets_half_closed_streams_have_their_answers(void **state)
{
    enum { N = 300, SIZE = 30 * KIB };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    for (uint32_t i = 0; i < 3; i++) {
        append_some(f, "s", N / 3, SIZE, i * N / 3, &refs);
    }
    grpc_c_stream *stream = open_read(f);
    for (int i = 0; i < 2; i++) {
        ask(stream, "s", refs.pointers, N);
    }
    grpc_c_stream_writes_done(stream);
    expect_payloads(stream, N, SIZE, 0);
    read_response *response = next_read(stream);
    size_t got = response->n_results;
    payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    for (int i = 0; i < 20; i++) { /* on either poller behind the half-close */
        append_some(f, "s", 1, 1, 0, NULL);
    }
    psd_service_stop(&f->service);
    expect_payloads(stream, N - got, SIZE, (uint32_t)got);
    expect_end(stream, GRPC_C_OK);
    refs_fini(&refs);
}

static void cancelled_streams_leave_nothing_behind(void **state)
{
    enum { ROUNDS = 40, SIZE = 30 * KIB, N = 100 };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", N, SIZE, 0, &refs);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        grpc_c_stream *append = open_append(f);
        grpc_c_stream *read = open_read(f);
        send_batch(append, settings(i % 2 == 0 ? "s" : "new", 0), N, 1000, 0);
        send_batch(append, settings("", 0), N, 1000, 0);
        ask(read, "s", refs.pointers, N);
        ask(read, "s", refs.pointers, N);
        if (i % 3 == 0) {
            expect_refs(append, N, NULL);
            expect_payloads(read, 1, SIZE, 0);
        }
        grpc_c_stream_cancel(append);
        grpc_c_stream_cancel(read);
        grpc_c_stream_finish(append, NULL);
        grpc_c_stream_finish(read, NULL);
    }
    refs_fini(&refs);
}

static void a_reader_that_reads_nothing_holds_nobody_up(void **state)
{
    enum { N = 400, SIZE = 30 * KIB };
    struct streams_fixture *f = *state;
    struct refs refs = {0};
    append_some(f, "s", N / 4, SIZE, 0, &refs);
    for (uint32_t i = 1; i < 4; i++) {
        append_some(f, "s", N / 4, SIZE, i * N / 4, &refs);
    }
    grpc_c_channel *other = f->grpc.channel;
    grpc_c_stream *slow = open_read(f);
    ask(slow, "s", refs.pointers, N);
    for (int i = 0; i < 3; i++) {
        grpc_c_stream *fast = payloadstore__v1__payload_store__read_stream__open(other, &patient);
        ask(fast, "s", refs.pointers, N);
        expect_payloads(fast, N, SIZE, 0);
        grpc_c_stream_writes_done(fast);
        expect_end(fast, GRPC_C_OK);
    }
    expect_payloads(slow, N, SIZE, 0);
    grpc_c_stream_writes_done(slow);
    expect_end(slow, GRPC_C_OK);
    refs_fini(&refs);
}

/* -- many threads ------------------------------------------------------------------------------ */

enum { CLIENTS = 6, CLIENT_ROUNDS = 40 };

struct client {
    struct streams_fixture *f;
    uint32_t seed;
};

static void *append_and_read(void *arg)
{
    enum { N = 30, SIZE = 500 };
    struct client *c = arg;
    struct refs refs = {0};
    char name[16];
    snprintf(name, sizeof name, "s%u", c->seed % 2);
    grpc_c_stream *append = open_append(c->f), *read = open_read(c->f);
    for (uint32_t i = 0; i < CLIENT_ROUNDS; i++) {
        append_request request = settings(name, 0);
        request.durability = PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED;
        send_batch(append, request, N, SIZE, c->seed + i * N);
        expect_refs(append, N, &refs);
        ask(read, name, refs.pointers + (size_t)i * N, N);
        expect_payloads(read, N, SIZE, c->seed + i * N);
    }
    grpc_c_stream_writes_done(append);
    grpc_c_stream_writes_done(read);
    expect_end(append, GRPC_C_OK);
    expect_end(read, GRPC_C_OK);
    refs_fini(&refs);
    return NULL;
}

static void streams_of_many_clients_do_not_mix(void **state)
{
    pthread_t threads[CLIENTS];
    struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.f = *state, .seed = i * 100000 + i};
        assert_int_equal(pthread_create(&threads[i], NULL, append_and_read, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
    }
}

#define STREAM_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(many_batches_are_answered_in_order),
        STREAM_TEST(an_empty_batch_gets_an_empty_answer_and_makes_no_store),
        STREAM_TEST(a_stream_without_messages_ends_well),
        STREAM_TEST(a_later_message_that_differs_ends_the_stream_behind_its_answers),
        STREAM_TEST(a_first_message_that_is_no_beginning_ends_the_stream),
        STREAM_TEST(a_refused_batch_is_a_failure_in_its_place),
        STREAM_TEST(the_largest_batch_is_answered_in_one_message_under_a_mib),
        STREAM_TEST(a_claim_meanwhile_fails_batches_and_not_the_stream),
        STREAM_TEST(a_stale_first_batch_makes_no_store),
        STREAM_TEST(a_large_request_is_answered_in_several_messages),
        STREAM_TEST(a_larger_payload_has_a_message_to_itself),
        STREAM_TEST(copied_and_lent_payloads_come_in_one_answer),
        STREAM_TEST(a_bad_ref_is_a_failure_in_its_place),
        STREAM_TEST(a_request_without_refs_gets_an_answer_without_results),
        STREAM_TEST(reading_needs_one_store_that_exists),
        STREAM_TEST(silent_streams_end_with_their_store_and_others_do_not),
        STREAM_TEST(a_request_to_a_deleted_store_ends_the_stream),
        STREAM_TEST(a_stop_ends_silent_streams_and_those_that_still_come),
        STREAM_TEST(a_stop_lets_half_closed_streams_have_their_answers),
        STREAM_TEST(cancelled_streams_leave_nothing_behind),
        STREAM_TEST(a_reader_that_reads_nothing_holds_nobody_up),
        STREAM_TEST(streams_of_many_clients_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
