/* Batches: many payloads appended as one, in order, side by side, all of them or none. */
#include "store_fixture.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"
#include "sys.h"

/* A batch of n payloads, the i-th of which fill makes with seed + i. */
struct batch {
    struct pls_append append;
    struct pls_record *records;
    size_t n;
    uint32_t seed;
    unsigned answers;
    enum pls_code code;
    sem_t done;
};

static void on_done(struct pls_append *append, enum pls_code code)
{
    struct batch *b = append->data;
    b->answers++;
    b->code = code;
    sem_post(&b->done);
}

static void batch_init(struct batch *b, size_t n, size_t size, uint32_t seed)
{
    *b = (struct batch){.n = n, .seed = seed};
    b->append = (struct pls_append){.durability = PLS_BUFFERED, .done = on_done, .data = b};
    b->records = calloc(n > 0 ? n : 1, sizeof *b->records);
    sem_init(&b->done, 0, 0);
    for (size_t i = 0; i < n; i++) {
        b->records[i].payload = (struct iovec){.iov_base = malloc(size + 1), .iov_len = size};
        fill(b->records[i].payload.iov_base, size, seed + (uint32_t)i);
    }
}

static void batch_fini(struct batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        free(b->records[i].payload.iov_base);
    }
    free(b->records);
    sem_destroy(&b->done);
}

/* Any thread. */
static enum pls_code append_batch(pls_store *store, struct batch *b)
{
    pls_append_batch(store, &b->append, b->records, b->n);
    while (sem_wait(&b->done) != 0) {
    }
    return b->code;
}

static void assert_reads(pls_store *store, const struct batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        assert_filled(store, &b->records[i].ref, b->seed + (uint32_t)i);
    }
}

/* Any thread. */
static bool is_in_one_piece(const struct batch *b)
{
    for (size_t i = 1; i < b->n; i++) {
        const struct pls_ref *before = &b->records[i - 1].ref, *ref = &b->records[i].ref;
        if (ref->file_id != before->file_id || ref->offset != before->offset + 4 + before->length) {
            return false;
        }
    }
    return true;
}

/* Refs as they are given, with checksums: the best guess that there is. */
static void assert_nothing_reads(pls_store *store, const struct batch *b, uint32_t file_id,
                                 uint64_t offset)
{
    for (size_t i = 0; i < b->n; i++) {
        struct pls_ref ref = b->records[i].ref;
        ref.file_id = file_id;
        ref.offset = offset;
        assert_unreadable(store, &ref, PLS_NO_RECORD);
        offset += 4 + ref.length;
    }
}

static void payloads_of_a_batch_lie_side_by_side_in_order(void **state)
{
    struct fixture *fx = *state;
    char file[18];
    struct pls_record records[] = {
        {.payload = {(void *)"abc", 3}}, {.payload = {NULL, 0}}, {.payload = {(void *)"defg", 4}}};
    struct batch b = {.records = records, .n = 3};
    b.append = (struct pls_append){.durability = PLS_SYNCED, .done = on_done, .data = &b};
    sem_init(&b.done, 0, 0);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    assert_int_equal(b.answers, 1);
    assert_ref(&records[0].ref, 0, 0, 3);
    assert_ref(&records[1].ref, 0, 7, 0);
    assert_ref(&records[2].ref, 0, 11, 4);
    assert_text(fx->store, &records[0].ref, "abc");
    assert_text(fx->store, &records[1].ref, "");
    assert_text(fx->store, &records[2].ref, "defg");
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 0, 19, 4);
    file_read(fx, "s/payload_0000.dat", 0, file, sizeof file);
    assert_memory_equal(file, "\3\0\0\0abc\0\0\0\0\4\0\0\0def", sizeof file);
    sem_destroy(&b.done);
}

/* 2 parts each: ten gathered writes. */
static void a_batch_of_thousands_reads_back_before_and_after_a_crash(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    batch_init(&b, 5000, 100, 7);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    assert_true(is_in_one_piece(&b));
    assert_reads(fx->store, &b);
    fx_crash(fx);
    assert_reads(fx->store, &b);
    batch_fini(&b);
}

static void refuses_none_and_too_many_payloads(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    batch_init(&b, 0, 0, 0);
    assert_int_equal(append_batch(fx->store, &b), PLS_INVALID_ARGUMENT);
    b.n = PLS_BATCH_MAX + 1u; /* refused before any is looked at */
    assert_int_equal(append_batch(fx->store, &b), PLS_INVALID_ARGUMENT);
    b.n = 0;
    batch_fini(&b);
}

static void one_too_large_payload_refuses_its_batch(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    fx->options.payload_max_bytes = 1000;
    fx_open(fx);
    struct batch b;
    batch_init(&b, 3, 1000, 0);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    b.records[1].payload.iov_len = 1001;
    assert_int_equal(append_batch(fx->store, &b), PLS_PAYLOAD_TOO_LARGE);
    assert_int_equal(disk_usage(fx->store), 3 * 1004);
    batch_fini(&b);
}

static void a_batch_of_another_epoch_is_refused_as_a_whole(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    batch_init(&b, 3, 10, 0);
    b.append.epoch = 1;
    assert_int_equal(append_batch(fx->store, &b), PLS_EPOCH_STALE);
    assert_int_equal(disk_usage(fx->store), 0);
    batch_fini(&b);
}

/* -- failing ----------------------------------------------------------------------------------- */

/* The first, a middle and the last of its gathered writes, whole or half. */
static void a_failed_write_takes_back_the_whole_batch(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    struct pls_ref before = put_filled(fx->store, 50, 1);
    batch_init(&b, 2000, 20, 100);
    for (long countdown = 1; countdown <= 4; countdown++) {
        settle(fx->store);
        plsi_sys_fail_at(countdown, ENOSPC);
        enum pls_code code = append_batch(fx->store, &b);
        plsi_sys_fail_at(0, 0);
        assert_int_equal(code, PLS_NO_SPACE);
        assert_int_equal(file_size(fx, "s/payload_0000.dat"), 54);
        assert_nothing_reads(fx->store, &b, 0, 54);
    }
    assert_filled(fx->store, &before, 1);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    assert_ref(&b.records[0].ref, 0, 54, 20);
    assert_reads(fx->store, &b);
    assert_int_equal(b.answers, 5);
    batch_fini(&b);
}

static void a_write_cut_short_is_gone_on_with(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    put_filled(fx->store, 50, 1);
    batch_init(&b, 2000, 20, 100);
    for (long countdown = 1; countdown <= 4; countdown++) {
        plsi_sys_fail_at(countdown, 0);
        assert_int_equal(append_batch(fx->store, &b), PLS_OK);
        plsi_sys_fail_at(0, 0);
        assert_reads(fx->store, &b);
    }
    batch_fini(&b);
}

static void a_failed_sync_fails_its_batch_once(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    put_filled(fx->store, 50, 1);
    batch_init(&b, 10, 20, 100);
    b.append.durability = PLS_SYNCED;
    settle(fx->store);
    plsi_sys_fail_at(2, EIO); /* 1 is the write */
    enum pls_code code = append_batch(fx->store, &b);
    plsi_sys_fail_at(0, 0);
    assert_int_equal(code, PLS_IO);
    assert_int_equal(b.answers, 1);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    assert_int_equal(b.records[0].ref.file_id, 1);
    assert_reads(fx->store, &b);
    batch_fini(&b);
}

static void a_batch_that_would_take_of_the_reserve_is_refused_as_a_whole(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    fx_close(fx);
    fx->options.reserve_bytes = 8 * MIB;
    plsi_sys_pretend_space(8 * MIB + 1500 * KIB, 1024 * MIB);
    fx_open(fx);
    batch_init(&b, 20, 100 * KIB, 0);
    enum pls_code code = append_batch(fx->store, &b);
    uint64_t usage = disk_usage(fx->store);
    plsi_sys_pretend_space(0, 0);
    assert_int_equal(code, PLS_DISK_RESERVE);
    assert_int_equal(usage, 0);
    batch_fini(&b);
}

/* -- segments ---------------------------------------------------------------------------------- */

/* Segments of a MiB, batches of 210 KiB: the fifth would go on beyond the record that fills it. */
static void a_batch_is_never_divided_between_segments(void **state)
{
    enum { BATCHES = 23 };
    struct fixture *fx = *state;
    struct batch b[BATCHES];
    for (uint32_t i = 0; i < BATCHES; i++) {
        batch_init(&b[i], 21, 10 * KIB, i * 100);
        assert_int_equal(append_batch(fx->store, &b[i]), PLS_OK);
        assert_true(is_in_one_piece(&b[i]));
        uint64_t last = b[i].records[20].ref.offset;
        assert_true(last <=
                    MIB); /* as always: no record but the last goes beyond a segment's size */
    }
    assert_true(b[BATCHES - 1].records[0].ref.file_id >= 4);
    fx_reopen(fx);
    for (uint32_t i = 0; i < BATCHES; i++) {
        assert_reads(fx->store, &b[i]);
        batch_fini(&b[i]);
    }
}

static void a_batch_larger_than_a_segment_has_one_to_itself(void **state)
{
    struct fixture *fx = *state;
    struct batch b;
    put_text(fx->store, "before");
    batch_init(&b, 30, 100 * KIB, 5);
    assert_int_equal(append_batch(fx->store, &b), PLS_OK);
    struct pls_ref after = put_text(fx->store, "after");
    assert_int_equal(b.records[0].ref.file_id, 1);
    assert_int_equal(b.records[0].ref.offset, 0);
    assert_int_equal(after.file_id, 2);
    assert_true(is_in_one_piece(&b));
    assert_reads(fx->store, &b);
    batch_fini(&b);
}

/* -- threads ----------------------------------------------------------------------------------- */

enum { WRITERS = 4, ROUNDS = 40 };

struct writer {
    pls_store *store;
    uint32_t seed;
    unsigned failures;
};

static void *write_rounds(void *arg)
{
    struct writer *w = arg;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct batch b;
        struct pls_ref single;
        uint8_t data[70];
        uint32_t seed = w->seed + i * 10000;
        batch_init(&b, 1 + (i * 37 + w->seed) % 900, 64, seed);
        b.append.durability = i % 4 == 0 ? PLS_SYNCED : PLS_BUFFERED;
        fill(data, sizeof data, seed);
        bool good = append_batch(w->store, &b) == PLS_OK && is_in_one_piece(&b) &&
                    try_append(w->store, data, sizeof data, PLS_BUFFERED, &single) == PLS_OK &&
                    reads_filled(w->store, &single, seed);
        for (size_t k = 0; good && k < b.n; k++) {
            good = reads_filled(w->store, &b.records[k].ref, seed + (uint32_t)k);
        }
        w->failures += !good;
        batch_fini(&b);
    }
    return NULL;
}

static void batches_and_appends_of_many_threads_do_not_mix(void **state)
{
    struct fixture *fx = *state;
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.store = fx->store, .seed = i * 1000000};
        assert_int_equal(pthread_create(&threads[i], NULL, write_rounds, &writers[i]), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].failures, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(payloads_of_a_batch_lie_side_by_side_in_order),
        STORE_TEST(a_batch_of_thousands_reads_back_before_and_after_a_crash),
        STORE_TEST(refuses_none_and_too_many_payloads),
        STORE_TEST(one_too_large_payload_refuses_its_batch),
        STORE_TEST(a_batch_of_another_epoch_is_refused_as_a_whole),
        STORE_TEST(a_failed_write_takes_back_the_whole_batch),
        STORE_TEST(a_write_cut_short_is_gone_on_with),
        STORE_TEST(a_failed_sync_fails_its_batch_once),
        STORE_TEST(a_batch_that_would_take_of_the_reserve_is_refused_as_a_whole),
        STORE_TEST(a_batch_is_never_divided_between_segments),
        STORE_TEST(a_batch_larger_than_a_segment_has_one_to_itself),
        STORE_TEST(batches_and_appends_of_many_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
