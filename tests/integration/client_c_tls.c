/* The C client library over TLS, one side or both proving who it is, and what it says where one
 * cannot. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_c_fixture.h"
#include "work_dir.h"

static char certificates[PATH_MAX];

static int make_certificates(void **state)
{
    char command[3 * PATH_MAX];
    (void)state;
    work_dir_create(certificates);
    snprintf(command, sizeof command, "'%s' '%s'", getenv("MAKE_CERTIFICATES"), certificates);
    return system(command); /* NOLINT(cert-env33-c): ours */
}

static int remove_certificates(void **state)
{
    (void)state;
    work_dir_remove(certificates);
    return 0;
}

/* The path of a file among them; good for 31 more. */
static const char *file(const char *name)
{
    static char paths[32][PATH_MAX + 64];
    static unsigned next;
    char *path = paths[next++ % 32];
    snprintf(path, sizeof paths[0], "%s/%s", certificates, name);
    return path;
}

/* Serves with server.pem, or what `certificate` names, on a port too, which `target` gets. */
static void serve(struct fixture *f, const char *certificate, const char *client_ca,
                  char target[SERVER_TARGET_SIZE])
{
    char key[64];
    snprintf(key, sizeof key, "%.*s.key", (int)(strlen(certificate) - 4), certificate);
    const char *const tls[] = {"--listen",
                               "127.0.0.1:0",
                               "--tls-cert",
                               file(certificate),
                               "--tls-key",
                               file(key),
                               client_ca != NULL ? "--tls-client-ca" : NULL,
                               client_ca != NULL ? file(client_ca) : NULL,
                               NULL};
    server_process_stop(&f->server, SIGTERM);
    server_process_start(&f->server, tls);
    server_process_target(&f->server, target);
}

static void connect_to(struct fixture *f, const char *target, const struct plc_tls *tls)
{
    const struct plc_options options = {.store = STORE, .deadline_ms = PATIENCE, .tls = tls};
    plc_client_close(f->client);
    f->client = NULL;
    assert_ok(f, plc_client_open(target, &options, &f->client, &f->error));
}

static void assert_works(struct fixture *f)
{
    struct plc_ref ref = append(f, "abc", 3);
    assert_reads(f, &ref, "abc");
}

static void assert_fails_with(struct fixture *f, const char *cause)
{
    struct plc_ref ref;
    assert_code(f, plc_append(f->client, NULL, "a", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_UNAVAILABLE);
    if (strstr(f->error.message, cause) == NULL) {
        fail_msg("\"%s\" has no \"%s\"", f->error.message, cause);
    }
}

static void a_server_of_a_known_authority_is_believed(void **state)
{
    struct fixture *f = *state;
    char target[SERVER_TARGET_SIZE];
    struct plc_tls tls = {.ca_file = file("ca.pem")};
    serve(f, "server.pem", NULL, target);
    connect_to(f, target, &tls); /* 127.0.0.1 is among its names */
    assert_works(f);
    tls.server_name = "localhost";
    connect_to(f, target, &tls);
    assert_works(f);
    tls.server_name = "example.org";
    connect_to(f, target, &tls);
    assert_fails_with(f, "Peer name example.org is not in peer certificate");
    tls = (struct plc_tls){.ca_file = file("other-ca.pem")};
    connect_to(f, target, &tls);
    assert_fails_with(f, "certificate verify failed");
    connect_to(f, target, NULL);
    assert_fails_with(f, "does the server speak TLS");
}

static void an_expired_certificate_is_not_believed(void **state)
{
    struct fixture *f = *state;
    char target[SERVER_TARGET_SIZE];
    const struct plc_tls tls = {.ca_file = file("ca.pem")};
    serve(f, "expired.pem", NULL, target);
    connect_to(f, target, &tls);
    assert_fails_with(f, "certificate verify failed");
}

static void a_client_proves_who_it_is(void **state)
{
    struct fixture *f = *state;
    char target[SERVER_TARGET_SIZE];
    struct plc_tls tls = {.ca_file = file("ca.pem"),
                          .certificate_file = file("client.pem"),
                          .key_file = file("client.key")};
    serve(f, "server.pem", "ca.pem", target);
    connect_to(f, target, &tls);
    assert_works(f);
    tls.certificate_file = file("stranger.pem");
    tls.key_file = file("stranger.key");
    connect_to(f, target, &tls);
    assert_fails_with(f, "does it take this client's certificate");
    tls.certificate_file = tls.key_file = NULL;
    connect_to(f, target, &tls);
    assert_fails_with(f, "does it take this client's certificate");
}

static void file_is_refused(struct fixture *f, struct plc_tls tls, const char *cause)
{
    const struct plc_options options = {.tls = &tls};
    plc_client *client = NULL;
    assert_code(f, plc_client_open("127.0.0.1:1", &options, &client, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_null(client);
    if (strstr(f->error.message, cause) == NULL) {
        fail_msg("\"%s\" has no \"%s\"", f->error.message, cause);
    }
}

static void what_is_wrong_with_a_file_is_said_at_once(void **state)
{
    struct fixture *f = *state;
    const struct plc_tls right = {.ca_file = file("ca.pem"),
                                  .certificate_file = file("client.pem"),
                                  .key_file = file("client.key")};
    struct plc_tls tls = right;
    tls.ca_file = file("missing.pem");
    file_is_refused(f, tls, "missing.pem: No such file or directory");
    tls.ca_file = certificates;
    file_is_refused(f, tls, ": not a file");
    tls.ca_file = file("client.key");
    file_is_refused(f, tls, "client.key: holds no certificate");
    tls = right;
    tls.key_file = NULL;
    file_is_refused(f, tls, "a certificate and its key come together");
    tls.key_file = file("stranger.key");
    file_is_refused(f, tls, "stranger.key: not the key to the certificate in");
    tls.key_file = file("locked.key");
    file_is_refused(f, tls, "passphrase");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_server_of_a_known_authority_is_believed),
        TEST(an_expired_certificate_is_not_believed),
        TEST(a_client_proves_who_it_is),
        TEST(what_is_wrong_with_a_file_is_said_at_once),
    };
    return cmocka_run_group_tests_name("client_c_tls", tests, make_certificates,
                                       remove_certificates);
}
