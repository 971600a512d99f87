/* Verify: everything that is found arrives, and whoever wants it to end does not wait. */
#include "server_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service.h"
#include "work_dir.h"

enum { RECORDS = 20000, EACH = 14 }; /* bytes of a record, its prefix included */

struct verify_fixture {
    struct server_fixture grpc;
    struct psd_service service;
    char dir[PATH_MAX];
};

/* -- the store --------------------------------------------------------------------------------- */

struct appends {
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t done;
    unsigned n_left, n_failed;
};

static void on_append(struct pls_append *append, enum pls_code code)
{
    struct appends *appends = append->data;
    pthread_mutex_lock(&appends->lock);
    appends->n_left--;
    appends->n_failed += code != PLS_OK;
    pthread_cond_signal(&appends->done);
    pthread_mutex_unlock(&appends->lock);
}

/* The store "default", of RECORDS records in one segment. */
static void fill_store(struct verify_fixture *f)
{
    struct appends appends = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .n_left = RECORDS};
    struct pls_append *all = calloc(RECORDS, sizeof *all);
    struct iovec payload = {.iov_base = (void *)"0123456789", .iov_len = EACH - 4};
    pls_store *store;
    assert_int_equal(pls_store_open(f->service.dir, "default", 0, &store, NULL), PLS_OK);
    for (size_t i = 0; i < RECORDS; i++) {
        all[i] = (struct pls_append){
            .payload = &payload, .n_payload = 1, .done = on_append, .data = &appends};
        pls_append(store, &all[i]);
    }
    pthread_mutex_lock(&appends.lock);
    while (appends.n_left > 0) {
        pthread_cond_wait(&appends.done, &appends.lock);
    }
    pthread_mutex_unlock(&appends.lock);
    assert_int_equal(appends.n_failed, 0);
    pls_store_release(store);
    free(all);
}

/* Every payload, but not a length. */
static void damage_every_record(const struct verify_fixture *f)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/default/payload_0000.dat", f->dir);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (off_t i = 0; i < RECORDS; i++) {
        assert_int_equal(pwrite(fd, "x", 1, i * EACH + 4), 1);
    }
    close(fd);
}

static int set_up(void **state)
{
    struct verify_fixture *f = calloc(1, sizeof *f);
    struct pls_error error;
    work_dir_create(f->dir);
    assert_int_equal(pls_dir_open(f->dir, NULL, &f->service.dir, &error), PLS_OK);
    assert_int_equal(psd_service_init(&f->service), 0);
    fill_store(f);
    server_fixture_create(&f->grpc);
    assert_int_equal(psd_service_register(&f->service, f->grpc.server), 0);
    server_fixture_start(&f->grpc);
    *state = f;
    return 0;
}

/* Returns once the last call has gone: one that did not end would make the test hang. */
static int tear_down(void **state)
{
    struct verify_fixture *f = *state;
    server_fixture_destroy(&f->grpc);
    psd_service_fini(&f->service);
    assert_int_equal(pls_dir_close(f->service.dir), PLS_OK);
    work_dir_remove(f->dir);
    free(f);
    return 0;
}

/* -- calls ------------------------------------------------------------------------------------- */

static grpc_c_stream *open_verify(struct verify_fixture *f, uint64_t bytes_per_second,
                                  const struct grpc_c_call_options *options)
{
    Payloadstore__V1__VerifyRequest request = PAYLOADSTORE__V1__VERIFY_REQUEST__INIT;
    request.bytes_per_second = bytes_per_second;
    grpc_c_stream *stream = payloadstore__v1__payload_store__verify__open(f->grpc.channel, options);
    payloadstore__v1__payload_store__verify__write(stream, &request);
    grpc_c_stream_writes_done(stream);
    return stream;
}

/* Waits until it runs: for its first word. */
static void wait_for_progress(grpc_c_stream *stream)
{
    Payloadstore__V1__VerifyResponse *response =
        payloadstore__v1__payload_store__verify__read(stream);
    assert_non_null(response);
    assert_int_equal(response->bytes_total, RECORDS * EACH);
    assert_true(response->bytes_checked < response->bytes_total);
    payloadstore__v1__verify_response__free_unpacked(response, NULL);
}

static enum grpc_c_code outcome(grpc_c_stream *stream)
{
    struct grpc_c_result result = {0};
    Payloadstore__V1__VerifyResponse *response;
    while ((response = payloadstore__v1__payload_store__verify__read(stream)) != NULL) {
        payloadstore__v1__verify_response__free_unpacked(response, NULL);
    }
    grpc_c_stream_finish(stream, &result);
    enum grpc_c_code code = result.code;
    grpc_c_result_fini(&result);
    return code;
}

/* Checks a message that follows on `n` damaged refs; returns how many there are then. */
static size_t take_damaged(const Payloadstore__V1__VerifyResponse *response, size_t n)
{
    assert_true(response->n_damaged <= PSD_DAMAGED_MAX);
    for (size_t i = 0; i < response->n_damaged; i++) {
        assert_int_equal(response->damaged[i]->code, GRPC_C_DATA_LOSS);
        assert_int_equal(response->damaged[i]->ref->offset, (n + i) * EACH);
    }
    return n + response->n_damaged;
}

static void every_damaged_ref_arrives_once_and_in_order(void **state)
{
    struct verify_fixture *f = *state;
    damage_every_record(f);
    grpc_c_stream *stream = open_verify(f, 0, &patient);
    Payloadstore__V1__VerifyResponse *response;
    uint64_t checked = 0;
    size_t n = 0;
    while ((response = payloadstore__v1__payload_store__verify__read(stream)) != NULL) {
        n = take_damaged(response, n);
        assert_true(response->records_checked >= n && response->records_checked >= checked);
        checked = response->records_checked;
        payloadstore__v1__verify_response__free_unpacked(response, NULL);
    }
    assert_int_equal(n, RECORDS);
    assert_int_equal(checked, RECORDS);
    assert_int_equal(outcome(stream), GRPC_C_OK);
}

static void a_cancelled_one_ends(void **state)
{
    grpc_c_stream *stream = open_verify(*state, 1, &patient);
    wait_for_progress(stream);
    grpc_c_stream_cancel(stream);
    assert_int_equal(outcome(stream), GRPC_C_CANCELLED);
}

static void one_that_nobody_reads_ends_when_it_is_cancelled(void **state)
{
    damage_every_record(*state);
    grpc_c_stream *stream = open_verify(*state, 0, &patient);
    grpc_c_stream_cancel(stream);
    assert_int_equal(outcome(stream), GRPC_C_CANCELLED);
}

static void one_that_takes_too_long_ends_at_its_deadline(void **state)
{
    const struct grpc_c_call_options hasty = {.timeout_ms = 500};
    grpc_c_stream *stream = open_verify(*state, 1, &hasty);
    assert_int_equal(outcome(stream), GRPC_C_DEADLINE_EXCEEDED);
}

static void a_server_that_is_to_stop_ends_it_before_the_drain_does(void **state)
{
    struct verify_fixture *f = *state;
    grpc_c_stream *stream = open_verify(f, 1, &patient);
    wait_for_progress(stream);
    psd_service_stop(&f->service);
    assert_int_equal(outcome(stream), GRPC_C_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_damaged_ref_arrives_once_and_in_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_cancelled_one_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_nobody_reads_ends_when_it_is_cancelled, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_that_takes_too_long_ends_at_its_deadline, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_server_that_is_to_stop_ends_it_before_the_drain_does,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
