/* Settings: flags, variables, defaults, and how bad ones are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"

#define ARGUMENTS(...) ((char *[]){"payloadstored", ##__VA_ARGS__, NULL})

/* How a process ended that only parsed its settings. */
struct ending {
    int status;
    char out[8192];
    char err[8192];
};

static const char *const variables[] = {
    "PAYLOADSTORE_LISTEN",         "PAYLOADSTORE_DATA_DIR",
    "PAYLOADSTORE_SEGMENT_MAX_MB", "PAYLOADSTORE_MAX_PAYLOAD_MB",
    "PAYLOADSTORE_DURABILITY",     "PAYLOADSTORE_THREADS",
    "PAYLOADSTORE_DRAIN_SECONDS",  "PAYLOADSTORE_LOG_LEVEL",
    "PAYLOADSTORE_LOG_FORMAT",     "QRUSTY_SEGMENT_MAX_MB",
    "PAYLOADSTORE_RESERVE_MB",     "PAYLOADSTORE_COMPACTION_MAX_MB_PER_SECOND",
    "PAYLOADSTORE_TLS_CERT",       "PAYLOADSTORE_TLS_KEY",
    "PAYLOADSTORE_TLS_CLIENT_CA",
};

#define N_VARIABLES (sizeof variables / sizeof variables[0])

static int forget_variables(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VARIABLES; i++) {
        unsetenv(variables[i]);
    }
    return 0;
}

static void parse(struct psd_config *config, char **argv)
{
    int argc = 0;

    while (argv[argc] != NULL) {
        argc++;
    }
    psd_config_parse(config, argc, argv);
}

static void read_all(int fd, char *text, size_t size)
{
    size_t length = 0;
    ssize_t got;

    while ((got = read(fd, text + length, size - 1 - length)) > 0) {
        length += (size_t)got;
    }
    text[length] = '\0';
    close(fd);
}

/* Parses in a process of its own, since a bad setting ends the process. */
static struct ending parse_apart(char **argv)
{
    struct ending ending;
    struct psd_config config = {0};
    int out[2];
    int err[2];
    pid_t child;

    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    fflush(NULL); /* or the child would print it once more */
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        parse(&config, argv);
        psd_config_fini(&config);
        _exit(100);
    }
    close(out[1]);
    close(err[1]);
    read_all(out[0], ending.out, sizeof ending.out);
    read_all(err[0], ending.err, sizeof ending.err);
    assert_int_equal(waitpid(child, &ending.status, 0), child);
    assert_true(WIFEXITED(ending.status));
    ending.status = WEXITSTATUS(ending.status);
    return ending;
}

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", part, text);
    }
}

/* The first line names `name`, `value` and what is accepted; the second is argp's hint. */
static void assert_refused(char **argv, const char *name, const char *value, const char *expected)
{
    struct ending ending = parse_apart(argv);
    char *newline = strchr(ending.err, '\n');

    assert_int_equal(ending.status, 2);
    assert_string_equal(ending.out, "");
    assert_non_null(newline);
    *newline = '\0';
    assert_contains(ending.err, name);
    assert_contains(ending.err, value);
    assert_contains(ending.err, expected);
    assert_int_equal(strncmp(newline + 1, "Try ", 4), 0);
}

/* -- what is accepted -------------------------------------------------------------------------- */

static void defaults_are_the_documented_ones(void **state)
{
    struct psd_config config = {0};

    (void)state;
    parse(&config, ARGUMENTS());
    assert_int_equal(config.n_listen, 1);
    assert_string_equal(config.listen[0], "127.0.0.1:50051");
    assert_null(config.tls_cert);
    assert_null(config.tls_key);
    assert_null(config.tls_client_ca);
    assert_string_equal(config.data_dir, "./payloads");
    assert_int_equal(config.segment_max_bytes, 256 << 20);
    assert_int_equal(config.payload_max_bytes, 64 << 20);
    assert_int_equal(config.durability, PLS_SYNCED);
    assert_int_equal(config.reserve_bytes, 0); /* the store's default */
    assert_int_equal(config.compaction_max_bytes_per_second, 0);
    assert_int_equal(config.threads, 2);
    assert_int_equal(config.drain_seconds, 10);
    assert_int_equal(config.log_level, PSD_LOG_INFO);
    assert_int_equal(config.log_format, PSD_LOG_FORMAT_TEXT);
    psd_config_fini(&config);
}

static void flags_set_everything(void **state)
{
    struct psd_config config = {0};

    (void)state;
    parse(&config, ARGUMENTS("--data-dir=/srv/p", "--segment-max-mb", "1048576",
                             "--max-payload-mb=2047", "--durability=buffered", "--threads=64",
                             "--reserve-mb=1048576", "--compaction-max-mb-per-second=1048576",
                             "--drain-seconds=0", "--log-level=debug", "--log-format=json",
                             "--tls-cert=c.pem", "--tls-key=k.pem", "--tls-client-ca=a.pem"));
    assert_string_equal(config.tls_cert, "c.pem");
    assert_string_equal(config.tls_key, "k.pem");
    assert_string_equal(config.tls_client_ca, "a.pem");
    assert_string_equal(config.data_dir, "/srv/p");
    assert_int_equal(config.segment_max_bytes, 1ull << 40);
    assert_int_equal(config.payload_max_bytes, 2047u << 20);
    assert_int_equal(config.durability, PLS_BUFFERED);
    assert_int_equal(config.reserve_bytes, 1ull << 40);
    assert_int_equal(config.compaction_max_bytes_per_second, 1ull << 40);
    assert_int_equal(config.threads, 64);
    assert_int_equal(config.drain_seconds, 0);
    assert_int_equal(config.log_level, PSD_LOG_DEBUG);
    assert_int_equal(config.log_format, PSD_LOG_FORMAT_JSON);
    psd_config_fini(&config);
}

static void the_reserve_may_be_none_or_settled_by_the_store(void **state)
{
    struct psd_config config = {0};

    (void)state;
    parse(&config, ARGUMENTS("--reserve-mb=0"));
    assert_true(config.reserve_bytes == PLS_RESERVE_NONE);
    psd_config_fini(&config);

    parse(&config, ARGUMENTS("--reserve-mb", "auto"));
    assert_int_equal(config.reserve_bytes, 0);
    psd_config_fini(&config);
}

static void listen_may_be_given_more_than_once(void **state)
{
    struct psd_config config = {0};

    (void)state;
    parse(&config, ARGUMENTS("--listen=[::1]:0", "--listen", "localhost:65535",
                             "--listen=unix:/run/p.sock"));
    assert_int_equal(config.n_listen, 3);
    assert_string_equal(config.listen[0], "[::1]:0");
    assert_string_equal(config.listen[1], "localhost:65535");
    assert_string_equal(config.listen[2], "unix:/run/p.sock");
    psd_config_fini(&config);
}

static void variables_set_what_flags_leave_open(void **state)
{
    struct psd_config config = {0};

    (void)state;
    setenv("PAYLOADSTORE_LISTEN", "0.0.0.0:1,unix:p.sock", 1);
    setenv("PAYLOADSTORE_DATA_DIR", "elsewhere", 1);
    setenv("PAYLOADSTORE_SEGMENT_MAX_MB", "1", 1);
    setenv("PAYLOADSTORE_MAX_PAYLOAD_MB", "2", 1);
    setenv("PAYLOADSTORE_DURABILITY", "buffered", 1);
    setenv("PAYLOADSTORE_RESERVE_MB", "3", 1);
    setenv("PAYLOADSTORE_COMPACTION_MAX_MB_PER_SECOND", "4", 1);
    setenv("PAYLOADSTORE_THREADS", "3", 1);
    setenv("PAYLOADSTORE_DRAIN_SECONDS", "4", 1);
    setenv("PAYLOADSTORE_LOG_LEVEL", "error", 1);
    setenv("PAYLOADSTORE_LOG_FORMAT", "json", 1);
    setenv("PAYLOADSTORE_TLS_CERT", "c.pem", 1);
    setenv("PAYLOADSTORE_TLS_CLIENT_CA", "a.pem", 1);
    parse(&config, ARGUMENTS("--threads=5", "--tls-key=k.pem"));
    assert_string_equal(config.tls_cert, "c.pem");
    assert_string_equal(config.tls_key, "k.pem");
    assert_string_equal(config.tls_client_ca, "a.pem");
    assert_int_equal(config.n_listen, 2);
    assert_string_equal(config.listen[0], "0.0.0.0:1");
    assert_string_equal(config.listen[1], "unix:p.sock");
    assert_string_equal(config.data_dir, "elsewhere");
    assert_int_equal(config.segment_max_bytes, 1 << 20);
    assert_int_equal(config.payload_max_bytes, 2 << 20);
    assert_int_equal(config.durability, PLS_BUFFERED);
    assert_int_equal(config.reserve_bytes, 3 << 20);
    assert_int_equal(config.compaction_max_bytes_per_second, 4 << 20);
    assert_int_equal(config.threads, 5); /* the flag wins */
    assert_int_equal(config.drain_seconds, 4);
    assert_int_equal(config.log_level, PSD_LOG_ERROR);
    assert_int_equal(config.log_format, PSD_LOG_FORMAT_JSON);
    psd_config_fini(&config);
}

static void a_flag_hides_even_a_bad_variable(void **state)
{
    struct psd_config config = {0};

    (void)state;
    setenv("PAYLOADSTORE_LISTEN", "nonsense", 1);
    parse(&config, ARGUMENTS("--listen=127.0.0.1:7"));
    assert_int_equal(config.n_listen, 1);
    assert_string_equal(config.listen[0], "127.0.0.1:7");
    psd_config_fini(&config);
}

static void an_empty_variable_counts_as_unset(void **state)
{
    struct psd_config config = {0};

    (void)state;
    setenv("PAYLOADSTORE_THREADS", "", 1);
    setenv("PAYLOADSTORE_LISTEN", "", 1);
    parse(&config, ARGUMENTS());
    assert_int_equal(config.threads, 2);
    assert_int_equal(config.n_listen, 1);
    psd_config_fini(&config);
}

static void the_original_brokers_segment_variable_counts_where_ours_is_unset(void **state)
{
    struct psd_config config = {0};

    (void)state;
    setenv("QRUSTY_SEGMENT_MAX_MB", "7", 1);
    parse(&config, ARGUMENTS());
    assert_int_equal(config.segment_max_bytes, 7 << 20);
    psd_config_fini(&config);

    setenv("PAYLOADSTORE_SEGMENT_MAX_MB", "8", 1);
    parse(&config, ARGUMENTS());
    assert_int_equal(config.segment_max_bytes, 8 << 20);
    psd_config_fini(&config);

    parse(&config, ARGUMENTS("--segment-max-mb=9"));
    assert_int_equal(config.segment_max_bytes, 9 << 20);
    psd_config_fini(&config);
}

/* -- what is refused --------------------------------------------------------------------------- */

struct bad {
    const char *flag;
    const char *variable;
    const char *value;
    const char *expected;
};

static const struct bad bad_values[] = {
    {"--threads", "PAYLOADSTORE_THREADS", "0", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "65", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "-1", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "+2", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", " 2", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "2x", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "0x2", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "2.0", "1 to 64"},
    {"--threads", "PAYLOADSTORE_THREADS", "18446744073709551618", "1 to 64"},
    {"--segment-max-mb", "PAYLOADSTORE_SEGMENT_MAX_MB", "0", "1 to 1048576"},
    {"--segment-max-mb", "PAYLOADSTORE_SEGMENT_MAX_MB", "1048577", "1 to 1048576"},
    {"--segment-max-mb", "QRUSTY_SEGMENT_MAX_MB", "4294967297", "1 to 1048576"},
    {"--max-payload-mb", "PAYLOADSTORE_MAX_PAYLOAD_MB", "2048", "1 to 2047"},
    {"--max-payload-mb", "PAYLOADSTORE_MAX_PAYLOAD_MB", "64MB", "1 to 2047"},
    {"--reserve-mb", "PAYLOADSTORE_RESERVE_MB", "1048577", "auto"},
    {"--reserve-mb", "PAYLOADSTORE_RESERVE_MB", "-1", "0 to 1048576"},
    {"--reserve-mb", "PAYLOADSTORE_RESERVE_MB", "none", "0 to 1048576"},
    {"--reserve-mb", "PAYLOADSTORE_RESERVE_MB", "5%", "0 to 1048576"},
    {"--compaction-max-mb-per-second", "PAYLOADSTORE_COMPACTION_MAX_MB_PER_SECOND", "1048577",
     "0 to 1048576"},
    {"--compaction-max-mb-per-second", "PAYLOADSTORE_COMPACTION_MAX_MB_PER_SECOND", "0.5",
     "0 to 1048576"},
    {"--drain-seconds", "PAYLOADSTORE_DRAIN_SECONDS", "3601", "0 to 3600"},
    {"--durability", "PAYLOADSTORE_DURABILITY", "SYNCED", "synced or buffered"},
    {"--log-level", "PAYLOADSTORE_LOG_LEVEL", "loud", "debug, info, warning or error"},
    {"--log-format", "PAYLOADSTORE_LOG_FORMAT", "xml", "text or json"},
    {"--listen", "PAYLOADSTORE_LISTEN", "127.0.0.1", "host:port"},
    {"--listen", "PAYLOADSTORE_LISTEN", ":50051", "host:port"},
    {"--listen", "PAYLOADSTORE_LISTEN", "127.0.0.1:", "host:port"},
    {"--listen", "PAYLOADSTORE_LISTEN", "127.0.0.1:65536", "0 to 65535"},
    {"--listen", "PAYLOADSTORE_LISTEN", "::1:50051", "[brackets]"},
    {"--listen", "PAYLOADSTORE_LISTEN", "http://127.0.0.1:80", "host:port"},
    {"--listen", "PAYLOADSTORE_LISTEN", "unix:", "unix:path"},
};

static void bad_values_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++) {
        const struct bad *bad = &bad_values[i];

        assert_refused(ARGUMENTS((char *)bad->flag, (char *)bad->value), bad->flag, bad->value,
                       bad->expected);
        setenv(bad->variable, bad->value, 1);
        assert_refused(ARGUMENTS(), bad->variable, bad->value, bad->expected);
        unsetenv(bad->variable);
    }
}

static void one_bad_address_of_a_list_is_refused(void **state)
{
    (void)state;
    setenv("PAYLOADSTORE_LISTEN", "127.0.0.1:1,,127.0.0.1:2", 1);
    assert_refused(ARGUMENTS(), "PAYLOADSTORE_LISTEN", "127.0.0.1:1,,127.0.0.1:2", "host:port");
    assert_refused(ARGUMENTS("--listen=127.0.0.1:1,127.0.0.1:2"), "--listen", "127.0.0.1:2",
                   "host:port");
}

static void tls_is_refused_by_halves(void **state)
{
    (void)state;
    assert_refused(ARGUMENTS("--tls-cert=c.pem"), "--tls-key is not set", "", "come together");
    assert_refused(ARGUMENTS("--tls-key=k.pem"), "--tls-cert is not set", "", "come together");
    assert_refused(ARGUMENTS("--tls-client-ca=a.pem"), "--tls-client-ca", "", "are not set");
    setenv("PAYLOADSTORE_TLS_KEY", "k.pem", 1);
    assert_refused(ARGUMENTS(), "--tls-cert is not set", "", "come together");
}

static void an_empty_flag_is_refused(void **state)
{
    (void)state;
    assert_refused(ARGUMENTS("--tls-cert="), "--tls-cert", "\"\"", "path");
    assert_refused(ARGUMENTS("--data-dir="), "--data-dir", "\"\"", "path");
    assert_refused(ARGUMENTS("--threads="), "--threads", "\"\"", "1 to 64");
    assert_refused(ARGUMENTS("--listen="), "--listen", "\"\"", "host:port");
}

static void a_socket_path_that_cannot_be_bound_is_refused(void **state)
{
    char path[200] = "unix:/";

    (void)state;
    memset(path + 6, 'p', 110);
    assert_refused(ARGUMENTS("--listen", path), "--listen", "unix:/ppp", "unix:path");
}

static void a_value_cannot_break_out_of_the_messages_line(void **state)
{
    (void)state;
    assert_refused(ARGUMENTS("--threads", "1\n\x1b[2Jpayloadstored: all is well"), "--threads",
                   "1\\n\\x1b[2Jpayloadstored: all is well", "1 to 64");
}

static void other_arguments_are_refused(void **state)
{
    struct ending ending = parse_apart(ARGUMENTS("--loud"));

    (void)state;
    assert_int_equal(ending.status, 2);
    assert_contains(ending.err, "--loud");
    assert_refused(ARGUMENTS("serve"), "\"serve\"", "serve", "flags");
    assert_refused(ARGUMENTS("--", "--threads=1"), "--threads=1", "unexpected", "flags");
}

/* -- what is told ------------------------------------------------------------------------------ */

static void help_names_every_flag_its_variable_and_its_default(void **state)
{
    static const char *const parts[] = {
        "--listen",         "--data-dir",      "--segment-max-mb",
        "--max-payload-mb", "--durability",    "--threads",
        "--log-level",      "--drain-seconds", "--log-format",
        "127.0.0.1:50051",  "./payloads",      "default: 64",
        "default: 256",     "default: synced", "default: 2",
        "default: 10",      "default: text",   "default: info",
        "--reserve-mb",     "default: auto",   "--compaction-max-mb-per-second",
        "default: 0",       "--tls-cert",      "--tls-key",
        "--tls-client-ca",  "default: none"};
    struct ending ending;

    (void)state;
    setenv("PAYLOADSTORE_THREADS", "bad, but help comes first", 1);
    ending = parse_apart(ARGUMENTS("--help"));
    assert_int_equal(ending.status, 0);
    assert_string_equal(ending.err, "");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_contains(ending.out, parts[i]);
    }
    for (size_t i = 0; i < N_VARIABLES; i++) {
        assert_contains(ending.out, variables[i]);
    }
}

static void version_is_told(void **state)
{
    struct ending ending = parse_apart(ARGUMENTS("--version"));

    (void)state;
    assert_int_equal(ending.status, 0);
    assert_int_equal(strncmp(ending.out, "payloadstored ", 14), 0);
    assert_contains(ending.out, psd_version);
}

#define TEST(name) cmocka_unit_test_setup(name, forget_variables)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_the_documented_ones),
        TEST(flags_set_everything),
        TEST(the_reserve_may_be_none_or_settled_by_the_store),
        TEST(listen_may_be_given_more_than_once),
        TEST(variables_set_what_flags_leave_open),
        TEST(a_flag_hides_even_a_bad_variable),
        TEST(an_empty_variable_counts_as_unset),
        TEST(the_original_brokers_segment_variable_counts_where_ours_is_unset),
        TEST(bad_values_are_refused_by_name),
        TEST(one_bad_address_of_a_list_is_refused),
        TEST(tls_is_refused_by_halves),
        TEST(an_empty_flag_is_refused),
        TEST(a_socket_path_that_cannot_be_bound_is_refused),
        TEST(a_value_cannot_break_out_of_the_messages_line),
        TEST(other_arguments_are_refused),
        TEST(help_names_every_flag_its_variable_and_its_default),
        TEST(version_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
