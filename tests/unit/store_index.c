/* The index of a segment: entries found in its file and in memory, its file lost, damaged, ahead
 * and behind. */
#include "store_fixture.h"

#include <endian.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "checksum.h"
#include "clock.h"
#include "dir.h"
#include "index.h"
#include "store.h"
#include "sys.h"

#define RECORD UINT64_C(10) /* bytes a record, its prefix included */

/* An index on a file of its own, in the store of the fixture. */
struct bench {
    struct fixture *fx;
    struct plsi_blob *data;
    struct plsi_index *index;
};

static struct bench bench_open(struct fixture *fx)
{
    struct bench bench = {.fx = fx};
    struct plsi_backend *backend = fx->store->backend;
    struct plsi_blob *file;
    assert_int_equal(backend->ops->make_derived(backend, "test.dat", &bench.data, NULL), PLS_OK);
    assert_int_equal(backend->ops->make_derived(backend, "test.idx", &file, NULL), PLS_OK);
    bench.index = plsi_index_create(&fx->dir->blocks, 7, bench.data, file);
    assert_non_null(bench.index);
    return bench;
}

static void bench_close(struct bench *bench)
{
    plsi_index_destroy(bench->index);
    bench->data->ops->release(bench->data);
}

static struct plsi_entry entry_of(uint64_t i)
{
    return (struct plsi_entry){
        .offset = i * RECORD, .length = RECORD - 4, .crc32c = (uint32_t)(i * 7919)};
}

static void add(struct plsi_index *index, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        struct plsi_entry entry = entry_of(i);
        assert_int_equal(plsi_index_reserve(index, 1), PLS_OK);
        plsi_index_add(index, &entry);
        assert_int_equal(plsi_index_write_behind(index), PLS_OK);
    }
}

static enum pls_code find(struct plsi_index *index, uint64_t offset, struct plsi_found *found)
{
    enum pls_code code;
    assert_true(plsi_index_find(index, offset, PLSI_MAY_WAIT, found, &code));
    return code;
}

static void assert_holds(struct plsi_index *index, uint64_t n)
{
    struct plsi_found found;
    struct plsi_cursor cursor;
    plsi_cursor_init(&cursor, index);
    assert_int_equal(plsi_index_count(index), n);
    for (uint64_t i = 0; i < n; i++) {
        struct plsi_entry entry = entry_of(i), got;
        assert_int_equal(find(index, i * RECORD, &found), PLS_OK);
        assert_int_equal(found.i, i);
        assert_memory_equal(&found.entry, &entry, sizeof entry);
        assert_int_equal(plsi_cursor_get(&cursor, i, &got), PLS_OK);
        assert_memory_equal(&got, &entry, sizeof entry);
        assert_int_equal(find(index, i * RECORD + 1, &found), PLS_NO_RECORD);
    }
    plsi_cursor_fini(&cursor);
    assert_int_equal(find(index, n * RECORD, &found), PLS_NO_RECORD);
    assert_int_equal(find(index, UINT64_MAX, &found), PLS_NO_RECORD);
}

static void every_entry_is_found_and_nothing_else(void **state)
{
    struct fixture *fx = *state;
    /* Around the blocks' borders. */
    const uint64_t counts[] = {0, 1, 254, 255, 256, 509, 510, 511, 5000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct bench bench = bench_open(fx);
        add(bench.index, 0, counts[c]);
        assert_holds(bench.index, counts[c]);
        assert_int_equal(plsi_index_finish(bench.index, counts[c] * RECORD), PLS_OK);
        assert_holds(bench.index, counts[c]);
        assert_int_equal(plsi_index_resume(bench.index), PLS_OK);
        assert_holds(bench.index, counts[c]);
        add(bench.index, counts[c], counts[c] + 300);
        assert_holds(bench.index, counts[c] + 300);
        bench_close(&bench);
    }
}

static void only_an_unfilled_block_stays_in_memory(void **state)
{
    struct bench bench = bench_open(*state);
    add(bench.index, 0, 1000);
    assert_int_equal(bench.index->n_tail, 1000 % PLSI_INDEX_A_BLOCK);
    assert_int_equal(plsi_index_finish(bench.index, 1000 * RECORD), PLS_OK);
    assert_int_equal(bench.index->n_tail, 0);
    bench_close(&bench);
}

static void entries_that_were_cut_are_gone_and_can_be_written_anew(void **state)
{
    const uint64_t cuts[] = {990, 700, 510, 300, 0};
    struct bench bench = bench_open(*state);
    add(bench.index, 0, 1000);
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        assert_int_equal(plsi_index_cut(bench.index, cuts[c]), PLS_OK);
        assert_holds(bench.index, cuts[c]);
        add(bench.index, cuts[c], cuts[c] + 260);
        assert_holds(bench.index, cuts[c] + 260);
        assert_int_equal(plsi_index_cut(bench.index, cuts[c]), PLS_OK);
    }
    bench_close(&bench);
}

/* Records whose sizes mislead a search by proportion. */
static void records_of_wild_sizes_are_found(void **state)
{
    struct bench bench = bench_open(*state);
    uint64_t offset = 0;
    uint64_t *offsets = malloc(20000 * sizeof *offsets);
    assert_non_null(offsets);
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t length = i % 5000 == 4999 ? 1u << 30 : (uint32_t)(i * i % 97);
        assert_int_equal(plsi_index_reserve(bench.index, 1), PLS_OK);
        plsi_index_add(bench.index, &(struct plsi_entry){.offset = offset, .length = length});
        assert_int_equal(plsi_index_write_behind(bench.index), PLS_OK);
        offsets[i] = offset;
        offset += 4 + length;
    }
    for (uint64_t i = 0; i < 20000; i++) {
        struct plsi_found found;
        assert_int_equal(find(bench.index, offsets[i], &found), PLS_OK);
        assert_int_equal(found.i, i);
        assert_int_equal(find(bench.index, offsets[i] + 2, &found), PLS_NO_RECORD);
    }
    free(offsets);
    bench_close(&bench);
}

/* -- the file of a store's segment ------------------------------------------------------------- */

#define N 600u

struct refs {
    struct pls_ref ref[N];
};

static void put_many(struct fixture *fx, struct refs *refs)
{
    for (uint32_t i = 0; i < N; i++) {
        refs->ref[i] = put_filled(fx->store, 100 + i % 50, i);
    }
}

/* With the checksum in the ref, and by the index's alone. */
static void assert_many(struct fixture *fx, const struct refs *refs)
{
    for (uint32_t i = 0; i < N; i++) {
        struct pls_ref bare = refs->ref[i];
        assert_filled(fx->store, &refs->ref[i], i);
        bare.crc32c = 0;
        assert_filled(fx->store, &bare, i);
        bare.offset += 1;
        assert_unreadable(fx->store, &bare, PLS_NO_RECORD);
    }
}

/* The payload's first byte changes: known to be damage where its checksum is known. */
static void assert_checksum_is_known(struct fixture *fx, const struct pls_ref *ref, bool known)
{
    uint8_t byte;
    struct pls_ref bare = *ref;
    bare.crc32c = 0;
    file_read(fx, "s/payload_0000.dat", ref->offset + 4, &byte, 1);
    byte ^= 1;
    file_write(fx, "s/payload_0000.dat", ref->offset + 4, &byte, 1);
    struct pls_view view = {0};
    assert_int_equal(try_read(fx->store, &bare, &view), known ? PLS_DAMAGED : PLS_OK);
    pls_view_release(&view);
    assert_unreadable(fx->store, ref, PLS_DAMAGED);
    byte ^= 1;
    file_write(fx, "s/payload_0000.dat", ref->offset + 4, &byte, 1);
}

static void checksums_are_known_after_a_restart(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_reopen(fx);
    assert_many(fx, &refs);
    assert_checksum_is_known(fx, &refs.ref[0], true);
    assert_checksum_is_known(fx, &refs.ref[N - 1], true);
    put_text(fx->store, "and it goes on growing");
    assert_many(fx, &refs);
    fx_crash(fx);
    assert_many(fx, &refs);
    assert_checksum_is_known(fx, &refs.ref[N - 1], true);
}

static void a_marked_segment_is_not_read_at_open(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    /* A prefix that no walk would get across. */
    const uint8_t wrong[] = {0xff, 0xff, 0xff, 0xff};
    file_write(fx, "s/payload_0000.dat", refs.ref[300].offset, wrong, 4);
    fx_open(fx);
    assert_false(fx_logged(fx, "bad_record"));
    assert_unreadable(fx->store, &refs.ref[300], PLS_DAMAGED);
    assert_filled(fx->store, &refs.ref[299], 299);
    assert_filled(fx->store, &refs.ref[301], 301);
}

static void a_missing_index_is_made_from_the_data(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    file_remove(fx, "s/index_0000.idx");
    fx_open(fx);
    assert_many(fx, &refs);
    fx_close(fx);
    assert_true(file_size(fx, "s/index_0000.idx") > 0);
    fx_open(fx);
    assert_many(fx, &refs);
    assert_checksum_is_known(fx, &refs.ref[5], true);
}

static void an_index_behind_the_data_is_finished_from_it(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    /* What another program appends: "abc". */
    uint64_t end = file_size(fx, "s/payload_0000.dat");
    file_write(fx, "s/payload_0000.dat", end, "\3\0\0\0abc", 7);
    fx_open(fx);
    assert_many(fx, &refs);
    struct pls_ref theirs = {.file_id = 0, .offset = end, .length = 3};
    assert_text(fx->store, &theirs, "abc");
    assert_checksum_is_known(fx, &theirs, true);
}

static void an_index_ahead_of_the_data_gives_nothing_that_is_not_there(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    file_cut(fx, "s/payload_0000.dat", refs.ref[400].offset + 10);
    fx_open(fx);
    for (uint32_t i = 0; i < N; i++) {
        if (i < 400) {
            assert_filled(fx->store, &refs.ref[i], i);
        } else {
            assert_unreadable(fx->store, &refs.ref[i], PLS_NO_RECORD);
        }
    }
}

/* Where the walk comes to a bad prefix, the old entries lead on. */
static void old_entries_lead_across_a_bad_prefix(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    const uint8_t wrong[] = {0xff, 0xff, 0xff, 0x7f}, mark = 1;
    file_write(fx, "s/payload_0000.dat", refs.ref[300].offset, wrong, 4);
    file_write(fx, "s/index_0000.idx", 20, &mark, 1); /* its checksum does not fit any more */
    fx_open(fx);
    assert_true(fx_logged(fx, "bad_record"));
    assert_unreadable(fx->store, &refs.ref[300], PLS_DAMAGED);
    for (uint32_t i = 301; i < N; i++) {
        struct pls_ref bare = refs.ref[i];
        bare.crc32c = 0;
        assert_filled(fx->store, &bare, i);
    }
}

/* Each byte of the file, in turn, is another one. */
static void a_damaged_index_changes_no_answer(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    uint64_t size = file_size(fx, "s/index_0000.idx");
    for (uint64_t at = 0; at < size; at += 397) {
        uint8_t byte;
        file_read(fx, "s/index_0000.idx", at, &byte, 1);
        uint8_t other = (uint8_t)(byte ^ 0x10);
        file_write(fx, "s/index_0000.idx", at, &other, 1);
        fx_open(fx);
        for (uint32_t i = 0; i < N; i += 7) {
            struct pls_ref bare = refs.ref[i];
            bare.crc32c = 0;
            assert_filled(fx->store, &bare, i);
        }
        fx_close(fx);
        file_write(fx, "s/index_0000.idx", at, &byte, 1);
    }
}

static void an_index_lost_while_the_store_is_open_changes_no_answer(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_reopen(fx);
    file_cut(fx, "s/index_0000.idx", 0);
    assert_many(fx, &refs);
}

static void an_index_without_its_segment_is_the_trace_of_a_lost_one(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    seal(fx->store);
    fx_close(fx);
    file_remove(fx, "s/payload_0000.dat");
    fx_open(fx);
    assert_true(fx_logged(fx, "segment_missing: segment 0 "));
    assert_unreadable(fx->store, &refs.ref[0], PLS_NO_RECORD);
    assert_false(file_exists(fx, "s/index_0000.idx"));
    put_text(fx->store, "the others work");
}

static void an_index_of_another_version_closes_the_store(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    struct pls_error error;
    put_many(fx, &refs);
    fx_close(fx);
    uint8_t block[PLSI_BLOCK];
    file_read(fx, "s/index_0000.idx", 0, block, sizeof block);
    block[8] = 2;
    plsi_block_close(block);
    file_write(fx, "s/index_0000.idx", 0, block, sizeof block);
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, &error), PLS_OK);
    assert_int_equal(pls_store_find(fx->dir, "s", &fx->store, &error), PLS_BAD_FORMAT);
    assert_non_null(strstr(error.text, "version 2"));
    assert_int_equal(pls_dir_close(fx->dir), PLS_OK);
    fx->dir = NULL;
    block[8] = 1;
    plsi_block_close(block);
    file_write(fx, "s/index_0000.idx", 0, block, sizeof block);
    fx_open(fx);
    assert_many(fx, &refs);
}

/* -- a disk that fails, and files that lie ------------------------------------------------------
 */

/* Opens with the call number k failing; 0: none. Whether the store could be opened. */
static bool open_failing(struct fixture *fx, long k, int error)
{
    struct pls_error text;
    pls_store *store = NULL;
    plsi_sys_fail_at(k, error);
    bool opened = pls_dir_open(fx->path, &fx->options, &fx->dir, &text) == PLS_OK;
    if (opened && pls_store_find(fx->dir, "s", &store, &text) == PLS_OK) {
        settle(store);
        pls_store_release(store);
    }
    plsi_sys_fail_at(0, 0);
    if (opened) {
        pls_dir_close(fx->dir);
    }
    fx->dir = NULL;
    return store != NULL;
}

/* As an older broker leaves it: no index, refs without checksums. */
static void a_read_that_failed_at_open_loses_nothing_for_good(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    for (long k = 1; k <= 40; k++) {
        file_remove(fx, "s/index_0000.idx");
        open_failing(fx, k, EIO);
        fx_open(fx);
        assert_many(fx, &refs);
        fx_close(fx);
    }
}

/* A payload that the disk did not read is damaged; those behind it are what they are. */
static void an_unreadable_payload_ends_no_walk(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref large = put_filled(fx->store, 200000, 1), behind = put_filled(fx->store, 50, 2);
    large.crc32c = behind.crc32c = 0;
    fx_close(fx);
    int damaged = 0;
    bool failed = true; /* until a start makes fewer calls than that */
    for (long k = 1; failed; k++) {
        struct pls_error error;
        if (file_exists(fx, "s/index_0000.idx")) {
            file_remove(fx, "s/index_0000.idx");
        }
        plsi_sys_fail_at(k, EIO);
        if (pls_dir_open(fx->path, &fx->options, &fx->dir, &error) != PLS_OK) {
            plsi_sys_fail_at(0, 0);
            continue;
        }
        failed = plsi_sys_calls() >= k;
        if (pls_store_find(fx->dir, "s", &fx->store, &error) == PLS_OK) {
            settle(fx->store);
            plsi_sys_fail_at(0, 0);
            struct pls_view view = {0};
            if (try_read(fx->store, &large, &view) == PLS_DAMAGED) {
                assert_filled(fx->store, &behind, 2);
                damaged++;
            }
            pls_view_release(&view);
        }
        plsi_sys_fail_at(0, 0);
        fx_close(fx);
    }
    assert_true(damaged > 0);
}

/* What a payload's checksum was only the index knows: no call that fails may cost it. */
static void a_call_that_failed_at_open_takes_no_checksum_away(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    struct pls_ref bare = refs.ref[5];
    bare.crc32c = 0;
    file_flip(fx, "s/payload_0000.dat", bare.offset + 4);
    for (long k = 1; k <= 80; k++) {
        open_failing(fx, (k + 1) / 2, k % 2 ? EMFILE : EIO);
        fx_open(fx);
        assert_unreadable(fx->store, &bare, PLS_DAMAGED);
        fx_close(fx);
    }
}

static void set_mark(struct fixture *fx, uint64_t entries, uint64_t end)
{
    uint8_t block[PLSI_BLOCK];
    file_read(fx, "s/index_0000.idx", 0, block, sizeof block);
    entries = htole64(entries);
    end = htole64(end);
    memcpy(block + 24, &entries, sizeof entries);
    memcpy(block + 40, &end, sizeof end);
    plsi_block_close(block);
    file_write(fx, "s/index_0000.idx", 0, block, sizeof block);
}

static void a_mark_that_cannot_be_is_not_believed(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    put_many(fx, &refs);
    fx_close(fx);
    uint64_t bytes = file_size(fx, "s/payload_0000.dat");
    const struct {
        uint64_t entries, end;
    } marks[] = {{N + 255, bytes},    {1u << 20, bytes}, {UINT64_C(1) << 50, bytes},
                 {UINT64_MAX, bytes}, {0, bytes},        {N, 0},
                 {N, 4 * N - 1}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        set_mark(fx, marks[i].entries, marks[i].end);
        fx_open(fx);
        assert_many(fx, &refs);
        fx_close(fx);
    }
    /* The mark is right, the file behind it is not there any more. */
    file_cut(fx, "s/index_0000.idx", UINT64_C(2) * PLSI_BLOCK);
    fx_open(fx);
    assert_many(fx, &refs);
    fx_close(fx);
    assert_true(file_size(fx, "s/index_0000.idx") == (uint64_t)4 * PLSI_BLOCK);
}

/* A block is lost, and a prefix is a smaller one: the zeros behind look like an empty record. Where
 * the block's records lie nobody knows, and it must not look as if there were none. */
static void a_block_made_from_bad_prefixes_is_not_believed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N];
    const uint8_t smaller = 92, right = 96, zeros[96] = {0};
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put(fx->store, zeros, sizeof zeros);
    }
    fx_close(fx);
    for (uint32_t block = 0; block < 3; block++) {
        struct pls_ref last = refs[block < 2 ? block * 255 + 254 : N - 1];
        uint64_t prefix = refs[block * 255 + 3].offset, sum = (block + 2) * PLSI_BLOCK - 1;
        file_write(fx, "s/payload_0000.dat", prefix, &smaller, 1);
        file_flip(fx, "s/index_0000.idx", sum);
        fx_open(fx);
        struct pls_view view = {0};
        assert_int_equal(try_read(fx->store, &last, &view), PLS_OK);
        pls_view_release(&view);
        last.crc32c = 0;
        assert_unreadable(fx->store, &last, PLS_DAMAGED);
        fx_close(fx);
        file_write(fx, "s/payload_0000.dat", prefix, &right, 1);
        file_flip(fx, "s/index_0000.idx", sum);
    }
}

static void the_index_of_another_segment_is_not_believed(void **state)
{
    struct fixture *fx = *state;
    struct refs refs;
    uint8_t block[PLSI_BLOCK];
    put_many(fx, &refs);
    seal(fx->store);
    struct pls_ref other = put_filled(fx->store, 300, 1), next = put_filled(fx->store, 200, 2);
    fx_close(fx);
    char name[64], index[64];
    snprintf(name, sizeof name, "s/payload_%04u.dat", other.file_id);
    snprintf(index, sizeof index, "s/index_%04u.idx", other.file_id);
    for (uint64_t at = 0; at < file_size(fx, "s/index_0000.idx"); at += sizeof block) {
        file_read(fx, "s/index_0000.idx", at, block, sizeof block);
        file_write(fx, index, at, block, sizeof block);
    }
    fx_open(fx);
    assert_many(fx, &refs);
    assert_filled(fx->store, &other, 1);
    assert_filled(fx->store, &next, 2);
}

/* -- start-up ---------------------------------------------------------------------------------- */

#define SEGMENT_BYTES (256 * MIB)

/* A segment of two records, sparse, and its index, as they are once it is finished. */
static void make_segment(struct fixture *fx, uint32_t id, uint32_t crc_of_zeros)
{
    const uint32_t length = (uint32_t)(SEGMENT_BYTES / 2 - 4), prefix = htole32(length);
    struct plsi_backend *backend = fx->store->backend;
    struct plsi_blob *data, *file;
    char name[PLSI_FILE_NAME], path[64];
    plsi_segment_name(id, name);
    assert_int_equal(backend->ops->make_derived(backend, name, &data, NULL), PLS_OK);
    snprintf(path, sizeof path, "s/%s", name);
    plsi_index_name(id, name);
    assert_int_equal(backend->ops->make_derived(backend, name, &file, NULL), PLS_OK);
    struct plsi_index *index = plsi_index_create(&fx->dir->blocks, id, data, file);
    assert_non_null(index);
    assert_int_equal(plsi_index_reserve(index, 2), PLS_OK);
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t offset = i * SEGMENT_BYTES / 2;
        file_write(fx, path, offset, &prefix, sizeof prefix);
        plsi_index_add(index, &(struct plsi_entry){offset, length, crc_of_zeros});
    }
    file_cut(fx, path, SEGMENT_BYTES);
    assert_int_equal(plsi_index_finish(index, SEGMENT_BYTES), PLS_OK);
    plsi_index_destroy(index);
    data->ops->release(data);
}

static uint32_t crc_of_zeros(size_t n)
{
    uint8_t *zeros = calloc(1, n);
    assert_non_null(zeros);
    uint32_t crc = plsi_crc32c(0, zeros, n);
    free(zeros);
    return crc;
}

static void time_open(struct fixture *fx, uint32_t n, long *calls, size_t *heap)
{
    fx_close(fx);
    size_t before = mallinfo2().uordblks;
    int64_t from = plsi_now_ns();
    plsi_sys_fail_at(0, 0);
    fx_open(fx);
    *calls = plsi_sys_calls();
    *heap = mallinfo2().uordblks - before;
    printf("# %u segments of 256 MiB: opened in %.1f ms, %ld system calls, %zu bytes of heap\n", n,
           (double)(plsi_now_ns() - from) / 1e6, *calls, *heap);
}

static void start_up_reads_the_marks_alone(void **state)
{
    struct fixture *fx = *state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 4096) {
        skip(); /* a segment and its index hold a descriptor each */
    }
    uint32_t crc = crc_of_zeros(SEGMENT_BYTES / 2 - 4);
    long calls_10, calls_1000;
    size_t heap_10, heap_1000;
    plsi_sys_pretend_syncs(true);
    for (uint32_t id = 1; id <= 10; id++) {
        make_segment(fx, id, crc);
    }
    time_open(fx, 10, &calls_10, &heap_10);
    for (uint32_t id = 11; id <= 1000; id++) {
        make_segment(fx, id, crc);
    }
    time_open(fx, 1000, &calls_1000, &heap_1000);
    plsi_sys_pretend_syncs(false);
    assert_true(calls_1000 - calls_10 <= 9900);
    assert_true(heap_1000 - heap_10 <= 990 * KIB);
    struct pls_stat stat;
    assert_int_equal(pls_store_stat(fx->store, &stat, NULL), PLS_OK);
    assert_int_equal(stat.records, 2000);
    pls_stat_fini(&stat);
}

/* The cache's own: memory goes round, so that what it takes does not grow with what passes by. */
static void a_replaced_block_is_what_the_next_is_made_of(void **state)
{
    struct fixture *fx = *state;
    struct plsi_blocks *blocks = &fx->dir->blocks;
    const uint64_t file = plsi_blocks_file(blocks), n = (uint64_t)PLSI_BLOCK_SETS * PLSI_BLOCK_WAYS;
    for (uint64_t i = 0; i < n; i++) {
        struct plsi_buffer *block = plsi_blocks_create(blocks);
        assert_non_null(block);
        plsi_blocks_add(blocks, file, i, block);
        plsi_buffer_release(block);
    }
    struct plsi_buffer *first = plsi_blocks_find(blocks, file, 0);
    struct plsi_buffer *second = plsi_blocks_find(blocks, file, 1);
    struct plsi_buffer *block = plsi_blocks_create(blocks);
    plsi_buffer_release(first); /* by whoever had read it */
    plsi_blocks_add(blocks, file, n, block);
    plsi_blocks_add(blocks, file, n + 1, block);
    plsi_buffer_release(block);
    assert_null(plsi_blocks_find(blocks, file, 0));
    assert_null(plsi_blocks_find(blocks, file, 1));
    block = plsi_blocks_create(blocks);
    assert_ptr_equal(block, first);
    plsi_buffer_release(block);
    block = plsi_blocks_create(blocks);
    assert_ptr_not_equal(block, second); /* which is held */
    plsi_buffer_release(block);
    plsi_buffer_release(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(every_entry_is_found_and_nothing_else),
        STORE_TEST(only_an_unfilled_block_stays_in_memory),
        STORE_TEST(entries_that_were_cut_are_gone_and_can_be_written_anew),
        STORE_TEST(records_of_wild_sizes_are_found),
        STORE_TEST(checksums_are_known_after_a_restart),
        STORE_TEST(a_marked_segment_is_not_read_at_open),
        STORE_TEST(a_missing_index_is_made_from_the_data),
        STORE_TEST(an_index_behind_the_data_is_finished_from_it),
        STORE_TEST(an_index_ahead_of_the_data_gives_nothing_that_is_not_there),
        STORE_TEST(old_entries_lead_across_a_bad_prefix),
        STORE_TEST(a_damaged_index_changes_no_answer),
        STORE_TEST(an_index_lost_while_the_store_is_open_changes_no_answer),
        STORE_TEST(an_index_without_its_segment_is_the_trace_of_a_lost_one),
        STORE_TEST(an_index_of_another_version_closes_the_store),
        STORE_TEST(a_read_that_failed_at_open_loses_nothing_for_good),
        STORE_TEST(an_unreadable_payload_ends_no_walk),
        STORE_TEST(a_call_that_failed_at_open_takes_no_checksum_away),
        STORE_TEST(a_mark_that_cannot_be_is_not_believed),
        STORE_TEST(a_block_made_from_bad_prefixes_is_not_believed),
        STORE_TEST(the_index_of_another_segment_is_not_believed),
        STORE_TEST(a_replaced_block_is_what_the_next_is_made_of),
        STORE_TEST(start_up_reads_the_marks_alone),
    };
    return cmocka_run_group_tests_name("store_index", tests, NULL, NULL);
}
