/* store.state: what it keeps, and that nothing but a whole one of a known version is believed. */
#include "store_fixture.h"

#include <string.h>

#include "state.h"
#include "sys.h"

/* The backend of the fixture's store "s", the store itself being closed. */
struct opened {
    struct plsi_root *root;
    struct plsi_backend *backend;
};

static void open_backend(struct fixture *fx, struct opened *opened)
{
    fx_close(fx);
    assert_int_equal(plsi_files_open(fx->path, &opened->root, NULL), PLS_OK);
    assert_int_equal(opened->root->ops->store(opened->root, "s", false, &opened->backend, NULL),
                     PLS_OK);
}

static void close_backend(struct opened *opened)
{
    opened->backend->ops->close(opened->backend);
    opened->root->ops->close(opened->root);
}

static void what_is_written_is_read(void **state)
{
    struct opened opened;
    open_backend(*state, &opened);
    struct plsi_state written = {
        .clean = true,
        .sealed = true,
        .compacted = true,
        .next_id = 1ull << 32,
        .epoch = UINT64_MAX,
        .incarnation = {1, 2, 3, 255},
        .seal = {.sealed_id = UINT32_MAX - 2, .compaction_id = UINT32_MAX - 1},
        .clean_id = 77,
        .clean_bytes = 1ull << 61,
    };
    memset(written.owner, 'o', PLS_OWNER_MAX);
    for (uint32_t i = 0; i < PLSI_OPEN_SEALS_MAX + 2; i++) {
        written.seal.sealed_id = i;
        plsi_state_open_seal(&written);
    }
    assert_int_equal(written.open[0], 2);
    assert_int_equal(plsi_state_write(opened.backend, &written, NULL), PLS_OK);
    struct plsi_state found;
    bool is_there;
    memset(&found, 0xff, sizeof found);
    assert_int_equal(plsi_state_read(opened.backend, &found, &is_there, NULL), PLS_OK);
    assert_true(is_there);
    assert_true(found.clean && found.sealed && found.compacted && !found.deleted);
    assert_int_equal(found.next_id, written.next_id);
    assert_int_equal(found.epoch, written.epoch);
    assert_memory_equal(found.incarnation, written.incarnation, sizeof found.incarnation);
    assert_seal(&found.seal, written.seal.sealed_id, written.seal.compaction_id);
    assert_int_equal(found.clean_id, written.clean_id);
    assert_int_equal(found.clean_bytes, written.clean_bytes);
    assert_string_equal(found.owner, written.owner);
    assert_int_equal(found.n_open, PLSI_OPEN_SEALS_MAX);
    assert_memory_equal(found.open, written.open, sizeof found.open);
    close_backend(&opened);
}

static void closing_a_seal_closes_the_older_ones(void **state)
{
    (void)state;
    struct plsi_state s = {0};
    for (uint32_t i = 0; i < 4; i++) {
        s.seal.sealed_id = i * 10;
        plsi_state_open_seal(&s);
    }
    plsi_state_close_seals(&s, 10);
    assert_int_equal(s.n_open, 2);
    assert_false(plsi_state_seal_is_open(&s, &(struct pls_seal){0, 1}));
    assert_false(plsi_state_seal_is_open(&s, &(struct pls_seal){10, 11}));
    assert_true(plsi_state_seal_is_open(&s, &(struct pls_seal){20, 21}));
    assert_false(plsi_state_seal_is_open(&s, &(struct pls_seal){20, 22}));
    assert_true(plsi_state_seal_is_open(&s, &(struct pls_seal){30, 31}));
    plsi_state_close_seals(&s, 100);
    assert_int_equal(s.n_open, 0);
}

/* The store is refused, and nothing of it touched. */
static void assert_refused(struct fixture *fx, const char *words)
{
    uint8_t before[PLSI_META_MAX], after[PLSI_META_MAX];
    uint64_t size = file_size(fx, "s/store.state");
    file_read(fx, "s/store.state", 0, before, size);
    struct pls_error error;
    pls_dir *dir;
    pls_store *store, *other;
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &dir, NULL), PLS_OK);
    assert_int_equal(pls_store_find(dir, "s", &store, &error), PLS_BAD_FORMAT);
    assert_non_null(strstr(error.text, words));
    assert_int_equal(pls_store_open(dir, "other", 0, &other, NULL), PLS_OK);
    put_text(other, "works");
    pls_store_release(other);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
    assert_int_equal(file_size(fx, "s/store.state"), size);
    file_read(fx, "s/store.state", 0, after, size);
    assert_memory_equal(before, after, size);
    assert_int_equal(file_count(fx, "s", "payload_"), 1);
}

static void every_damaged_byte_is_noticed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    fx_close(fx);
    uint64_t size = file_size(fx, "s/store.state");
    for (uint64_t i = 0; i < size; i++) {
        file_flip(fx, "s/store.state", i);
        assert_refused(fx, i >= 8 && i < 12 ? "version" : "damaged");
        file_flip(fx, "s/store.state", i);
    }
    fx_open(fx);
    assert_text(fx->store, &ref, "payload");
}

static void a_short_or_long_one_is_refused(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    fx_close(fx);
    uint8_t whole[256], longer[5000] = {0};
    uint64_t size = file_size(fx, "s/store.state");
    file_read(fx, "s/store.state", 0, whole, size);
    const uint64_t sizes[] = {0, 1, 8, 12, 16, size - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        file_cut(fx, "s/store.state", sizes[i]);
        assert_refused(fx, "damaged");
        file_write(fx, "s/store.state", 0, whole, size);
    }
    memcpy(longer, whole, size);
    file_write(fx, "s/store.state", size, longer, 1);
    assert_refused(fx, "damaged");
    file_write(fx, "s/store.state", 0, longer, PLSI_META_MAX);
    assert_refused(fx, "damaged");
    file_cut(fx, "s/store.state", size);
    fx_open(fx);
}

static void a_newer_version_is_named(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    fx_close(fx);
    file_write(fx, "s/store.state", 8, "\7", 1);
    assert_refused(fx, "has version 7, this program knows version 1");
    file_write(fx, "s/store.state", 8, "\1", 1);
    fx_open(fx);
}

int main(void)
{
    plsi_sys_pretend_syncs(true);
    const struct CMUnitTest tests[] = {
        STORE_TEST(what_is_written_is_read),
        cmocka_unit_test(closing_a_seal_closes_the_older_ones),
        STORE_TEST(every_damaged_byte_is_noticed),
        STORE_TEST(a_short_or_long_one_is_refused),
        STORE_TEST(a_newer_version_is_named),
    };
    return cmocka_run_group_tests_name("store_state", tests, NULL, NULL);
}
