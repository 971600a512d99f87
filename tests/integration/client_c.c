/* The C client library against a real server: each call, and its errors. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "client_c_fixture.h"

static void what_is_appended_is_read(void **state)
{
    struct fixture *f = *state;
    size_t large = 2u << 20;
    uint8_t *payload = malloc(large);
    memset(payload, 0x5a, large);
    struct plc_ref empty = append(f, NULL, 0), small = append(f, "abc", 3),
                   big = append(f, payload, large);
    assert_int_equal(empty.length, 0);
    assert_int_equal(small.offset, 4);
    assert_int_equal(big.offset, 11);
    assert_reads(f, &empty, NULL);
    assert_reads(f, &small, "abc");
    assert_reads(f, &big, payload);
    struct plc_ref ref;
    assert_ok(f, plc_append(f->client, NULL, "x", 1, PLC_SYNCED, &ref, NULL));
    assert_ok(f, plc_append(f->client, NULL, "x", 1, PLC_SERVER_DEFAULT, &ref, &f->error));
    free(payload);
}

static void stores_are_apart(void **state)
{
    struct fixture *f = *state;
    const struct plc_call other = {.store = "other"}, none = {.store = "none"};
    struct plc_ref ref = append(f, "mine", 4), others;
    struct plc_payload payload;
    assert_ok(f, plc_append(f->client, &other, "theirs", 6, PLC_BUFFERED, &others, &f->error));
    assert_int_equal(others.offset, ref.offset);
    assert_code(f, plc_read(f->client, NULL, &others, &payload, &f->error), PLC_NOT_FOUND);
    assert_code(f, plc_read(f->client, &none, &ref, &payload, &f->error), PLC_NOT_FOUND);
    assert_non_null(strstr(f->error.message, "none"));
    assert_int_equal(f->error.status, 5);
    assert_string_equal(f->error.reason, "");
}

static void a_damaged_payload_is_data_loss(void **state)
{
    struct fixture *f = *state;
    struct plc_ref ref = append(f, "payload", 7);
    struct plc_payload payload;
    ref.crc32c ^= 1;
    assert_code(f, plc_read(f->client, NULL, &ref, &payload, &f->error), PLC_DATA_LOSS);
}

static void a_stat_tells_what_there_is(void **state)
{
    struct fixture *f = *state;
    struct plc_stat stat = {0};
    struct plc_seal seal;
    uint64_t epoch;
    assert_code(f, plc_stat(f->client, NULL, &stat, &f->error), PLC_NOT_FOUND);
    append(f, "four", 4);
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_string_equal(stat.store, STORE);
    assert_string_equal(stat.owner, "");
    assert_int_equal(strlen(stat.incarnation), 32);
    assert_int_equal(stat.disk_usage_bytes, 8);
    assert_int_equal(stat.records, 1);
    assert_int_equal(stat.max_payload_bytes, 2u << 20);
    assert_false(stat.sealed);
    assert_int_equal(stat.n_segments, 1);
    assert_true(stat.segments[0].active);
    assert_int_equal(stat.segments[0].bytes, 8);
    plc_stat_fini(&stat);
    plc_stat_fini(&stat);

    assert_ok(f, plc_seal_store(f->client, NULL, &seal, &f->error));
    assert_ok(f, plc_claim(f->client, NULL, "a test", NULL, &epoch, &f->error));
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_true(stat.sealed);
    assert_int_equal(stat.last_seal.sealed_id, seal.sealed_id);
    assert_int_equal(stat.last_seal.compaction_id, seal.sealed_id + 1);
    assert_int_equal(stat.epoch, epoch);
    assert_string_equal(stat.owner, "a test");
    plc_stat_fini(&stat);
}

static void a_seal_with_nothing_new_is_the_same_one(void **state)
{
    struct fixture *f = *state;
    struct plc_seal first, again, next;
    append(f, "a", 1);
    assert_ok(f, plc_seal_store(f->client, NULL, &first, &f->error));
    assert_ok(f, plc_seal_store(f->client, NULL, &again, &f->error));
    assert_memory_equal(&first, &again, sizeof first);
    append(f, "b", 1);
    assert_ok(f, plc_seal_store(f->client, NULL, &next, &f->error));
    assert_true(next.sealed_id > first.sealed_id);
}

static void a_zombie_is_told_apart_by_its_code(void **state)
{
    struct fixture *f = *state;
    const uint64_t never = 0;
    uint64_t epoch = 0, later = 0;
    struct plc_ref ref;
    struct plc_seal seal;
    assert_ok(f, plc_claim(f->client, NULL, "first", &never, &epoch, &f->error));
    const struct plc_call mine = {.epoch = epoch};
    assert_ok(f, plc_append(f->client, &mine, "a", 1, PLC_BUFFERED, &ref, &f->error));
    /* Somebody else's, by which ours is not to be confused with a stale one. */
    assert_code(f, plc_claim(f->client, NULL, "late", &never, &later, &f->error),
                PLC_FAILED_PRECONDITION);
    assert_int_equal(later, 0);
    assert_ok(f, plc_claim(f->client, NULL, "second", &epoch, &later, &f->error));
    assert_int_equal(later, epoch + 1);

    assert_code(f, plc_append(f->client, &mine, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_EPOCH_STALE);
    assert_string_equal(f->error.reason, "EPOCH_STALE");
    assert_int_equal(f->error.status, 9);
    assert_code(f, plc_seal_store(f->client, &mine, &seal, &f->error), PLC_EPOCH_STALE);
    assert_code(f, plc_compact(f->client, &mine, NULL, &nothing_live, NULL, &f->error),
                PLC_EPOCH_STALE);
    const struct plc_call mine_named = {.store = STORE, .epoch = epoch};
    assert_code(f, plc_delete_store(f->client, &mine_named, NULL, &f->error), PLC_EPOCH_STALE);
}

static void a_store_is_deleted_by_name_and_incarnation(void **state)
{
    struct fixture *f = *state;
    const struct plc_call named = {.store = STORE};
    struct plc_stat stat;
    struct plc_ref ref = append(f, "a", 1);
    struct plc_payload payload;
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_code(f, plc_delete_store(f->client, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_delete_store(f->client, &named, "another", &f->error),
                PLC_FAILED_PRECONDITION);
    assert_reads(f, &ref, "a");
    assert_ok(f, plc_delete_store(f->client, &named, stat.incarnation, &f->error));
    assert_code(f, plc_read(f->client, NULL, &ref, &payload, &f->error), PLC_NOT_FOUND);
    assert_code(f, plc_delete_store(f->client, &named, stat.incarnation, &f->error), PLC_NOT_FOUND);
    plc_stat_fini(&stat);
}

/* The names that were told, each with a comma; no more after `enough`. */
struct names {
    char text[200];
    size_t n, enough;
};

static bool add_name(void *arg, const char *store)
{
    struct names *names = arg;
    size_t length = strlen(names->text);
    snprintf(names->text + length, sizeof names->text - length, "%s,", store);
    return ++names->n != names->enough;
}

static void stores_are_named_in_order(void **state)
{
    struct fixture *f = *state;
    static const char *const made[] = {"b", "a.1", "Z"};
    struct names names = {.enough = 100};
    struct plc_ref ref;
    assert_ok(f, plc_list_stores(f->client, NULL, add_name, &names, &f->error));
    assert_string_equal(names.text, "");
    for (size_t i = 0; i < 3; i++) {
        const struct plc_call call = {.store = made[i]};
        assert_ok(f, plc_append(f->client, &call, "a", 1, PLC_BUFFERED, &ref, &f->error));
    }
    assert_ok(f, plc_list_stores(f->client, NULL, add_name, &names, &f->error));
    assert_string_equal(names.text, "Z,a.1,b,");
    names = (struct names){.enough = 2};
    assert_code(f, plc_list_stores(f->client, NULL, add_name, &names, &f->error), PLC_STOPPED);
    assert_string_equal(names.text, "Z,a.1,");
    assert_code(f, plc_list_stores(f->client, NULL, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
}

static void keep_damaged(void *arg, const struct plc_damaged *damaged, size_t n)
{
    struct plc_damaged *last = arg;
    assert_string_not_equal(damaged[n - 1].message, "");
    *last = damaged[n - 1];
}

static bool verify_no_more(void *arg, const struct plc_verified *so_far)
{
    (void)arg;
    return so_far->records_checked > 1000;
}

static void flip(const struct fixture *f, long offset)
{
    char path[PATH_MAX + 100];
    snprintf(path, sizeof path, "%s/data/%s/payload_0000.dat", f->server.dir, STORE);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fputc('X', file), 'X');
    assert_int_equal(fclose(file), 0);
}

static void verifying_finds_the_one_damaged_record(void **state)
{
    struct fixture *f = *state;
    struct plc_verified verified;
    struct plc_damaged damaged = {.code = PLC_OK};
    const struct plc_verify_callbacks callbacks = {.damaged = keep_damaged, .arg = &damaged};
    const struct plc_verify_callbacks impatient = {.progress = verify_no_more};
    assert_code(f, plc_verify(f->client, NULL, 0, NULL, &verified, &f->error), PLC_NOT_FOUND);
    append(f, "good", 4);
    struct plc_ref bad = append(f, "will be bad", 11);
    append(f, "good", 4);
    assert_ok(f, plc_verify(f->client, NULL, 0, &callbacks, &verified, &f->error));
    assert_int_equal(verified.records_checked, 3);
    assert_int_equal(verified.bytes_checked, 19 + 3 * 4);
    assert_int_equal(verified.bytes_total, verified.bytes_checked);
    assert_int_equal(verified.damaged, 0);
    flip(f, (long)bad.offset + 4);
    assert_ok(f, plc_verify(f->client, NULL, 0, &callbacks, &verified, &f->error));
    assert_int_equal(verified.damaged, 1);
    assert_int_equal(damaged.code, PLC_DATA_LOSS);
    assert_int_equal(damaged.ref.offset, bad.offset);
    assert_int_equal(damaged.ref.length, bad.length);
    assert_ok(f, plc_verify(f->client, NULL, 1 << 20, NULL, &verified, &f->error));
    assert_int_equal(verified.damaged, 1);
    assert_code(f, plc_verify(f->client, NULL, 0, &impatient, &verified, &f->error), PLC_STOPPED);
    assert_code(f, plc_verify(f->client, NULL, 0, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
}

static void hostile_arguments_are_refused(void **state)
{
    struct fixture *f = *state;
    char long_name[5000];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const struct plc_call calls[] = {
        {.store = "../up"}, {.store = "\xff\xfe"}, {.store = long_name}, {.store = ".hidden"}};
    struct plc_ref ref = {0};
    struct plc_payload payload;
    struct plc_stat stat;
    struct plc_seal seal;
    uint64_t epoch;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const struct plc_call *call = &calls[i];
        assert_code(f, plc_append(f->client, call, "a", 1, PLC_BUFFERED, &ref, &f->error),
                    PLC_INVALID_ARGUMENT);
        assert_code(f, plc_read(f->client, call, &ref, &payload, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_seal_store(f->client, call, &seal, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_claim(f->client, call, NULL, NULL, &epoch, &f->error),
                    PLC_INVALID_ARGUMENT);
        assert_code(f, plc_stat(f->client, call, &stat, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_delete_store(f->client, call, NULL, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_compact(f->client, call, NULL, &nothing_live, NULL, &f->error),
                    PLC_INVALID_ARGUMENT);
    }
    assert_code(f, plc_claim(f->client, NULL, "\xff", NULL, &epoch, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_claim(f->client, NULL, long_name, NULL, &epoch, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_claim(f->client, NULL, NULL, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, NULL, 1, PLC_BUFFERED, &ref, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, "a", 1, PLC_BUFFERED, NULL, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, "a", 1, (enum plc_durability)7, &ref, &f->error),
                PLC_INVALID_ARGUMENT);
    /* Refused before a byte of it is looked at. */
    assert_code(f,
                plc_append(f->client, NULL, "a", (size_t)PLC_PAYLOAD_LIMIT + 1, PLC_BUFFERED, &ref,
                           &f->error),
                PLC_PAYLOAD_TOO_LARGE);
    assert_code(f, plc_read(f->client, NULL, NULL, &payload, &f->error), PLC_INVALID_ARGUMENT);
    append(f, "a", 1);
    const struct plc_ref absurd = {UINT32_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX};
    assert_code(f, plc_read(f->client, NULL, &absurd, &payload, &f->error), PLC_INVALID_ARGUMENT);
    const struct plc_compact_options absurd_share = {.min_garbage_percent = 101};
    assert_code(f, plc_compact(f->client, NULL, &absurd_share, &nothing_live, NULL, &f->error),
                PLC_INVALID_ARGUMENT);
    const struct plc_compact_callbacks none = {0};
    assert_code(f, plc_compact(f->client, NULL, NULL, &none, NULL, &f->error),
                PLC_INVALID_ARGUMENT);

    plc_client *client;
    const struct plc_options negative = {.deadline_ms = -1};
    const struct plc_options too_large = {.max_payload_bytes = SIZE_MAX};
    assert_code(f, plc_client_open(NULL, NULL, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("", NULL, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("a:1", &negative, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("a:1", &too_large, &client, &f->error), PLC_INVALID_ARGUMENT);
}

static void a_payload_beyond_a_limit_is_refused_and_harms_nothing(void **state)
{
    struct fixture *f = *state;
    size_t large = (2u << 20) + 1;
    uint8_t *payload = calloc(1, large);
    struct plc_ref ref;
    assert_code(f, plc_append(f->client, NULL, payload, large, PLC_BUFFERED, &ref, &f->error),
                PLC_PAYLOAD_TOO_LARGE);
    assert_string_equal(f->error.reason, "PAYLOAD_TOO_LARGE");
    ref = append(f, payload, 1u << 20);

    plc_client *narrow;
    const struct plc_options options = {
        .store = STORE, .deadline_ms = PATIENCE, .max_payload_bytes = 1000};
    struct plc_payload stored;
    assert_ok(f, plc_client_open(f->server.address, &options, &narrow, &f->error));
    assert_code(f, plc_read(narrow, NULL, &ref, &stored, &f->error), PLC_RESOURCE_EXHAUSTED);
    assert_string_equal(f->error.reason, "");
    plc_client_close(narrow);
    assert_reads(f, &ref, payload);
    free(payload);
}

static void a_target_where_nobody_listens_is_unavailable(void **state)
{
    struct fixture *f = *state;
    static const char *const targets[] = {"unix:/nonexistent/socket", "127.0.0.1:1",
                                          "no-such-scheme:///x"};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        plc_client *client;
        struct plc_ref ref;
        const struct plc_compact_options once = {.retry_ms = -1};
        assert_ok(f, plc_client_open(targets[i], NULL, &client, &f->error));
        assert_code(f, plc_append(client, NULL, "a", 1, PLC_BUFFERED, &ref, &f->error),
                    PLC_UNAVAILABLE);
        assert_code(f, plc_compact(client, NULL, &once, &nothing_live, NULL, &f->error),
                    PLC_UNAVAILABLE);
        plc_client_close(client);
    }
    plc_client_close(NULL);
}

static void a_silent_server_runs_into_the_deadline(void **state)
{
    struct fixture *f = *state;
    const struct plc_call hasty = {.deadline_ms = 100};
    struct plc_ref ref = append(f, "a", 1);
    struct plc_payload payload;
    kill(f->server.pid, SIGSTOP);
    assert_int_equal(waitpid(f->server.pid, NULL, WUNTRACED), f->server.pid); /* it has stopped */
    assert_code(f, plc_append(f->client, &hasty, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_DEADLINE_EXCEEDED);
    assert_code(f, plc_read(f->client, &hasty, &ref, &payload, &f->error), PLC_DEADLINE_EXCEEDED);
    assert_code(f, plc_compact(f->client, &hasty, NULL, &nothing_live, NULL, &f->error),
                PLC_DEADLINE_EXCEEDED);
    const struct plc_call past = {.deadline_ms = -5};
    assert_code(f, plc_compact(f->client, &past, NULL, &nothing_live, NULL, &f->error),
                PLC_DEADLINE_EXCEEDED);
    kill(f->server.pid, SIGCONT);
    assert_code(f, plc_append(f->client, &past, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_DEADLINE_EXCEEDED);
    assert_reads(f, &ref, "a");
}

/* The usual keepalive asks after 20 s, and the deadline comes first. */
static void a_server_that_gives_no_sign_of_life_is_given_up(void **state)
{
    struct fixture *f = *state;
    const struct plc_options lively = {.store = STORE,
                                       .deadline_ms = 15000,
                                       .keepalive_ms = 100,
                                       .keepalive_timeout_ms = 100,
                                       .reconnect_ms = 200};
    struct plc_ref ref = append(f, "a", 1);
    struct plc_payload payload;
    plc_client *client;
    assert_ok(f, plc_client_open(f->server.address, &lively, &client, &f->error));
    assert_ok(f, plc_read(client, NULL, &ref, &payload, &f->error));
    plc_payload_fini(&payload);
    kill(f->server.pid, SIGSTOP);
    assert_int_equal(waitpid(f->server.pid, NULL, WUNTRACED), f->server.pid); /* it has stopped */
    assert_code(f, plc_read(client, NULL, &ref, &payload, &f->error), PLC_UNAVAILABLE);
    kill(f->server.pid, SIGCONT);
    plc_client_close(client);
}

static void codes_have_names_and_words(void **state)
{
    (void)state;
    assert_string_equal(plc_code_name(PLC_DISK_RESERVE), "DISK_RESERVE");
    assert_string_equal(plc_code_name(12345), "UNKNOWN");
    assert_string_equal(plc_strerror(PLC_OK), "success");
    assert_string_equal(plc_strerror(-1), "not a code of this library");
}

/* -- the README's example ---------------------------------------------------------------------- */

static void the_example_in_the_readme_says_what_it_should(void **state)
{
    struct fixture *f = *state;
    char command[1024], said[100] = "";
    const char *example = getenv("CLIENT_C_EXAMPLE");
    assert_non_null(example);
    snprintf(command, sizeof command, "'%s' '%s'", example, f->server.address);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    assert_non_null(fgets(said, sizeof said, output));
    assert_int_equal(pclose(output), 0);
    assert_string_equal(said, "hello world, in segment 1\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_appended_is_read),
        TEST(stores_are_apart),
        TEST(a_damaged_payload_is_data_loss),
        TEST(a_stat_tells_what_there_is),
        TEST(a_seal_with_nothing_new_is_the_same_one),
        TEST(a_zombie_is_told_apart_by_its_code),
        TEST(a_store_is_deleted_by_name_and_incarnation),
        TEST(stores_are_named_in_order),
        TEST(verifying_finds_the_one_damaged_record),
        TEST(hostile_arguments_are_refused),
        TEST(a_payload_beyond_a_limit_is_refused_and_harms_nothing),
        TEST(a_target_where_nobody_listens_is_unavailable),
        TEST(a_silent_server_runs_into_the_deadline),
        TEST(a_server_that_gives_no_sign_of_life_is_given_up),
        TEST(codes_have_names_and_words),
        TEST(the_example_in_the_readme_says_what_it_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
