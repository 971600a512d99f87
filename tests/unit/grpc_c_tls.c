/* TLS: who is believed, what is read anew, and what a handler learns of its caller. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grpc_c_fixture.h"
#include "work_dir.h"

#define CERTIFIED "foo.test.google.fr" /* by server.pem */
#define RENEWED   "renewed.example"

static char work[PATH_MAX];

static int make_certificates(void **state)
{
    char command[2 * PATH_MAX];

    (void)state;
    work_dir_create(work);
    (void)snprintf(command, sizeof(command), "%s '%s'", TEST_MAKE_CERTIFICATES, work);
    return system(command); /* NOLINT(cert-env33-c): ours */
}

static int remove_certificates(void **state)
{
    (void)state;
    work_dir_remove(work);
    return 0;
}

/* The path of a file in the work directory; good for 127 more. */
static const char *in_work(const char *name)
{
    static char paths[128][PATH_MAX + 64];
    static unsigned next;
    char *path = paths[next++ % 128];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", work, name);
    return path;
}

/* -- server and channels ---------------------------------------------------------------------- */

/* "subject|common name|name,name," of the caller, "nobody" where there is none. */
static void say_who(grpc_c_call *call, const echo_request *request)
{
    const struct grpc_c_identity *identity = grpc_c_call_identity(call);
    echo_response response = ECHO_RESPONSE;
    char text[1000] = "nobody";

    (void)request;
    insist(grpc_c_call_identity(call) == identity);
    if (identity != NULL) {
        int n = snprintf(text, sizeof(text), "%s|%s|", identity->subject, identity->common_name);
        for (size_t i = 0; i < identity->n_names; i++) {
            n += snprintf(text + n, sizeof(text) - (size_t)n, "%s,", identity->names[i]);
        }
    }
    response.text = text;
    grpc_c_call_reply(call, &response.base);
}

static const struct echo_handlers who = {.unary = say_who};

static void serve(struct fixture *fixture, const struct grpc_c_server_tls *tls)
{
    char error[512] = "";

    fixture->channel = NULL;
    fixture->server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(fixture->server, &echo_service, &who), 0);
    if (grpc_c_server_listen_tls(fixture->server, "127.0.0.1:0", tls, &fixture->port, error,
                                 sizeof(error)) != 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
}

static struct grpc_c_server_tls server_tls(void)
{
    return (struct grpc_c_server_tls){.certificate_file = in_work("server.pem"),
                                      .key_file = in_work("server.key")};
}

static struct grpc_c_channel_tls client_tls(const char *ca, const char *name)
{
    return (struct grpc_c_channel_tls){.ca_file = in_work(ca), .server_name = name};
}

static grpc_c_channel *connect_with(const struct fixture *fixture,
                                    const struct grpc_c_channel_tls *tls)
{
    struct grpc_c_channel_options options = {.tls = tls};
    char target[32];

    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", fixture->port);
    return grpc_c_channel_create(target, &options);
}

/* What the server says of a caller on that channel. */
static void expect_who(grpc_c_channel *channel, const char *text)
{
    echo_request request = ECHO_REQUEST;
    echo_response *response = echo_ok(channel, &request);

    assert_string_equal(response->text, text);
    grpcc__test__echo_response__free_unpacked(response, NULL);
}

/* A call over a channel of its own: what the server says of the caller. */
static void is_taken(const struct fixture *fixture, const struct grpc_c_channel_tls *tls,
                     const char *text)
{
    grpc_c_channel *channel = connect_with(fixture, tls);

    assert_non_null(channel);
    expect_who(channel, text);
    grpc_c_channel_destroy(channel);
}

static void is_refused(const struct fixture *fixture, const struct grpc_c_channel_tls *tls)
{
    grpc_c_channel *channel = connect_with(fixture, tls);
    echo_request request = ECHO_REQUEST;

    assert_non_null(channel);
    echo_fails(channel, echo_unary, &request, GRPC_C_UNAVAILABLE, "");
    grpc_c_channel_destroy(channel);
}

/* -- who is believed -------------------------------------------------------------------------- */

static void a_server_proves_who_it_is(void **state)
{
    struct grpc_c_server_tls tls = server_tls();
    struct grpc_c_channel_tls right = client_tls("ca.pem", CERTIFIED);
    struct grpc_c_channel_tls by_host = client_tls("ca.pem", NULL);
    struct grpc_c_channel_tls other_name = client_tls("ca.pem", "example.org");
    struct grpc_c_channel_tls other_ca = client_tls("other-ca.pem", CERTIFIED);
    struct grpc_c_channel_tls system_ca = {.server_name = CERTIFIED};
    struct fixture fixture;

    (void)state;
    serve(&fixture, &tls);
    is_taken(&fixture, &right, "nobody");
    is_taken(&fixture, &by_host, "nobody"); /* 127.0.0.1 is among its names */
    is_refused(&fixture, &other_name);
    is_refused(&fixture, &other_ca);
    is_refused(&fixture, &system_ca);
    is_refused(&fixture, NULL); /* plaintext */
    fixture_stop(&fixture);
}

static void a_client_learns_who_the_server_is(void **state)
{
    struct grpc_c_call_options telling = {.timeout_ms = PATIENCE_MS, .tell_peer = true};
    struct grpc_c_server_tls tls = server_tls();
    struct grpc_c_channel_tls right = client_tls("ca.pem", CERTIFIED);
    struct grpc_c_result result = {0};
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    ProtobufCMessage *response;

    (void)state;
    serve(&fixture, &tls);
    fixture.channel = connect_with(&fixture, &right);
    response = grpc_c_unary(fixture.channel, echo_unary, &request.base, &telling, &result);
    assert_non_null(response);
    protobuf_c_message_free_unpacked(response, NULL);
    assert_non_null(result.identity);
    assert_string_equal(result.identity->subject, "CN=server");
    assert_string_equal(result.identity->common_name, "server");
    assert_int_equal(result.identity->n_names, 3);
    assert_string_equal(result.identity->names[0], "localhost");
    grpc_c_result_fini(&result);
    fixture_stop(&fixture);
}

static struct grpc_c_channel_tls client_named(const char *certificate, const char *key)
{
    struct grpc_c_channel_tls tls = client_tls("ca.pem", CERTIFIED);

    tls.certificate_file = in_work(certificate);
    tls.key_file = in_work(key);
    return tls;
}

#define BROKER "CN=broker-1,O=tests|broker-1|broker-1.example,spiffe://example/broker-1,"

static void a_client_proves_who_it_is(void **state)
{
    struct grpc_c_server_tls tls = server_tls();
    struct grpc_c_channel_tls known = client_named("client.pem", "client.key");
    struct grpc_c_channel_tls stranger = client_named("stranger.pem", "stranger.key");
    struct grpc_c_channel_tls anonymous = client_tls("ca.pem", CERTIFIED);
    struct fixture fixture;

    (void)state;
    tls.client_ca_file = in_work("ca.pem");
    serve(&fixture, &tls);
    is_taken(&fixture, &known, BROKER);
    is_refused(&fixture, &stranger);
    is_refused(&fixture, &anonymous);
    fixture_stop(&fixture);
}

static void a_client_may_be_let_in_without(void **state)
{
    struct grpc_c_server_tls tls = server_tls();
    struct grpc_c_channel_tls known = client_named("client.pem", "client.key");
    struct grpc_c_channel_tls stranger = client_named("stranger.pem", "stranger.key");
    struct grpc_c_channel_tls anonymous = client_tls("ca.pem", CERTIFIED);
    struct fixture fixture;

    (void)state;
    tls.client_ca_file = in_work("ca.pem");
    tls.client_optional = true;
    serve(&fixture, &tls);
    is_taken(&fixture, &known, BROKER);
    is_taken(&fixture, &anonymous, "nobody");
    is_refused(&fixture, &stranger);
    fixture_stop(&fixture);
}

static void a_certificate_that_was_not_asked_for_is_nobodys(void **state)
{
    struct grpc_c_server_tls tls = server_tls();
    struct grpc_c_channel_tls known = client_named("client.pem", "client.key");
    struct fixture fixture;
    struct fixture plain;

    (void)state;
    serve(&fixture, &tls);
    is_taken(&fixture, &known, "nobody");
    fixture_stop(&fixture);
    fixture_start(&plain, NULL, &who);
    expect_who(plain.channel, "nobody");
    fixture_stop(&plain);
}

/* -- files that change ------------------------------------------------------------------------ */

/* Puts a copy of `from` in the place of `to`, in one step. */
static void replace(const char *from, const char *to)
{
    char text[8192];
    FILE *in = fopen(in_work(from), "re");
    FILE *out = fopen(in_work("new"), "we");
    size_t length;

    assert_true(in != NULL && out != NULL);
    length = fread(text, 1, sizeof(text), in);
    assert_int_equal(fwrite(text, 1, length, out), length);
    assert_int_equal(fclose(in), 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(rename(in_work("new"), in_work(to)), 0);
}

/* What became of changed files, a word or a file's name each. */
struct reports {
    pthread_mutex_t lock;
    char text[500];
};

static void keep_report(void *arg, const char *cause)
{
    struct reports *reports = arg;
    const char *name = cause == NULL ? "anew" : strrchr(cause, '/') + 1;
    size_t length;

    pthread_mutex_lock(&reports->lock);
    length = strlen(reports->text);
    (void)snprintf(reports->text + length, sizeof(reports->text) - length, "%s;", name);
    pthread_mutex_unlock(&reports->lock);
}

/* And forgets it. */
static void expect_reports(struct reports *reports, const char *text)
{
    pthread_mutex_lock(&reports->lock);
    assert_string_equal(reports->text, text);
    reports->text[0] = '\0';
    pthread_mutex_unlock(&reports->lock);
}

static void changed_files_are_read_anew(void **state)
{
    struct grpc_c_channel_tls before = client_tls("ca.pem", CERTIFIED);
    struct grpc_c_channel_tls after = client_tls("ca.pem", RENEWED);
    struct reports reports = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct grpc_c_server_tls tls = {.certificate_file = in_work("live.pem"),
                                    .key_file = in_work("live.key"),
                                    .reloaded = keep_report,
                                    .arg = &reports};
    grpc_c_channel *standing;
    struct fixture fixture;

    (void)state;
    replace("server.pem", "live.pem");
    replace("server.key", "live.key");
    serve(&fixture, &tls);
    standing = connect_with(&fixture, &before);
    expect_who(standing, "nobody");
    is_refused(&fixture, &after);
    expect_reports(&reports, "");

    replace("renewed.pem", "live.pem"); /* does not fit the key: the old ones stay */
    is_taken(&fixture, &before, "nobody");
    is_taken(&fixture, &before, "nobody");
    expect_reports(&reports, "live.pem;"); /* once */
    replace("renewed.key", "live.key");
    is_taken(&fixture, &after, "nobody");
    expect_reports(&reports, "anew;");
    is_refused(&fixture, &before);
    expect_who(standing, "nobody");

    assert_int_equal(unlink(in_work("live.key")), 0); /* gone: the last ones stay */
    is_taken(&fixture, &after, "nobody");
    is_taken(&fixture, &after, "nobody");
    expect_reports(&reports, "live.key: No such file or directory;");
    replace("server.key", "live.key");
    replace("server.pem", "live.pem");
    is_taken(&fixture, &before, "nobody");
    expect_reports(&reports, "anew;");
    expect_who(standing, "nobody");
    grpc_c_channel_destroy(standing);
    fixture_stop(&fixture);
}

static void the_authority_of_clients_is_read_anew(void **state)
{
    struct grpc_c_channel_tls known = client_named("client.pem", "client.key");
    struct grpc_c_channel_tls stranger = client_named("stranger.pem", "stranger.key");
    struct grpc_c_server_tls tls = server_tls();
    struct fixture fixture;

    (void)state;
    replace("ca.pem", "live-ca.pem");
    tls.client_ca_file = in_work("live-ca.pem");
    serve(&fixture, &tls);
    is_taken(&fixture, &known, BROKER);
    replace("other-ca.pem", "live-ca.pem");
    is_refused(&fixture, &known);
    is_taken(&fixture, &stranger, "CN=stranger|stranger|stranger.example,");
    fixture_stop(&fixture);
}

/* -- files that are wrong --------------------------------------------------------------------- */

static void cannot_listen(struct grpc_c_server_tls tls, const char *cause)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char error[512] = "";

    assert_int_equal(
        grpc_c_server_listen_tls(server, "127.0.0.1:0", &tls, NULL, error, sizeof(error)), -1);
    if (strstr(error, cause) == NULL) {
        fail_msg("\"%s\" has no \"%s\"", error, cause);
    }
    grpc_c_server_destroy(server);
}

static void a_server_says_what_is_wrong_with_its_files(void **state)
{
    struct grpc_c_server_tls missing = server_tls();
    struct grpc_c_server_tls mismatch = server_tls();
    struct grpc_c_server_tls directory = server_tls();
    struct grpc_c_server_tls no_ca = server_tls();
    struct grpc_c_server_tls no_key = server_tls();
    struct grpc_c_server_tls no_certificate = server_tls();
    struct grpc_c_server_tls ca_of_nobody = server_tls();
    struct grpc_c_server_tls locked = server_tls();

    (void)state;
    missing.key_file = in_work("missing.key");
    cannot_listen(missing, "missing.key: No such file or directory");
    mismatch.key_file = in_work("client.key");
    cannot_listen(mismatch, "client.key: not the key to the certificate in ");
    directory.certificate_file = work;
    cannot_listen(directory, ": not a file");
    no_ca.client_ca_file = in_work("missing-ca.pem");
    cannot_listen(no_ca, "missing-ca.pem: No such file or directory");
    no_key.key_file = NULL;
    cannot_listen(no_key, "takes a certificate and its key");
    no_certificate.certificate_file = in_work("make-certificates.log");
    cannot_listen(no_certificate, "make-certificates.log: holds no certificate");
    ca_of_nobody.client_ca_file = in_work("client.key");
    cannot_listen(ca_of_nobody, "client.key: holds no certificate");
    locked.key_file = in_work("locked.key");
    cannot_listen(locked, "locked.key: holds no private key, or one with a passphrase");
}

static char logged[1000];

static void keep_log(enum grpc_c_log_level level, const char *line)
{
    if (level == GRPC_C_LOG_ERROR && strncmp(line, "TLS: ", 5) == 0) {
        (void)snprintf(logged, sizeof(logged), "%s", line);
    }
}

static void a_channel_says_what_is_wrong_with_its_files(void **state)
{
    struct grpc_c_channel_tls missing = client_tls("missing-ca.pem", NULL);
    struct grpc_c_channel_tls no_key = client_tls("ca.pem", NULL);
    struct grpc_c_channel_tls no_ca = client_tls("client.key", NULL);
    struct grpc_c_channel_tls mismatch = client_named("client.pem", "stranger.key");
    struct grpc_c_channel_tls right = client_named("client.pem", "client.key");
    char error[512];
    struct fixture fixture = {.port = 1};

    (void)state;
    grpc_c_set_logger(keep_log);
    assert_null(connect_with(&fixture, &missing));
    assert_non_null(strstr(logged, "missing-ca.pem: No such file or directory"));
    no_key.certificate_file = in_work("client.pem");
    assert_null(connect_with(&fixture, &no_key));
    assert_non_null(strstr(logged, "a certificate and its key come together"));
    assert_null(connect_with(&fixture, &no_ca));
    assert_non_null(strstr(logged, "client.key: holds no certificate"));
    assert_null(connect_with(&fixture, &mismatch));
    assert_non_null(strstr(logged, "stranger.key: not the key to the certificate in "));
    assert_int_equal(grpc_c_channel_tls_check(&mismatch, error, sizeof(error)), -1);
    assert_string_equal(error, logged + strlen("TLS: "));
    assert_int_equal(grpc_c_channel_tls_check(&right, error, sizeof(error)), 0);
    grpc_c_set_logger(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_proves_who_it_is),
        cmocka_unit_test(a_client_learns_who_the_server_is),
        cmocka_unit_test(a_client_proves_who_it_is),
        cmocka_unit_test(a_client_may_be_let_in_without),
        cmocka_unit_test(a_certificate_that_was_not_asked_for_is_nobodys),
        cmocka_unit_test(changed_files_are_read_anew),
        cmocka_unit_test(the_authority_of_clients_is_read_anew),
        cmocka_unit_test(a_server_says_what_is_wrong_with_its_files),
        cmocka_unit_test(a_channel_says_what_is_wrong_with_its_files),
    };

    return cmocka_run_group_tests_name("grpc_c_tls", tests, make_certificates, remove_certificates);
}
