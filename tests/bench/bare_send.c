/*
 * What large reads are measured against: the same bytes from a file to a socket without gRPC.
 *
 *   bare_send --data-dir DIRECTORY --listen HOST:PORT [--bytes N] [--refs N]
 *   bare_send --address HOST:PORT --method read [--connections N] [--in-flight N] [--bytes N]
 *             [--refs N] [--seconds S] [--server-pid PID] [--json]
 *
 * The first serves: it makes a file of records as the store lays them out, and on a thread for each
 * connection takes requests of 16 bytes: offset, length, checksum. For each it does what a read of
 * payloadstored cannot do without: one pread of prefix and payload, one checksum, and sends both
 * from there. Its buffer is the connection's and is used over and over.
 *
 * The second is its load, as light as tests/bench/load, whose flags and JSON these are: one thread,
 * answers compared where they were received, refs in random order. It takes both modes to be given
 * the same --bytes and --refs. Exits with 1 where an answer was wrong. Both are of this machine's
 * byte order.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>

#define PREFIX        4u /* of a record: its payload's length */
#define STAMP         8u /* of a payload: its record's number */
#define BYTES_MAX     (64u << 20)
#define REFS_MAX      (1u << 20)
#define PLACES_MAX    4096u
#define REQUESTS      64u                 /* taken from a connection at once */
#define RECEIVE_BYTES ((size_t)256 << 10) /* beside an answer: as tests/bench/load has it */
#define WARM_UP       200u
#define SILENCE_MS    30000
#define SECOND        1e9

struct request {
    uint64_t offset;
    uint32_t length, crc32c;
};

static struct {
    const char *directory, *listen, *address;
    uint32_t connections, in_flight, bytes, refs;
    double seconds;
    pid_t server;
} options = {.directory = "",
             .listen = "",
             .address = "",
             .connections = 1,
             .in_flight = 64,
             .bytes = 65536,
             .refs = 1024,
             .seconds = 5};

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(2);
    }
}

static uint32_t crc32c(const uint8_t *data, size_t n)
{
    return ~crc32_iscsi((unsigned char *)data, (int)n, ~0u);
}

/* -- what both sides know ---------------------------------------------------------------------- */

static size_t record_bytes(void)
{
    return PREFIX + (size_t)options.bytes;
}

/* A record whose number is still to be set. */
static uint8_t *make_record(void)
{
    uint8_t *record = malloc(record_bytes());
    uint64_t random = 88172645463325252u;
    must(record != NULL, "memory");
    memcpy(record, &options.bytes, PREFIX);
    for (size_t i = PREFIX; i < record_bytes(); i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        record[i] = (uint8_t)random;
    }
    return record;
}

static void set_number(uint8_t *record, uint64_t number)
{
    memcpy(record + PREFIX, &number, STAMP);
}

static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - text) : 0, text);
    if (colon == NULL || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "bare_send: '%s' is not HOST:PORT in numbers\n", text);
        exit(2);
    }
    address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    return address;
}

static int open_socket(void)
{
    int yes = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "socket");
    return fd;
}

static bool send_all(int fd, const void *data, size_t n)
{
    const uint8_t *at = data;
    while (n) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0) {
            return false;
        }
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* -- the server -------------------------------------------------------------------------------- */

static int file;

/* Reads, checks and sends one record. False where that cannot be, which ends the connection. */
static bool answer(int fd, const struct request *request, uint8_t *buffer)
{
    size_t n = PREFIX + (size_t)request->length;
    uint32_t prefix;
    if (request->length > options.bytes ||
        pread(file, buffer, n, (off_t)request->offset) != (ssize_t)n) {
        return false;
    }
    memcpy(&prefix, buffer, PREFIX);
    return prefix == request->length &&
           crc32c(buffer + PREFIX, request->length) == request->crc32c && send_all(fd, buffer, n);
}

static void *serve_connection(void *arg)
{
    int fd = *(int *)arg;
    struct request requests[REQUESTS];
    uint8_t *buffer = malloc(record_bytes());
    size_t have = 0;
    bool good = buffer != NULL;
    free(arg);
    while (good) {
        ssize_t got = recv(fd, (uint8_t *)requests + have, sizeof requests - have, 0);
        if (got <= 0) {
            break;
        }
        have += (size_t)got;
        size_t whole = have / sizeof *requests;
        for (size_t i = 0; good && i < whole; i++) {
            good = answer(fd, &requests[i], buffer);
        }
        have %= sizeof *requests;
        memmove(requests, requests + whole, have);
    }
    free(buffer);
    close(fd);
    return NULL;
}

static void make_file(void)
{
    char path[4096];
    uint8_t *record = make_record();
    must(mkdir(options.directory, 0755) == 0, options.directory);
    snprintf(path, sizeof path, "%s/payload_0000.dat", options.directory);
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    must(file >= 0, path);
    for (uint32_t i = 0; i < options.refs; i++) {
        set_number(record, i);
        must(write(file, record, record_bytes()) == (ssize_t)record_bytes(), path);
    }
    free(record);
}

/* Until a signal ends the process. */
_Noreturn static void serve(void)
{
    struct sockaddr_in address = parse_address(options.listen);
    int yes = 1, listener;
    make_file();
    listener = open_socket();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    must(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
             listen(listener, SOMAXCONN) == 0,
         options.listen);
    for (;;) {
        pthread_t thread;
        int *fd = malloc(sizeof *fd); /* of the thread */
        must(fd != NULL, "memory");
        *fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        must(*fd >= 0, "accept");
        setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        must(pthread_create(&thread, NULL, serve_connection, fd) == 0 &&
                 pthread_detach(thread) == 0,
             "thread");
    }
}

/* -- its load ---------------------------------------------------------------------------------- */

struct connection {
    int fd;
    uint8_t *in;
    size_t n, room;
    uint32_t *numbers; /* a ring of the records that were asked for */
    uint32_t first, pending;
};

struct load {
    struct connection *all;
    uint8_t *expected; /* a record, its number aside */
    uint32_t *checksums;
    uint64_t random;
    uint64_t begun, answered, bytes;
    int epoll;
};

static uint64_t now_ns(clockid_t clock)
{
    struct timespec time = {0};
    must(clock_gettime(clock, &time) == 0, "clock");
    return (uint64_t)time.tv_sec * (uint64_t)SECOND + (uint64_t)time.tv_nsec;
}

_Noreturn static void closed(void)
{
    fprintf(stderr, "bare_send: the server closed the connection\n");
    exit(1);
}

static void ask(struct load *load, struct connection *connection)
{
    load->random = load->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    uint32_t number = (uint32_t)((load->random >> 33) % options.refs);
    struct request request = {
        .offset = number * (uint64_t)record_bytes(),
        .length = options.bytes,
        .crc32c = load->checksums[number],
    };
    connection->numbers[(connection->first + connection->pending++) % options.in_flight] = number;
    load->begun++;
    if (!send_all(connection->fd, &request, sizeof request)) {
        closed();
    }
}

static void check(struct load *load, struct connection *connection, const uint8_t *record)
{
    set_number(load->expected, connection->numbers[connection->first]);
    connection->first = (connection->first + 1) % options.in_flight;
    connection->pending--;
    load->answered++;
    load->bytes += options.bytes;
    if (memcmp(record, load->expected, record_bytes()) != 0) {
        fprintf(stderr, "bare_send: another payload\n");
        exit(1);
    }
}

/* Takes what is there, once, and asks anew for each answer while that goes on. */
static void receive(struct load *load, struct connection *connection, bool go_on)
{
    uint8_t *in = connection->in;
    size_t at = 0;
    ssize_t got = recv(connection->fd, in + connection->n, connection->room - connection->n, 0);
    if (got <= 0) {
        closed();
    }
    connection->n += (size_t)got;
    for (; connection->n - at >= record_bytes(); at += record_bytes()) {
        check(load, connection, in + at);
        if (go_on) {
            ask(load, connection);
        }
    }
    connection->n -= at;
    if (at) {
        memmove(in, in + at, connection->n);
    }
}

/* Reads so many, or until the time is over, and takes what is under way then. */
static void run(struct load *load, uint64_t reads, uint64_t end)
{
    struct epoll_event events[64];
    uint64_t last = load->begun + reads;
    for (uint32_t i = 0; i < options.in_flight; i++) {
        ask(load, &load->all[i % options.connections]);
    }
    while (load->answered < load->begun) {
        int n = epoll_wait(load->epoll, events, 64, SILENCE_MS);
        if (n <= 0) {
            fprintf(stderr, "bare_send: no answer within %d s\n", SILENCE_MS / 1000);
            exit(1);
        }
        bool go_on = load->begun < last && now_ns(CLOCK_MONOTONIC) < end;
        for (int i = 0; i < n; i++) {
            receive(load, events[i].data.ptr, go_on);
        }
    }
}

static void open_connection(struct load *load, struct connection *connection)
{
    struct sockaddr_in address = parse_address(options.address);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    *connection = (struct connection){.fd = open_socket(),
                                      .room = RECEIVE_BYTES + record_bytes(),
                                      .numbers = calloc(options.in_flight, sizeof(uint32_t))};
    connection->in = malloc(connection->room);
    must(connection->in != NULL && connection->numbers != NULL, "memory");
    must(connect(connection->fd, (struct sockaddr *)&address, sizeof address) == 0 &&
             epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event) == 0,
         options.address);
}

static void load_init(struct load *load)
{
    *load = (struct load){.random = 2463534242u, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    load->expected = make_record();
    load->checksums = calloc(options.refs, sizeof *load->checksums);
    load->all = calloc(options.connections, sizeof *load->all);
    must(load->checksums != NULL && load->all != NULL, "memory");
    for (uint32_t i = 0; i < options.refs; i++) {
        set_number(load->expected, i);
        load->checksums[i] = crc32c(load->expected + PREFIX, options.bytes);
    }
    for (uint32_t i = 0; i < options.connections; i++) {
        open_connection(load, &load->all[i]);
    }
}

static void load_fini(struct load *load)
{
    for (uint32_t i = 0; i < options.connections; i++) {
        close(load->all[i].fd);
        free(load->all[i].in);
        free(load->all[i].numbers);
    }
    close(load->epoll);
    free(load->all);
    free(load->checksums);
    free(load->expected);
}

static uint64_t server_cpu_ns(void)
{
    clockid_t clock;
    if (options.server == 0) {
        return 0;
    }
    must(clock_getcpuclockid(options.server, &clock) == 0, "the server's clock");
    return now_ns(clock);
}

static void measure(void)
{
    struct load load;
    load_init(&load);
    run(&load, WARM_UP, UINT64_MAX);
    load.answered = load.begun = 0;

    uint64_t server = server_cpu_ns(), own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    run(&load, UINT64_MAX / 2, start + (uint64_t)(options.seconds * SECOND));
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - start) / SECOND;
    double reads = (double)load.answered;
    printf("{\"method\": \"read\", \"bytes\": %u, \"connections\": %u, \"in_flight\": %u, "
           "\"calls\": %.0f, \"payloads\": %.0f, \"wrong\": 0, \"seconds\": %.6f, "
           "\"payloads_per_second\": %.1f, \"server_cpu_us\": %.4f, \"own_cpu_us\": %.4f}\n",
           options.bytes, options.connections, options.in_flight, reads, reads, seconds,
           reads / seconds, (double)(server_cpu_ns() - server) / 1e3 / reads,
           (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - own) / 1e3 / reads);
    load_fini(&load);
}

/* -- options ----------------------------------------------------------------------------------- */

_Noreturn static void refuse(const char *value)
{
    fprintf(stderr,
            "bare_send: what about '%s'?\n"
            "usage: bare_send --data-dir DIRECTORY --listen HOST:PORT [--bytes N] [--refs N]\n"
            "       bare_send --address HOST:PORT --method read [--connections N] [--in-flight N]\n"
            "                 [--bytes N] [--refs N] [--seconds S] [--server-pid PID] [--json]\n",
            value);
    exit(2);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        refuse(text);
    }
    return value;
}

static void set(int option, const char *value)
{
    switch (option) {
    case 'd':
        options.directory = value;
        break;
    case 'l':
        options.listen = value;
        break;
    case 'a':
        options.address = value;
        break;
    case 'm':
        if (strcmp(value, "read") != 0) {
            refuse(value);
        }
        break;
    case 'c':
        options.connections = (uint32_t)number(value, 1, PLACES_MAX);
        break;
    case 'i':
        options.in_flight = (uint32_t)number(value, 1, PLACES_MAX);
        break;
    case 'b':
        options.bytes = (uint32_t)number(value, STAMP, BYTES_MAX);
        break;
    case 'f':
        options.refs = (uint32_t)number(value, 1, REFS_MAX);
        break;
    case 's':
        options.seconds = number(value, 0.001, 1e6);
        break;
    case 'p':
        options.server = (pid_t)number(value, 1, INT32_MAX);
        break;
    case 'j': /* there is no other form */
        break;
    default:
        refuse("--help");
    }
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"data-dir", required_argument, NULL, 'd'},
                                          {"listen", required_argument, NULL, 'l'},
                                          {"address", required_argument, NULL, 'a'},
                                          {"method", required_argument, NULL, 'm'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"in-flight", required_argument, NULL, 'i'},
                                          {"bytes", required_argument, NULL, 'b'},
                                          {"refs", required_argument, NULL, 'f'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"server-pid", required_argument, NULL, 'p'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        set(option, optarg);
    }
    bool serves = options.directory[0] != '\0' && options.listen[0] != '\0';
    if (optind < argc || serves == (options.address[0] != '\0')) {
        refuse(optind < argc ? argv[optind] : "--address");
    }
    if (serves) {
        serve();
    }
    measure();
    return 0;
}
