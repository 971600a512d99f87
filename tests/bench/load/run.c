#include "run.h"

#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define SECOND     UINT64_C(1000000000)
#define SILENCE_MS 30000 /* without any answer: the server is taken to hang */
#define TOLD       5     /* wrong answers are told so often, then only counted */
#define WRONG_MAX  1000
#define EVENTS     64

struct op {
    uint64_t number;
    uint64_t due;  /* when it was to begin: its latency counts from here */
    uint32_t done; /* payloads of its batch */
    bool wrong;
};

/* A stream, and the ops under way on it, in order. */
struct lane {
    struct h2_stream h2;
    struct h2_connection *home;
    struct op *ops; /* a ring */
    uint32_t first, n, room;
    bool ready; /* among those that can take an op */
    struct lane *next_ready;
};

struct run {
    struct connections *connections;
    const struct work *work;
    const struct pace *pace;
    struct result *result;
    struct lane *lanes;
    uint32_t n_lanes, open; /* lanes; those with an open stream */
    struct lane *ready, **ready_end;
    bool streamed, hopping; /* hopping: fewer ops than connections, so that they take turns */
    bool stopped;           /* begins nothing any more */
    uint64_t start, end, now;
    uint64_t begun, under_way;
    size_t room; /* of latencies */
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    return clock_gettime(clock, &time) == 0
               ? (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec
               : 0;
}

static uint64_t process_cpu(pid_t pid)
{
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) != 0) {
        load_fail("there is no process of the server's number");
    }
    return clock_ns(clock);
}

static const char *path_of(enum method method)
{
    static const char *const paths[] = {
        [APPEND] = "/payloadstore.v1.PayloadStore/Append",
        [READ] = "/payloadstore.v1.PayloadStore/Read",
        [APPEND_STREAM] = "/payloadstore.v1.PayloadStore/AppendStream",
        [READ_STREAM] = "/payloadstore.v1.PayloadStore/ReadStream",
    };
    return paths[method];
}

/* -- ops --------------------------------------------------------------------------------------- */

static void tell(struct run *run, const char *what, int status)
{
    if (run->result->wrong < TOLD) {
        fprintf(stderr, "load: %s", what[0] ? what : "an error without a message");
        fprintf(stderr, status > 0 ? " (gRPC status %d)\n" : "\n", status);
    }
}

static void push_ready(struct run *run, struct lane *lane)
{
    if (!lane->ready) {
        lane->ready = true;
        lane->next_ready = NULL;
        *run->ready_end = lane;
        run->ready_end = &lane->next_ready;
    }
}

static struct lane *pop_ready(struct run *run)
{
    struct lane *lane = run->ready;
    lane->ready = false;
    run->ready = lane->next_ready;
    if (!run->ready) {
        run->ready_end = &run->ready;
    }
    return lane;
}

static void keep_latency(struct run *run, uint64_t latency)
{
    struct result *result = run->result;
    if (result->ops == run->room) {
        run->room = 2 * run->room + 65536;
        result->latencies = load_alloc(result->latencies, run->room * sizeof *result->latencies);
    }
    result->latencies[result->ops++] = latency;
}

/* The lane's first op has ended. */
static void end_op(struct run *run, struct lane *lane)
{
    struct op *op = &lane->ops[lane->first];
    lane->first = (lane->first + 1) % lane->room;
    lane->n--;
    run->under_way--;
    if (op->wrong) {
        run->result->wrong++;
    } else {
        run->result->payloads += run->work->batch;
        keep_latency(run, run->now - op->due);
    }
    push_ready(run, lane);
}

static void begin_op(struct run *run, struct lane *lane, uint64_t due)
{
    uint64_t number = run->begun++;
    size_t n;
    const uint8_t *request = work_request(run->work, number, &n);
    lane->ops[(lane->first + lane->n++) % lane->room] = (struct op){.number = number, .due = due};
    run->under_way++;
    if (lane->h2.id == 0) {
        struct connections *all = run->connections;
        struct h2_connection *on = run->hopping ? &all->all[number % all->n] : lane->home;
        h2_open(&lane->h2, on, path_of(run->work->method), lane->room);
        run->open++;
    }
    h2_send(&lane->h2, request, n, !run->streamed);
}

static void on_message(void *user, struct h2_stream *h2, const uint8_t *data, size_t n)
{
    struct connections *connections = user;
    struct run *run = connections->run;
    struct lane *lane = (struct lane *)h2;
    struct op *op = &lane->ops[lane->first];
    if (lane->n == 0) {
        tell(run, "an answer nobody asked for", 0);
        run->result->wrong++;
        return;
    }
    const char *what = work_check(run->work, op->number, &op->done, data, n);
    if (what && !op->wrong) {
        tell(run, what, 0);
        op->wrong = true;
    }
    if (run->streamed && op->done >= run->work->batch) {
        end_op(run, lane);
    }
}

static void on_closed(void *user, struct h2_stream *h2, int status, const char *about)
{
    struct connections *connections = user;
    struct run *run = connections->run;
    struct lane *lane = (struct lane *)h2;
    bool early = run->streamed && (lane->n > 0 || !run->stopped);
    run->open--;
    if (status != 0) {
        tell(run, about, status);
    } else if (early) {
        tell(run, "the stream ended before its end", 0);
    }
    if (lane->n == 0 && status != 0) {
        run->result->wrong++;
    }
    while (lane->n) {
        struct op *op = &lane->ops[lane->first];
        if (status == 0 && !early && op->done == 0) {
            tell(run, "no message with the status OK", 0);
        }
        op->wrong |= status != 0 || op->done != run->work->batch;
        end_op(run, lane);
    }
    run->stopped |= early;
}

/* -- the loop ---------------------------------------------------------------------------------- */

/* Whether an op shall begin now, and since when it should have. */
static bool next_due(const struct run *run, uint64_t *due)
{
    *due = run->now;
    if (run->pace->rate > 0) {
        *due = run->start + (uint64_t)((double)run->begun / run->pace->rate * (double)SECOND);
    }
    return run->begun < run->pace->ops && *due <= run->now && *due < run->end;
}

static bool over(const struct run *run)
{
    uint64_t due;
    return run->stopped || run->begun >= run->pace->ops || run->now >= run->end ||
           (!next_due(run, &due) && due >= run->end);
}

static void begin_due(struct run *run)
{
    uint64_t due;
    while (!run->stopped && run->ready && next_due(run, &due)) {
        struct lane *lane = pop_ready(run);
        begin_op(run, lane, due);
        if (lane->n < lane->room) {
            push_ready(run, lane);
        }
    }
}

static void end_streams(struct run *run)
{
    for (uint32_t i = 0; i < run->n_lanes; i++) {
        if (run->lanes[i].h2.id && !run->lanes[i].h2.half_closed) {
            h2_end(&run->lanes[i].h2);
        }
    }
}

static void watch_socket(struct run *run, struct h2_connection *connection, int how)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (connection->wants_out) {
        event.events |= EPOLLOUT;
    }
    epoll_ctl(run->connections->epoll, how, connection->fd, &event);
}

/* Sends what was put, and sees whether a connection can go on. */
static void flush(struct run *run)
{
    for (uint32_t i = 0; i < run->connections->n; i++) {
        struct h2_connection *connection = &run->connections->all[i];
        bool waited = connection->wants_out;
        if (connection->out.n) {
            h2_flush(connection);
        }
        if (waited != connection->wants_out) {
            watch_socket(run, connection, EPOLL_CTL_MOD);
        }
        if (connection->broken[0]) {
            fprintf(stderr, "load: %s\n", connection->broken);
            run->result->wrong += run->under_way ? run->under_way : 1;
            run->under_way = run->open = 0;
            run->stopped = true;
            return;
        }
    }
}

/* Until something comes, or an op is due. False where nothing came for too long. */
static bool await(struct run *run, struct epoll_event *events, int *n)
{
    struct timespec wait = {.tv_sec = SILENCE_MS / 1000};
    uint64_t due;
    bool pacing = run->pace->rate > 0 && run->ready && !over(run);
    if (pacing) {
        next_due(run, &due);
        uint64_t left = due > run->now ? due - run->now : 0;
        wait = (struct timespec){(time_t)(left / SECOND), (long)(left % SECOND)};
    }
    *n = epoll_pwait2(run->connections->epoll, events, EVENTS, &wait, NULL);
    run->now = clock_ns(CLOCK_MONOTONIC);
    return *n != 0 || pacing;
}

static void loop(struct run *run)
{
    struct epoll_event events[EVENTS];
    int n = 0;
    begin_due(run);
    flush(run);
    while (run->open || !over(run)) {
        if (!await(run, events, &n)) {
            fprintf(stderr, "load: no answer within %d s\n", SILENCE_MS / 1000);
            run->result->wrong += run->under_way ? run->under_way : 1;
            return;
        }
        for (int i = 0; i < n; i++) {
            if (events[i].events & ~(unsigned)EPOLLOUT) {
                h2_receive(events[i].data.ptr);
            }
        }
        run->stopped |= run->result->wrong >= WRONG_MAX || (run->pace->stop && *run->pace->stop);
        begin_due(run);
        if (run->streamed && run->under_way == 0 && over(run)) {
            run->stopped = true;
            end_streams(run);
        }
        flush(run);
    }
}

/* -- runs -------------------------------------------------------------------------------------- */

void connections_open(struct connections *connections, const char *address, uint32_t n,
                      uint32_t in_flight, uint32_t max_frame)
{
    connections->n = n;
    connections->events = (struct h2_events){on_message, on_closed, connections};
    connections->all = load_alloc(NULL, n * sizeof *connections->all);
    connections->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < n; i++) {
        h2_connect(&connections->all[i], address, in_flight, max_frame, &connections->events);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections->all[i]};
        if (epoll_ctl(connections->epoll, EPOLL_CTL_ADD, connections->all[i].fd, &event) != 0) {
            load_fail("epoll");
        }
    }
}

void connections_close(struct connections *connections)
{
    for (uint32_t i = 0; i < connections->n; i++) {
        h2_fini(&connections->all[i]);
    }
    free(connections->all);
    close(connections->epoll);
}

/* Lanes for the ops in flight, in turn over the connections. */
static void make_lanes(struct run *run, uint32_t streams)
{
    const struct connections *connections = run->connections;
    uint32_t in_flight = run->pace->in_flight;
    uint32_t wanted = run->streamed ? streams : in_flight;
    run->n_lanes = 0;
    run->ready_end = &run->ready;
    run->hopping = !run->streamed && in_flight < connections->n;
    run->lanes = calloc(wanted, sizeof *run->lanes);
    if (!run->lanes) {
        load_fail("out of memory");
    }
    for (uint32_t i = 0; i < wanted; i++) {
        struct lane *lane = &run->lanes[run->n_lanes];
        lane->home = &connections->all[i % connections->n];
        if (i / connections->n >= lane->home->max_streams) {
            continue; /* the server takes no more at once */
        }
        lane->room = run->streamed ? (in_flight + streams - 1 - i) / streams : 1;
        lane->ops = load_alloc(NULL, (lane->room + 1) * sizeof *lane->ops);
        run->result->in_flight += lane->room;
        run->n_lanes++;
        if (lane->room) {
            push_ready(run, lane);
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void run(struct connections *connections, const struct work *work, const struct pace *pace,
         uint32_t streams, pid_t server, struct result *result)
{
    struct run run = {.connections = connections,
                      .work = work,
                      .pace = pace,
                      .result = result,
                      .streamed = work->method == APPEND_STREAM || work->method == READ_STREAM};
    *result = (struct result){0};
    connections->run = &run;
    make_lanes(&run, streams);

    uint64_t server_cpu = server ? process_cpu(server) : 0;
    uint64_t own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    run.now = run.start = clock_ns(CLOCK_MONOTONIC);
    run.end =
        pace->seconds > 0 ? run.start + (uint64_t)(pace->seconds * (double)SECOND) : UINT64_MAX;
    loop(&run);
    result->seconds = (double)(clock_ns(CLOCK_MONOTONIC) - run.start) / (double)SECOND;
    result->own_cpu = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu) / (double)SECOND;
    if (server) {
        result->server_cpu = (double)(process_cpu(server) - server_cpu) / (double)SECOND;
    }
    if (result->ops) {
        qsort(result->latencies, result->ops, sizeof *result->latencies, compare);
    }
    for (uint32_t i = 0; i < run.n_lanes; i++) {
        free(run.lanes[i].ops);
        h2_stream_fini(&run.lanes[i].h2);
    }
    free(run.lanes);
}

double result_percentile(const struct result *result, double share)
{
    if (result->ops == 0) {
        return 0;
    }
    uint64_t at = (uint64_t)(share * (double)result->ops);
    return (double)result->latencies[at < result->ops ? at : result->ops - 1] / 1e3;
}
