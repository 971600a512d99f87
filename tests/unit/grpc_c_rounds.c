/* What a polling thread does for the calls of a round together, and the sockets we accept from. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

#define CALLS      200u
#define LARGE      (64u << 10) /* bytes of an answer */
#define LARGE_MOST 4u          /* of which are a round's */

static atomic_uint arrived;
static atomic_uint rounds; /* that had calls */
static atomic_uint answered;
static atomic_uint sent; /* all calls are under way */

/* Touched by the one polling thread alone. */
static grpc_c_call *waiting[CALLS];
static unsigned n_waiting;
static unsigned n_large; /* answered in this round */
static unsigned most;

static int fresh(void **state)
{
    (void)state;
    atomic_store(&arrived, 0);
    atomic_store(&rounds, 0);
    atomic_store(&answered, 0);
    atomic_store(&sent, 0);
    n_waiting = n_large = most = 0;
    return 0;
}

/* Holds up the polling thread until the others are there for its next round, however busy the
 * machine is. */
static void await_others(void)
{
    int64_t end = now_ms() + PATIENCE_MS;

    while (atomic_load(&sent) == 0 && now_ms() < end) {
        usleep(1000);
    }
    usleep(20000);
}

static void keep(grpc_c_call *call, const echo_request *request)
{
    (void)request;
    insist(n_waiting < CALLS);
    waiting[n_waiting++] = call;
    if (atomic_fetch_add(&arrived, 1) == 0) {
        await_others();
    }
}

static const struct echo_handlers keepers = {.unary = keep};

static void answer_all(void *user)
{
    echo_response response = ECHO_RESPONSE;
    unsigned n = n_waiting + n_large;

    insist(user == &rounds);
    if (n > 0) {
        atomic_fetch_add(&rounds, 1);
    }
    most = n > most ? n : most;
    n_large = 0;
    for (unsigned i = 0; i < n_waiting; i++) {
        insist(grpc_c_call_reply(waiting[i], &response.base));
    }
    n_waiting = 0;
}

static void note_answer(ProtobufCMessage *response, const struct grpc_c_result *result,
                        void (*done)(void), void *arg)
{
    insist(done == NULL && arg == NULL && result->code == GRPC_C_OK);
    protobuf_c_message_free_unpacked(response, NULL);
    atomic_fetch_add(&answered, 1);
}

static void start(struct fixture *fixture, bool unix_socket, const struct echo_handlers *handlers)
{
    struct grpc_c_server_options options = {.pollers = 1};
    char address[64] = "127.0.0.1:0";
    char error[256] = "";

    if (unix_socket) {
        (void)snprintf(address, sizeof(address), "unix:/tmp/grpc_c_rounds.%d", (int)getpid());
    }
    fixture->server = grpc_c_server_create(&options);
    assert_int_equal(grpc_c_server_add_service(fixture->server, &echo_service, handlers), 0);
    grpc_c_server_on_round_end(fixture->server, answer_all, &rounds);
    assert_int_equal(grpc_c_server_listen(fixture->server, address, &fixture->port, error, 256), 0);
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    if (!unix_socket) {
        (void)snprintf(address, sizeof(address), "127.0.0.1:%d", fixture->port);
    }
    fixture->channel = grpc_c_channel_create(address, NULL);
}

/* Calls that are under way together, answered where the handlers left them: at a round's end. */
static void call_many(const struct fixture *fixture)
{
    const struct grpc_c_call_options patient = {.timeout_ms = PATIENCE_MS};
    echo_request request = ECHO_REQUEST;

    for (unsigned i = 0; i < CALLS; i++) {
        assert_int_equal(grpc_c_unary_async(fixture->channel, echo_unary, &request.base, &patient,
                                            note_answer, NULL, NULL, NULL),
                         0);
    }
    atomic_store(&sent, 1);
    await_count(&answered, CALLS);
    assert_int_equal(atomic_load(&arrived), CALLS);
    assert_in_range(atomic_load(&rounds), 1, CALLS);
}

static void calls_of_a_round_are_answered_at_its_end(void **state)
{
    struct fixture fixture;

    (void)state;
    start(&fixture, false, &keepers);
    call_many(&fixture);
    fixture_stop(&fixture);
    assert_true(most > 1); /* else there is nothing that this tests */
}

static void a_socket_that_core_accepted_has_rounds_too(void **state)
{
    struct fixture fixture;

    (void)state;
    start(&fixture, true, &keepers);
    call_many(&fixture);
    fixture_stop(&fixture);
}

static void answer_large(grpc_c_call *call, const echo_request *request)
{
    static uint8_t bytes[LARGE];
    echo_response response = ECHO_RESPONSE;

    (void)request;
    response.payload = (ProtobufCBinaryData){sizeof(bytes), bytes};
    insist(grpc_c_call_reply(call, &response.base));
    atomic_fetch_add(&arrived, 1);
    n_large++;
}

/* They would lie in memory until its end, and push each other out of the caches. */
static void large_answers_end_a_round(void **state)
{
    static const struct echo_handlers handlers = {.unary = answer_large};
    struct fixture fixture;

    (void)state;
    start(&fixture, false, &handlers);
    call_many(&fixture);
    fixture_stop(&fixture);
    assert_in_range(most, 1, LARGE_MOST);
}

/* -- connections ------------------------------------------------------------------------------ */

static atomic_uint complaints;

static void count_complaints(enum grpc_c_log_level level, const char *line)
{
    (void)level;
    if (strstr(line, "cannot accept connections") != NULL) {
        atomic_fetch_add(&complaints, 1);
    }
}

/* Descriptors run out: who connects meanwhile waits, and is served when there are some again. */
static void without_descriptors_connections_wait(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    echo_request request = ECHO_REQUEST;
    struct fixture fixture;
    struct rlimit before;
    struct rlimit none;

    (void)state;
    fixture_start(&fixture, NULL, NULL);
    grpc_c_set_logger(count_complaints);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){3, before.rlim_max}; /* those there are stay */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    address.sin_port = htons((uint16_t)fixture.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    await_count(&complaints, 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    grpcc__test__echo_response__free_unpacked(echo_ok(fixture.channel, &request), NULL);
    assert_int_equal(atomic_load(&complaints), 1);
    grpc_c_set_logger(NULL);
    close(fd);
    fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(calls_of_a_round_are_answered_at_its_end, fresh),
        cmocka_unit_test_setup(large_answers_end_a_round, fresh),
        cmocka_unit_test_setup(a_socket_that_core_accepted_has_rounds_too, fresh),
        cmocka_unit_test(without_descriptors_connections_wait),
    };

    return cmocka_run_group_tests_name("grpc_c_rounds", tests, NULL, NULL);
}
