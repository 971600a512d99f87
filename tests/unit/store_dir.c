/* The data directory: names, lists, locks, and what cannot be opened. */
#include "store_fixture.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void names_are_checked(void **state)
{
    struct fixture *fx = *state;
    char longest[PLS_NAME_MAX + 1] = "", too_long[PLS_NAME_MAX + 2] = "";
    memset(longest, 'a', PLS_NAME_MAX);
    memset(too_long, 'a', PLS_NAME_MAX + 1);
    const char *bad[] = {"../x",  "..",   ".",  "",     ".hidden", "a/b",         "/a",
                         "-dash", "_low", "a ", "a\nb", "stör",    "\xc3\xb6rje", too_long};
    const char *good[] = {"a", "0", "A.b_c-d", "a..b", "payload_0000.dat", longest};
    pls_store *store;
    struct pls_error error;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(pls_name_valid(bad[i]));
        assert_int_equal(pls_store_open(fx->dir, bad[i], 0, &store, &error), PLS_INVALID_NAME);
        assert_int_equal(pls_store_find(fx->dir, bad[i], &store, &error), PLS_INVALID_NAME);
        assert_int_equal(pls_store_delete(fx->dir, bad[i], 0, NULL, &error), PLS_INVALID_NAME);
        assert_string_not_equal(error.text, "");
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(pls_name_valid(good[i]));
        assert_int_equal(pls_store_open(fx->dir, good[i], 0, &store, &error), PLS_OK);
        assert_string_equal(pls_store_name(store), good[i]);
        pls_store_release(store);
    }
    assert_int_equal(file_count(fx, "..", "x"), 0);
    fx_reopen(fx);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(pls_store_find(fx->dir, good[i], &store, &error), PLS_OK);
        pls_store_release(store);
    }
}

static void a_store_that_was_never_opened_is_not_found(void **state)
{
    struct fixture *fx = *state;
    pls_store *store;
    assert_int_equal(pls_store_find(fx->dir, "other", &store, NULL), PLS_NO_STORE);
    assert_false(file_exists(fx, "other"));
}

static void stores_do_not_meet(void **state)
{
    struct fixture *fx = *state;
    pls_store *other;
    assert_int_equal(pls_store_open(fx->dir, "other", 0, &other, NULL), PLS_OK);
    struct pls_ref a = put_text(fx->store, "mine");
    struct pls_ref b = put_text(other, "theirs");
    assert_ref(&b, 0, 0, 6);
    struct pls_seal given = seal(other);
    compact_ok(other, &given, NULL, 0);
    assert_text(fx->store, &a, "mine");
    pls_store_release(other);
}

static void stores_are_listed_in_byte_order_a_page_at_a_time(void **state)
{
    struct fixture *fx = *state;
    const char *expected[] = {"A", "B", "a", "a-", "a.", "a0", "aa", "b", "s"};
    enum { N = sizeof expected / sizeof *expected };
    for (size_t i = 0; i < N; i++) {
        pls_store *store;
        assert_int_equal(pls_store_open(fx->dir, expected[(i * 4) % N], 0, &store, NULL), PLS_OK);
        pls_store_release(store);
    }
    for (int restart = 0; restart < 2; restart++) {
        for (size_t page = 1; page <= N + 1; page++) {
            char names[N + 1][PLS_NAME_MAX + 1], after[PLS_NAME_MAX + 1] = "";
            bool more = true;
            size_t n, seen = 0;
            while (more && (n = pls_dir_list(fx->dir, after, names, page, &more)) > 0) {
                for (size_t i = 0; i < n; i++) {
                    assert_string_equal(names[i], expected[seen++]);
                }
                memcpy(after, names[n - 1], sizeof after);
            }
            assert_int_equal(seen, N);
            assert_false(more);
        }
        fx_reopen(fx);
    }
    bool more;
    assert_int_equal(pls_dir_list(fx->dir, "s", NULL, 0, &more), 0);
    assert_false(more);
    assert_int_equal(pls_dir_list(fx->dir, "b", NULL, 0, &more), 0);
    assert_true(more);
}

static void a_path_that_cannot_be_is_refused(void **state)
{
    struct fixture *fx = *state;
    char path[PATH_MAX + 32];
    struct pls_error error;
    pls_dir *dir;
    file_write(fx, "file", 0, "x", 1);
    const char *below[] = {"file", "file/below", "file/below/further"};
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        snprintf(path, sizeof path, "%s/%s", fx->path, below[i]);
        assert_int_not_equal(pls_dir_open(path, NULL, &dir, &error), PLS_OK);
        assert_non_null(strstr(error.text, path));
    }
    assert_int_not_equal(pls_dir_open("", NULL, &dir, &error), PLS_OK);
    assert_int_not_equal(pls_dir_open("/proc/payloadstore", NULL, &dir, &error), PLS_OK);
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_not_equal(pls_dir_open(path, NULL, &dir, &error), PLS_OK);
}

static void a_deep_path_is_made(void **state)
{
    struct fixture *fx = *state;
    char path[PATH_MAX + 32];
    struct pls_error error;
    pls_dir *dir;
    snprintf(path, sizeof path, "%s/a/b//c/", fx->path);
    assert_int_equal(pls_dir_open(path, NULL, &dir, &error), PLS_OK);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
    assert_int_equal(pls_dir_open(path, NULL, &dir, &error), PLS_OK);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
}

/* In a child that is nobody in particular, since root may write anywhere. */
static int open_as_nobody(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct pls_error error;
        pls_dir *dir;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) {
            _exit(100);
        }
        enum pls_code code = pls_dir_open(path, NULL, &dir, &error);
        _exit(error.text[0] != '\0' ? (int)code : 101);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_directory_that_is_not_writable_is_refused(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/new", fx->path);
    assert_int_equal(chmod(fx->path, 0555), 0);
    int existing = open_as_nobody(fx->path);
    int missing = open_as_nobody(path);
    assert_int_equal(chmod(fx->path, 0755), 0);
    if (existing == 100) {
        skip();
    }
    assert_int_equal(existing, PLS_DENIED);
    assert_int_equal(missing, PLS_DENIED);
}

static void a_directory_that_another_process_holds_is_refused(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    int ready[2], done[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pls_dir *dir;
        char byte = (char)pls_dir_open(fx->path, &fx->options, &dir, NULL);
        close(done[1]);
        if (write(ready[1], &byte, 1) == 1 && read(done[0], &byte, 1) == 0) {
            _exit(pls_dir_close(dir) == PLS_OK ? 0 : 1);
        }
        _exit(1);
    }
    close(done[0]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, PLS_OK);
    struct pls_error error;
    pls_dir *dir;
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &dir, &error), PLS_LOCKED);
    char number[32];
    snprintf(number, sizeof number, " %ld", (long)pid);
    assert_non_null(strstr(error.text, number));
    assert_non_null(strstr(error.text, fx->path));
    close(done[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(ready[0]);
    close(ready[1]);
    fx_open(fx); /* with its holder the lock is gone */
}

static void opening_twice_in_one_process_is_refused(void **state)
{
    struct fixture *fx = *state;
    pls_dir *dir;
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &dir, NULL), PLS_LOCKED);
    put_text(fx->store, "the first one goes on");
}

static void one_broken_store_leaves_the_others_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "fine");
    fx_close(fx);
    file_write(fx, "broken/store.state", 0, "garbage", 7);
    file_write(fx, "broken/payload_0000.dat", 0, "\1\0\0\0x", 5);
    file_write(fx, "broken/compact_0001.tmp", 0, "x", 1);
    fx_open(fx);
    assert_true(fx_logged(fx, "store_broken: store broken: store.state is damaged"));
    assert_text(fx->store, &ref, "fine");
    pls_store *store;
    struct pls_error error;
    assert_int_equal(pls_store_find(fx->dir, "broken", &store, &error), PLS_BAD_FORMAT);
    assert_non_null(strstr(error.text, "broken"));
    assert_null(store);
    assert_int_equal(pls_store_open(fx->dir, "broken", 0, &store, &error), PLS_BAD_FORMAT);
    assert_int_equal(pls_store_delete(fx->dir, "broken", 0, NULL, &error), PLS_BAD_FORMAT);
    assert_int_equal(file_count(fx, "broken", ""), 5); /* with . and .. */
}

static void options_out_of_range_are_refused(void **state)
{
    struct fixture *fx = *state;
    const struct pls_options bad[] = {
        {.payload_max_bytes = PLS_PAYLOAD_LIMIT + 1u},
        {.segment_max_bytes = UINT64_MAX},
        {.io_threads = 100000},
    };
    pls_dir *dir;
    fx_close(fx);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(pls_dir_open(fx->path, &bad[i], &dir, NULL), PLS_INVALID_ARGUMENT);
    }
    assert_int_equal(pls_dir_open(fx->path, NULL, &dir, NULL), PLS_OK);
    assert_int_equal(pls_dir_close(dir), PLS_OK);
    assert_int_equal(pls_dir_close(NULL), PLS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(names_are_checked),
        STORE_TEST(a_store_that_was_never_opened_is_not_found),
        STORE_TEST(stores_do_not_meet),
        STORE_TEST(stores_are_listed_in_byte_order_a_page_at_a_time),
        STORE_TEST(a_path_that_cannot_be_is_refused),
        STORE_TEST(a_deep_path_is_made),
        STORE_TEST(a_directory_that_is_not_writable_is_refused),
        STORE_TEST(a_directory_that_another_process_holds_is_refused),
        STORE_TEST(opening_twice_in_one_process_is_refused),
        STORE_TEST(one_broken_store_leaves_the_others_alone),
        STORE_TEST(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests_name("store_dir", tests, NULL, NULL);
}
