/* CompactSealed: callers who fall silent, against a service whose patience is short, and
 * carry_recent_ms on its way to the store. */
#include "server_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"
#include "work_dir.h"

#define SILENCE_MS 100u

struct compact_fixture {
    struct server_fixture grpc;
    struct psd_service service;
    char dir[PATH_MAX];
    Payloadstore__V1__SealHandle seal;
};

static void seal_store(struct compact_fixture *f)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__SealRequest request = PAYLOADSTORE__V1__SEAL_REQUEST__INIT;
    Payloadstore__V1__SealResponse *response =
        payloadstore__v1__payload_store__seal__sync(f->grpc.channel, &request, &patient, &result);
    assert_non_null(response);
    payloadstore__v1__seal_handle__init(&f->seal);
    f->seal.sealed_id = response->seal->sealed_id;
    f->seal.compaction_id = response->seal->compaction_id;
    payloadstore__v1__seal_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static int set_up(void **state)
{
    struct compact_fixture *f = calloc(1, sizeof *f);
    struct pls_error error;
    work_dir_create(f->dir);
    assert_int_equal(pls_dir_open(f->dir, NULL, &f->service.dir, &error), PLS_OK);
    assert_int_equal(psd_idle_watch_init(&f->service.idle, SILENCE_MS), 0);
    psd_streams_init(&f->service.streams);
    server_fixture_create(&f->grpc);
    assert_int_equal(psd_service_register(&f->service, f->grpc.server), 0);
    server_fixture_start(&f->grpc);
    seal_store(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct compact_fixture *f = *state;
    server_fixture_destroy(&f->grpc);
    psd_idle_watch_fini(&f->service.idle);
    psd_streams_fini(&f->service.streams);
    assert_int_equal(pls_dir_close(f->service.dir), PLS_OK);
    work_dir_remove(f->dir);
    free(f);
    return 0;
}

static grpc_c_stream *open_compaction(struct compact_fixture *f, bool commit)
{
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    request.seal = &f->seal;
    request.commit = commit;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__compact_sealed__open(f->grpc.channel, &patient);
    payloadstore__v1__payload_store__compact_sealed__write(stream, &request);
    return stream;
}

static enum grpc_c_code outcome(grpc_c_stream *stream)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__CompactSealedResponse *response;
    while ((response = payloadstore__v1__payload_store__compact_sealed__read(stream)) != NULL) {
        payloadstore__v1__compact_sealed_response__free_unpacked(response, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    enum grpc_c_code code = result.code;
    grpc_c_result_fini(&result);
    return code;
}

static void a_caller_silent_before_commit_loses_the_store(void **state)
{
    struct compact_fixture *f = *state;
    assert_int_equal(outcome(open_compaction(f, false)), GRPC_C_DEADLINE_EXCEEDED);
    assert_int_equal(outcome(open_compaction(f, true)), GRPC_C_OK);
}

static void a_caller_silent_from_the_start_is_ended_too(void **state)
{
    struct compact_fixture *f = *state;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__compact_sealed__open(f->grpc.channel, &patient);
    assert_int_equal(outcome(stream), GRPC_C_DEADLINE_EXCEEDED);
}

static void many_silent_callers_and_cancelled_ones_end_each_on_its_own(void **state)
{
    struct compact_fixture *f = *state;
    grpc_c_stream *streams[20];
    for (size_t i = 0; i < 20; i++) {
        streams[i] =
            payloadstore__v1__payload_store__compact_sealed__open(f->grpc.channel, &patient);
    }
    for (size_t i = 0; i < 20; i += 2) {
        grpc_c_stream_cancel(streams[i]);
    }
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(outcome(streams[i]),
                         i % 2 == 0 ? GRPC_C_CANCELLED : GRPC_C_DEADLINE_EXCEEDED);
    }
}

static void append(struct compact_fixture *f, Payloadstore__V1__PayloadRef *ref)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__AppendRequest request = PAYLOADSTORE__V1__APPEND_REQUEST__INIT;
    request.payload = (ProtobufCBinaryData){.data = (uint8_t *)"young", .len = 5};
    Payloadstore__V1__AppendResponse *response =
        payloadstore__v1__payload_store__append__sync(f->grpc.channel, &request, &patient, &result);
    assert_non_null(response);
    payloadstore__v1__payload_ref__init(ref);
    ref->file_id = response->ref->file_id;
    ref->offset = response->ref->offset;
    ref->length = response->ref->length;
    payloadstore__v1__append_response__free_unpacked(response, NULL);
    grpc_c_result_fini(&result);
}

static enum grpc_c_code read_code(struct compact_fixture *f, Payloadstore__V1__PayloadRef *ref)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__ReadRequest request = PAYLOADSTORE__V1__READ_REQUEST__INIT;
    request.ref = ref;
    Payloadstore__V1__ReadResponse *response =
        payloadstore__v1__payload_store__read__sync(f->grpc.channel, &request, &patient, &result);
    enum grpc_c_code code = result.code;
    if (response != NULL) {
        payloadstore__v1__read_response__free_unpacked(response, NULL);
    }
    grpc_c_result_fini(&result);
    return code;
}

/* The summary's live and relocated records. */
static void carry(struct compact_fixture *f, uint64_t carry_recent_ms, uint64_t *live,
                  uint64_t *relocated)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    Payloadstore__V1__CompactSealedResponse *response;
    seal_store(f);
    request.seal = &f->seal;
    request.commit = true;
    request.carry_recent_ms = carry_recent_ms;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__compact_sealed__open(f->grpc.channel, &patient);
    payloadstore__v1__payload_store__compact_sealed__write(stream, &request);
    while ((response = payloadstore__v1__payload_store__compact_sealed__read(stream)) != NULL) {
        assert_int_equal(response->n_relocations, 0);
        if (response->summary != NULL) {
            *live = response->summary->live_records;
            *relocated = response->summary->relocated_records;
        }
        payloadstore__v1__compact_sealed_response__free_unpacked(response, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
}

static void what_is_recent_is_carried_though_nobody_lists_it(void **state)
{
    struct compact_fixture *f = *state;
    Payloadstore__V1__PayloadRef ref;
    uint64_t live = UINT64_MAX, relocated = UINT64_MAX;
    append(f, &ref);
    carry(f, UINT64_MAX, &live, &relocated);
    assert_int_equal(live, 0);
    assert_int_equal(relocated, 1);
    assert_int_equal(read_code(f, &ref), GRPC_C_OK);
    carry(f, 0, &live, &relocated);
    assert_int_equal(relocated, 0);
    assert_int_equal(read_code(f, &ref), GRPC_C_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_caller_silent_before_commit_loses_the_store, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_caller_silent_from_the_start_is_ended_too, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(many_silent_callers_and_cancelled_ones_end_each_on_its_own,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_recent_is_carried_though_nobody_lists_it, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
