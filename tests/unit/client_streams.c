/*
 * The C client's streams against a server that answers, holds, fails or breaks as the test says, by
 * the contract and nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "payloadstore-client/appender.h"
#include "payloadstore-client/compact.h"
#include "payloadstore/v1/payload_store.grpc-c.h"

#define N_PAYLOADS 5000

static char tags[N_PAYLOADS + 1]; /* each payload's is the next */

/* What the server does with an AppendStreamRequest. */
enum manner { ANSWER, HOLD, FAIL, BREAK, REFUSE, MISCOUNT };

struct fixture {
    grpc_c_server *server;
    plc_client *client;
    char target[60];
    plc_appender *appender;
    struct plc_error error;
    struct payloadstore__v1__payload_store_handlers handlers;
    pthread_mutex_t lock; /* guards what is not atomic, and waiting for any of it */
    pthread_cond_t changed;
    _Atomic enum manner manner;
    atomic_uint broken_once;       /* streams to break before the manner counts */
    atomic_size_t stored;          /* payloads that were answered */
    atomic_size_t requests;        /* messages that came */
    atomic_size_t largest;         /* payloads or refs in one */
    atomic_size_t open_batches;    /* held */
    atomic_ullong carry_recent_ms; /* as the last compaction said */
    grpc_c_call *held;             /* the call of held batches */
    size_t told;                   /* results */
    size_t oks;
    enum plc_code last_code;
    struct plc_error last_error;
    enum plc_code called_back; /* what the appender's functions said within a callback */
};

static void locked_wait(struct fixture *f, const atomic_size_t *count, size_t at_least)
{
    pthread_mutex_lock(&f->lock);
    while (*count < at_least) {
        pthread_cond_wait(&f->changed, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
}

/* -- the server -------------------------------------------------------------------------------- */

static void on_stream(grpc_c_call *call, void *user)
{
    (void)user;
    grpc_c_call_read(call);
}

static void answer(struct fixture *f, grpc_c_call *call, size_t n)
{
    Payloadstore__V1__AppendStreamResponse response =
        PAYLOADSTORE__V1__APPEND_STREAM_RESPONSE__INIT;
    Payloadstore__V1__PayloadRef *refs = calloc(n + 1, sizeof *refs);
    Payloadstore__V1__PayloadRef **pointers = calloc(n + 1, sizeof(Payloadstore__V1__PayloadRef *));
    for (size_t i = 0; i < n; i++) {
        payloadstore__v1__payload_ref__init(&refs[i]);
        refs[i].offset = f->stored++;
        pointers[i] = &refs[i];
    }
    response.refs = pointers;
    response.n_refs = n;
    payloadstore__v1__payload_store__append_stream__send(call, &response, NULL, NULL);
    free(pointers);
    free(refs);
}

static void fail_batch(grpc_c_call *call)
{
    Payloadstore__V1__AppendStreamResponse response =
        PAYLOADSTORE__V1__APPEND_STREAM_RESPONSE__INIT;
    Payloadstore__V1__Failure failure = PAYLOADSTORE__V1__FAILURE__INIT;
    failure.code = GRPC_C_RESOURCE_EXHAUSTED;
    failure.reason = PAYLOADSTORE__V1__REASON__REASON_DISK_RESERVE;
    failure.message = (char *)"full";
    response.failure = &failure;
    payloadstore__v1__payload_store__append_stream__send(call, &response, NULL, NULL);
}

static void on_batch(grpc_c_call *call, const Payloadstore__V1__AppendStreamRequest *request,
                     void *user)
{
    struct fixture *f = user;
    pthread_mutex_lock(&f->lock);
    if (request == NULL) {
        if (f->held == call) {
            f->held = NULL;
        }
        pthread_mutex_unlock(&f->lock);
        grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
        return;
    }
    if (request->n_payloads == 0 && f->manner != REFUSE) {
        answer(f, call, 0);
        pthread_mutex_unlock(&f->lock);
        grpc_c_call_read(call);
        return;
    }
    f->requests++;
    f->largest = request->n_payloads > f->largest ? request->n_payloads : f->largest;
    enum manner manner = f->manner;
    if (f->broken_once > 0) {
        f->broken_once--;
        manner = BREAK;
    }
    if (manner == ANSWER || manner == MISCOUNT) {
        answer(f, call, request->n_payloads + (manner == MISCOUNT ? 1 : 0));
    } else if (manner == FAIL) {
        fail_batch(call);
    } else if (manner == HOLD) {
        f->held = call;
        f->open_batches++;
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (manner == BREAK) {
        grpc_c_call_fail(call, GRPC_C_UNAVAILABLE, "stopping");
    } else if (manner == REFUSE) {
        grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "no such thing");
    } else {
        grpc_c_call_read(call);
    }
}

static void on_seal(grpc_c_call *call, const Payloadstore__V1__SealRequest *request, void *user)
{
    Payloadstore__V1__SealResponse response = PAYLOADSTORE__V1__SEAL_RESPONSE__INIT;
    Payloadstore__V1__SealHandle seal = PAYLOADSTORE__V1__SEAL_HANDLE__INIT;
    (void)request;
    (void)user;
    seal.compaction_id = 1;
    response.seal = &seal;
    payloadstore__v1__payload_store__seal__reply(call, &response);
}

/* Compacts nothing, but notes what was asked. */
static void on_compact(grpc_c_call *call, const Payloadstore__V1__CompactSealedRequest *request,
                       void *user)
{
    struct fixture *f = user;
    Payloadstore__V1__CompactSealedResponse response =
        PAYLOADSTORE__V1__COMPACT_SEALED_RESPONSE__INIT;
    Payloadstore__V1__CompactionSummary summary = PAYLOADSTORE__V1__COMPACTION_SUMMARY__INIT;
    if (request == NULL) {
        grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "no commit");
        return;
    }
    if (request->seal != NULL) {
        f->carry_recent_ms = request->carry_recent_ms;
    }
    if (!request->commit) {
        grpc_c_call_read(call);
        return;
    }
    response.summary = &summary;
    payloadstore__v1__payload_store__compact_sealed__send(call, &response, NULL, NULL);
    grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
}

/* Answers in several messages: a ref's payload is its offset; one of length 13 cannot be read. */
static void on_refs(grpc_c_call *call, const Payloadstore__V1__ReadStreamRequest *request,
                    void *user)
{
    struct fixture *f = user;
    if (request == NULL) {
        grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
        return;
    }
    f->requests++;
    f->largest = request->n_refs > f->largest ? request->n_refs : f->largest;
    if (f->manner == BREAK && f->requests > 3) {
        grpc_c_call_fail(call, GRPC_C_UNAVAILABLE, "stopping");
        return;
    }
    for (size_t i = 0; i < request->n_refs; i++) {
        Payloadstore__V1__ReadStreamResponse response =
            PAYLOADSTORE__V1__READ_STREAM_RESPONSE__INIT;
        Payloadstore__V1__ReadResult result = PAYLOADSTORE__V1__READ_RESULT__INIT;
        Payloadstore__V1__ReadResult *pointer = &result;
        Payloadstore__V1__Failure failure = PAYLOADSTORE__V1__FAILURE__INIT;
        if (request->refs[i]->length == 13) {
            failure.code = GRPC_C_DATA_LOSS;
            failure.message = (char *)"damaged";
            result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_FAILURE;
            result.failure = &failure;
        } else {
            result.outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD;
            result.payload.data = (uint8_t *)&request->refs[i]->offset;
            result.payload.len = sizeof request->refs[i]->offset;
        }
        response.results = &pointer;
        response.n_results = 1;
        payloadstore__v1__payload_store__read_stream__send(call, &response, NULL, NULL);
        if (f->manner == MISCOUNT) {
            payloadstore__v1__payload_store__read_stream__send(call, &response, NULL, NULL);
        }
    }
    grpc_c_call_read(call);
}

/* Pages of two of the five names; a page's token is the name it begins with. */
static void on_list(grpc_c_call *call, const Payloadstore__V1__ListStoresRequest *request,
                    void *user)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    struct fixture *f = user;
    Payloadstore__V1__ListStoresResponse response = PAYLOADSTORE__V1__LIST_STORES_RESPONSE__INIT;
    size_t first = request->page_token[0] == '\0' ? 0 : (size_t)(request->page_token[0] - 'a');
    f->requests++;
    if (f->manner == BREAK && first > 0) {
        grpc_c_call_fail(call, GRPC_C_UNAVAILABLE, "stopping");
        return;
    }
    response.stores = (char **)&names[first];
    response.n_stores = first + 2 <= 5 ? 2 : 1;
    response.next_page_token = (char *)(first + 2 <= 4 ? names[first + 2] : "");
    payloadstore__v1__payload_store__list_stores__reply(call, &response);
}

/* -- the fixture ------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char cause[200];
    int port;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->handlers = (struct payloadstore__v1__payload_store_handlers){
        .append_stream = on_stream,
        .append_stream__message = on_batch,
        .read_stream = on_stream,
        .read_stream__message = on_refs,
        .seal = on_seal,
        .list_stores = on_list,
        .compact_sealed = on_stream,
        .compact_sealed__message = on_compact,
        .user = f,
    };
    f->server = grpc_c_server_create(NULL);
    assert_int_equal(payloadstore__v1__payload_store__service_init(f->server, &f->handlers), 0);
    assert_int_equal(grpc_c_server_listen(f->server, "127.0.0.1:0", &port, cause, sizeof cause), 0);
    assert_int_equal(grpc_c_server_start(f->server), 0);
    snprintf(f->target, sizeof f->target, "127.0.0.1:%d", port);
    const struct plc_options options = {.append_deadline_ms = 200000};
    assert_int_equal(plc_client_open(f->target, &options, &f->client, &f->error), PLC_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    plc_appender_close(f->appender);
    plc_client_close(f->client);
    grpc_c_server_destroy(f->server);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

/* Results come in the order of the appends, whatever they are. */
static void appended(void *arg, const struct plc_appended *result)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    assert_ptr_equal(result->tag, &tags[f->told]);
    f->told++;
    f->oks += result->code == PLC_OK ? 1 : 0;
    f->last_code = result->code;
    f->last_error = *result->error;
    assert_int_equal(result->code, result->error->code);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void open_appender(struct fixture *f, const struct plc_call *call,
                          struct plc_appender_options options)
{
    options.appended = options.appended != NULL ? options.appended : appended;
    options.arg = f;
    assert_int_equal(plc_appender_open(f->client, call, &options, &f->appender, &f->error), PLC_OK);
}

static void append(struct fixture *f, size_t i)
{
    assert_int_equal(plc_appender_append(f->appender, &i, sizeof i, &tags[i], &f->error), PLC_OK);
}

/* -- tests ------------------------------------------------------------------------------------- */

static void every_payload_has_its_result_in_order(void **state)
{
    struct fixture *f = *state;
    open_appender(f, NULL, (struct plc_appender_options){0});
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    for (size_t i = 0; i < N_PAYLOADS; i++) {
        append(f, i);
    }
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->told, N_PAYLOADS);
    assert_int_equal(f->oks, N_PAYLOADS);
    assert_true(f->largest <= 64);
    append(f, N_PAYLOADS);
    plc_appender_close(f->appender);
    f->appender = NULL;
    assert_int_equal(f->told, N_PAYLOADS + 1);
}

static void batches_gather_while_the_window_is_full(void **state)
{
    struct fixture *f = *state;
    f->manner = HOLD;
    open_appender(f, NULL, (struct plc_appender_options){.window = 2, .batch_payloads = 10});
    append(f, 0);
    locked_wait(f, &f->open_batches, 1);
    append(f, 1);
    locked_wait(f, &f->open_batches, 2);
    for (size_t i = 2; i < 12; i++) {
        append(f, i);
    }
    pthread_mutex_lock(&f->lock);
    assert_int_equal(f->requests, 2); /* the window is full: the third waits */
    f->manner = ANSWER;
    answer(f, f->held, 1);
    answer(f, f->held, 1);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->requests, 3);
    assert_int_equal(f->largest, 10);
}

static void a_batch_holds_so_many_bytes_or_one_larger_payload(void **state)
{
    struct fixture *f = *state;
    uint8_t large[3000] = {0};
    f->manner = HOLD;
    open_appender(f, NULL, (struct plc_appender_options){.window = 1, .batch_bytes = 1000});
    append(f, 0);
    locked_wait(f, &f->open_batches, 1);
    pthread_mutex_lock(&f->lock);
    f->manner = ANSWER;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(plc_appender_append(f->appender, large, 600, &tags[1], NULL), PLC_OK);
    pthread_mutex_lock(&f->lock);
    answer(f, f->held, 1);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(plc_appender_append(f->appender, large, 600, &tags[2], NULL), PLC_OK);
    assert_int_equal(plc_appender_append(f->appender, large, 3000, &tags[3], NULL), PLC_OK);
    assert_int_equal(plc_appender_append(f->appender, NULL, 0, &tags[4], NULL), PLC_OK);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->oks, 5);
    assert_true(f->requests >= 4);
}

static void a_failed_batch_is_told_by_its_reason_and_the_next_works(void **state)
{
    struct fixture *f = *state;
    f->manner = FAIL;
    open_appender(f, NULL, (struct plc_appender_options){0});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_DISK_RESERVE);
    assert_int_equal(f->last_code, PLC_DISK_RESERVE);
    assert_int_equal(f->last_error.status, GRPC_C_RESOURCE_EXHAUSTED);
    assert_string_equal(f->last_error.reason, "DISK_RESERVE");
    assert_string_equal(f->last_error.message, "full");
    pthread_mutex_lock(&f->lock);
    f->manner = ANSWER;
    pthread_mutex_unlock(&f->lock);
    append(f, 1);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
}

static void a_lost_answer_is_said_to_be_lost_and_nothing_is_sent_again(void **state)
{
    struct fixture *f = *state;
    f->broken_once = 1;
    open_appender(f, NULL, (struct plc_appender_options){.window = 1});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_ANSWER_LOST);
    assert_int_equal(f->last_error.status, GRPC_C_UNAVAILABLE);
    assert_string_equal(f->last_error.message, "stopping");
    append(f, 1);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->requests, 2);
    assert_int_equal(f->stored, 1);
}

static void what_was_lost_is_sent_again_where_that_was_asked_for(void **state)
{
    struct fixture *f = *state;
    f->broken_once = 3;
    open_appender(f, NULL, (struct plc_appender_options){.resend = true, .batch_payloads = 7});
    for (size_t i = 0; i < 100; i++) {
        append(f, i);
    }
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->oks, 100);
    assert_int_equal(f->broken_once, 0);
}

static void a_silent_server_runs_into_the_deadline(void **state)
{
    struct fixture *f = *state;
    const struct plc_call hasty = {.deadline_ms = 50};
    f->manner = HOLD;
    open_appender(f, &hasty, (struct plc_appender_options){.resend = true});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_ANSWER_LOST);
    assert_int_equal(f->last_error.status, GRPC_C_CANCELLED);
}

static void a_refused_stream_gives_its_own_code(void **state)
{
    struct fixture *f = *state;
    f->manner = REFUSE;
    open_appender(f, NULL, (struct plc_appender_options){.resend = true});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_INVALID_ARGUMENT);
    assert_string_equal(f->last_error.message, "not sent: no such thing");
    assert_int_equal(f->largest, 0);
}

static void an_answer_of_another_count_is_not_believed(void **state)
{
    struct fixture *f = *state;
    f->manner = MISCOUNT;
    open_appender(f, NULL, (struct plc_appender_options){0});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_ANSWER_LOST);
}

static void call_back(void *arg, const struct plc_appended *result)
{
    struct fixture *f = arg;
    (void)result;
    f->called_back = plc_appender_append(f->appender, "a", 1, NULL, NULL);
    if (f->called_back == PLC_INVALID_ARGUMENT) {
        f->called_back = plc_appender_flush(f->appender, NULL);
    }
}

static void hostile_arguments_are_refused(void **state)
{
    struct fixture *f = *state;
    plc_appender *none;
    const struct plc_appender_options hostile[] = {
        {.appended = NULL},
        {.appended = appended, .batch_payloads = 4097},
        {.appended = appended, .batch_bytes = SIZE_MAX},
        {.appended = appended, .durability = (enum plc_durability)9},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        assert_int_equal(plc_appender_open(f->client, NULL, &hostile[i], &none, &f->error),
                         PLC_INVALID_ARGUMENT);
    }
    assert_int_equal(plc_appender_open(f->client, NULL, NULL, &none, NULL), PLC_INVALID_ARGUMENT);
    open_appender(f, NULL, (struct plc_appender_options){.appended = call_back});
    assert_int_equal(plc_appender_append(f->appender, NULL, 1, NULL, NULL), PLC_INVALID_ARGUMENT);
    assert_int_equal(
        plc_appender_append(f->appender, "a", (size_t)PLC_PAYLOAD_LIMIT + 1, NULL, NULL),
        PLC_PAYLOAD_TOO_LARGE);
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
    assert_int_equal(f->called_back, PLC_INVALID_ARGUMENT);
}

/* Whoever is told that may append it again: there is no first copy. */
static void without_a_server_nothing_is_sent_and_that_is_said(void **state)
{
    struct fixture *f = *state;
    (void)grpc_c_server_shutdown(f->server, 0);
    for (unsigned window = 1; window < 4; window++) {
        f->told = 0;
        open_appender(f, NULL,
                      (struct plc_appender_options){.window = window, .batch_payloads = 1});
        for (size_t i = 0; i < 3; i++) {
            append(f, i);
        }
        assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_UNAVAILABLE);
        plc_appender_close(f->appender);
        f->appender = NULL;
        assert_int_equal(f->told, 3);
        assert_int_equal(f->last_code, PLC_UNAVAILABLE);
        assert_int_equal(f->last_error.status, GRPC_C_UNAVAILABLE);
        assert_int_equal(strncmp(f->last_error.message, "not sent: ", 10), 0);
    }
}

static void who_waits_for_a_server_is_told_at_the_deadline_that_nothing_was_sent(void **state)
{
    struct fixture *f = *state;
    const struct plc_call hasty = {.deadline_ms = 100};
    const struct plc_options waiting = {.wait_for_server = true};
    (void)grpc_c_server_shutdown(f->server, 0);
    plc_client_close(f->client);
    assert_int_equal(plc_client_open(f->target, &waiting, &f->client, &f->error), PLC_OK);
    open_appender(f, &hasty, (struct plc_appender_options){0});
    append(f, 0);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_DEADLINE_EXCEEDED);
    assert_non_null(strstr(f->last_error.message, "not sent: "));
}

/* -- reading many ------------------------------------------------------------------------------ */

/* Results come in the order of the refs. */
static bool was_read(void *arg, const struct plc_read_result *result)
{
    struct fixture *f = arg;
    assert_int_equal(result->index, f->told);
    if (result->code == PLC_OK) {
        uint64_t offset;
        assert_int_equal(result->length, sizeof offset);
        memcpy(&offset, result->data, sizeof offset);
        assert_int_equal(offset, result->index);
        f->oks++;
    } else {
        assert_int_equal(result->code, PLC_DATA_LOSS);
        assert_string_equal(result->error->message, "damaged");
    }
    f->told++;
    return f->told != 4000;
}

static struct plc_ref *make_refs(void)
{
    struct plc_ref *refs = calloc(N_PAYLOADS, sizeof *refs);
    for (size_t i = 0; i < N_PAYLOADS; i++) {
        refs[i].offset = i;
        refs[i].length = i % 100 == 0 ? 13 : 1;
    }
    return refs;
}

static void many_refs_are_read_in_order_and_a_bad_one_is_a_result(void **state)
{
    struct fixture *f = *state;
    struct plc_ref *refs = make_refs();
    size_t told;
    assert_int_equal(plc_read_many(f->client, NULL, refs, 0, was_read, f, &told, &f->error),
                     PLC_OK);
    assert_int_equal(told, 0);
    assert_int_equal(plc_read_many(f->client, NULL, refs, 3000, was_read, f, &told, &f->error),
                     PLC_OK);
    assert_int_equal(told, 3000);
    assert_int_equal(f->oks, 2970);
    assert_int_equal(f->largest, 64);
    f->told = 0;
    assert_int_equal(
        plc_read_many(f->client, NULL, refs, N_PAYLOADS, was_read, f, &told, &f->error),
        PLC_STOPPED);
    assert_int_equal(told, 4000);
    assert_int_equal(plc_read_many(f->client, NULL, NULL, 1, was_read, f, &told, &f->error),
                     PLC_INVALID_ARGUMENT);
    free(refs);
}

static void a_reading_that_breaks_off_says_how_far_it_came(void **state)
{
    struct fixture *f = *state;
    struct plc_ref *refs = make_refs();
    size_t told;
    f->manner = BREAK;
    assert_int_equal(plc_read_many(f->client, NULL, refs, 1000, was_read, f, &told, &f->error),
                     PLC_UNAVAILABLE);
    assert_int_equal(told, 3 * 64);
    assert_int_equal(f->told, told);
    free(refs);
}

static void more_results_than_refs_are_not_believed(void **state)
{
    struct fixture *f = *state;
    const struct plc_ref ref = {.length = 13};
    size_t told;
    f->manner = MISCOUNT;
    assert_int_equal(plc_read_many(f->client, NULL, &ref, 1, was_read, f, &told, &f->error),
                     PLC_INTERNAL);
    assert_int_equal(told, 1);
}

/* -- listing ---------------------------------------------------------------------------------- */

struct names {
    char text[20];
    size_t length;
};

static bool add_name(void *arg, const char *store)
{
    struct names *names = arg;
    size_t length = strlen(store);
    assert_true(names->length + length < sizeof names->text);
    memcpy(names->text + names->length, store, length + 1);
    names->length += length;
    return true;
}

static void stores_are_listed_page_by_page(void **state)
{
    struct fixture *f = *state;
    struct names names = {"", 0};
    assert_int_equal(plc_list_stores(f->client, NULL, add_name, &names, &f->error), PLC_OK);
    assert_string_equal(names.text, "abcde");
    assert_int_equal(f->requests, 3);
    f->manner = BREAK;
    assert_int_equal(plc_list_stores(f->client, NULL, add_name, &names, &f->error),
                     PLC_UNAVAILABLE);
    assert_string_equal(names.text, "abcdeab");
}

/* -- what a compaction carries ----------------------------------------------------------------- */

static size_t no_live(void *arg, struct plc_ref *refs, size_t max)
{
    (void)arg;
    (void)refs;
    (void)max;
    return 0;
}

static const struct plc_compact_callbacks nothing_live = {.live = no_live};

static uint64_t carried(struct fixture *f, struct plc_compact_options options)
{
    options.dry_run = true; /* nothing will move */
    f->carry_recent_ms = UINT64_MAX;
    assert_int_equal(plc_compact(f->client, NULL, &options, &nothing_live, NULL, &f->error),
                     PLC_OK);
    return f->carry_recent_ms;
}

static void a_compaction_carries_by_the_greatest_of_three(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(carried(f, (struct plc_compact_options){0}), 200000);
    assert_int_equal(carried(f, (struct plc_compact_options){.carry_recent_ms = 300000}), 300000);
    assert_int_equal(carried(f, (struct plc_compact_options){.carry_nothing = true}), 0);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* With a deadline of 1 ms by default, it is the age of the batch that counts. */
static void a_compaction_carries_what_has_no_answer_yet(void **state)
{
    struct fixture *f = *state;
    const struct plc_call patient = {.deadline_ms = 200000};
    const struct plc_options options = {.append_deadline_ms = 1};
    plc_client_close(f->client);
    assert_int_equal(plc_client_open(f->target, &options, &f->client, &f->error), PLC_OK);
    f->manner = HOLD;
    open_appender(f, &patient, (struct plc_appender_options){0});
    append(f, 0);
    locked_wait(f, &f->open_batches, 1);
    uint64_t on_its_way_ms = now_ms();
    while (now_ms() < on_its_way_ms + 100) {
        (void)carried(f, (struct plc_compact_options){0}); /* passes the time */
    }
    uint64_t age_ms = now_ms() - on_its_way_ms;
    assert_true(carried(f, (struct plc_compact_options){0}) >= age_ms);
    pthread_mutex_lock(&f->lock);
    answer(f, f->held, 1);
    f->manner = ANSWER;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(plc_appender_flush(f->appender, &f->error), PLC_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_payload_has_its_result_in_order),
        TEST(batches_gather_while_the_window_is_full),
        TEST(a_batch_holds_so_many_bytes_or_one_larger_payload),
        TEST(a_failed_batch_is_told_by_its_reason_and_the_next_works),
        TEST(a_lost_answer_is_said_to_be_lost_and_nothing_is_sent_again),
        TEST(what_was_lost_is_sent_again_where_that_was_asked_for),
        TEST(a_silent_server_runs_into_the_deadline),
        TEST(a_refused_stream_gives_its_own_code),
        TEST(an_answer_of_another_count_is_not_believed),
        TEST(hostile_arguments_are_refused),
        TEST(without_a_server_nothing_is_sent_and_that_is_said),
        TEST(who_waits_for_a_server_is_told_at_the_deadline_that_nothing_was_sent),
        TEST(many_refs_are_read_in_order_and_a_bad_one_is_a_result),
        TEST(a_reading_that_breaks_off_says_how_far_it_came),
        TEST(more_results_than_refs_are_not_believed),
        TEST(stores_are_listed_page_by_page),
        TEST(a_compaction_carries_by_the_greatest_of_three),
        TEST(a_compaction_carries_what_has_no_answer_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
