/* Where a server listens, and which addresses it refuses, with the cause. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/grpc_c_listen.XXXXXX");
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void refused(const char *address, const char *cause)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char error[256] = "";

    assert_int_equal(grpc_c_server_listen(server, address, NULL, error, sizeof(error)), -1);
    if (strstr(error, cause) == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\"", address, error, cause);
    }
    grpc_c_server_destroy(server);
}

static void addresses_are_read_strictly(void **state)
{
    (void)state;
    refused("", "has no port");
    refused("127.0.0.1", "has no port");
    refused("[::1]", "has no port");
    refused(":50051", "has no host");
    refused("127.0.0.1:", "port must be a number");
    refused("127.0.0.1:99999", "port must be a number from 0 to 65535");
    refused("127.0.0.1:65536", "port must be a number");
    refused("127.0.0.1:-1", "port must be a number");
    refused("127.0.0.1:+80", "port must be a number");
    refused("127.0.0.1: 80", "port must be a number");
    refused("127.0.0.1:80x", "port must be a number");
    refused("127.0.0.1:http", "port must be a number");
    refused("::1:50051", "in brackets");
    refused("unix:", "needs a path");
    refused("unix://", "needs a path");
}

static void a_long_socket_path_is_refused(void **state)
{
    char address[200] = "unix:/";

    (void)state;
    memset(address + 6, 'x', 120);
    refused(address, "at most 107 bytes");
}

static void the_cause_fits_the_buffer(void **state)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char error[8];

    (void)state;
    assert_int_equal(grpc_c_server_listen(server, "127.0.0.1:x", NULL, error, sizeof(error)), -1);
    assert_int_equal(strlen(error), 7);
    assert_int_equal(grpc_c_server_listen(server, "127.0.0.1:x", NULL, NULL, 0), -1);
    grpc_c_server_destroy(server);
}

static void a_port_has_one_server(void **state)
{
    struct fixture fixture;
    char address[32];

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    assert_in_range(fixture.port, 1, 65535);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", fixture.port);
    refused(address, "Address already in use");
    (void)snprintf(address, sizeof(address), "0.0.0.0:%d", fixture.port);
    refused(address, "Address already in use");
    fixture_stop(&fixture);
}

static void a_name_that_is_none_is_refused(void **state)
{
    (void)state;
    refused("256.256.256.256:0", "256.256.256.256");
    refused("203.0.113.7:0", "Cannot assign requested address");
}

static void a_second_address_may_be_added(void **state)
{
    struct fixture fixture;
    echo_request request = ECHO_REQUEST;
    char error[256] = "";
    char target[32];
    int second;

    (void)state;
    fixture.server = grpc_c_server_create(NULL);
    assert_int_equal(grpc_c_server_add_service(fixture.server, &echo_service, &echo_default), 0);
    assert_int_equal(
        grpc_c_server_listen(fixture.server, "127.0.0.1:0", &fixture.port, error, sizeof(error)),
        0);
    assert_int_equal(grpc_c_server_listen(fixture.server, "localhost:0", &second, error, 256), 0);
    assert_int_equal(grpc_c_server_start(fixture.server), 0);
    fixture.channel = fixture_connect(&fixture);
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    grpc_c_channel_destroy(fixture.channel);
    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", second); /* c-ares leaks with names */
    fixture.channel = grpc_c_channel_create(target, NULL);
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    fixture_stop(&fixture);
}

static void create_by_host_listens(void **state)
{
    grpc_c_server *server = grpc_c_server_create_by_host("127.0.0.1:0");

    (void)state;
    assert_non_null(server);
    grpc_c_server_destroy(server);
}

/* -- the log is ours --------------------------------------------------------------------------- */

static char logged[1024];

static void keep_line(enum grpc_c_log_level level, const char *line)
{
    assert_int_equal(level, GRPC_C_LOG_ERROR);
    assert_null(strchr(line, '\n'));
    (void)snprintf(logged, sizeof(logged), "%s", line);
}

static void errors_go_to_the_logger(void **state)
{
    (void)state;
    grpc_c_set_logger(keep_line);
    assert_null(grpc_c_server_create_by_host("127.0.0.1:99999"));
    assert_non_null(strstr(logged, "port must be a number"));
    logged[0] = '\0';
    refused("203.0.113.7:0", "Cannot assign"); /* the cause, and not the log */
    assert_string_equal(logged, "");
    grpc_c_set_logger(NULL);
}

/* -- sockets of the file system ------------------------------------------------------------------
 */

static grpc_c_server *listen_unix(const char *address)
{
    grpc_c_server *server = grpc_c_server_create(NULL);
    char error[256] = "";
    int port = 0;

    assert_int_equal(grpc_c_server_add_service(server, &echo_service, &echo_default), 0);
    if (grpc_c_server_listen(server, address, &port, error, sizeof(error)) != 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(port, 1);
    assert_int_equal(grpc_c_server_start(server), 0);
    return server;
}

static void call_at(const char *address)
{
    grpc_c_channel *channel = grpc_c_channel_create(address, NULL);
    echo_request request = ECHO_REQUEST;

    grpcc__test__echo_response__free_unpacked(echo_ok(channel, &request), NULL);
    grpc_c_channel_destroy(channel);
}

static void a_live_servers_socket_is_left_alone(void **state)
{
    char address[128];
    grpc_c_server *server;

    (void)state;
    (void)snprintf(address, sizeof(address), "unix:%s/live", folder);
    server = listen_unix(address);
    call_at(address);
    refused(address, "a live server listens there");
    call_at(address);
    grpc_c_server_destroy(server);
    (void)unlink(address + 5);
}

static void a_dead_servers_socket_is_replaced(void **state)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char address[128];
    grpc_c_server *server;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    (void)snprintf(name.sun_path, sizeof(name.sun_path), "%s/dead", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    close(fd);
    (void)snprintf(address, sizeof(address), "unix:%s", name.sun_path);
    server = listen_unix(address);
    call_at(address);
    grpc_c_server_destroy(server);
    (void)unlink(name.sun_path);
}

static void a_file_is_not_replaced(void **state)
{
    char address[128];
    FILE *file;

    (void)state;
    (void)snprintf(address, sizeof(address), "unix:%s/file", folder);
    file = fopen(address + 5, "w");
    assert_non_null(file);
    (void)fclose(file);
    refused(address, "exists and is not a socket");
    assert_int_equal(unlink(address + 5), 0);
    (void)snprintf(address, sizeof(address), "unix:%s/no/folder", folder);
    refused(address, "No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_strictly),
        cmocka_unit_test(a_long_socket_path_is_refused),
        cmocka_unit_test(the_cause_fits_the_buffer),
        cmocka_unit_test(a_port_has_one_server),
        cmocka_unit_test(a_name_that_is_none_is_refused),
        cmocka_unit_test(a_second_address_may_be_added),
        cmocka_unit_test(create_by_host_listens),
        cmocka_unit_test(errors_go_to_the_logger),
        cmocka_unit_test(a_live_servers_socket_is_left_alone),
        cmocka_unit_test(a_dead_servers_socket_is_replaced),
        cmocka_unit_test(a_file_is_not_replaced),
    };

    return cmocka_run_group_tests_name("grpc_c_listen", tests, make_folder, remove_folder);
}
