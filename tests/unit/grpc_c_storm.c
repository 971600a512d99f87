/*
 * Ten thousand streams open at once, and then everything that ends streams at once.
 *
 * A few threads drive a share of the streams each, in turns. Once all are open, which each has
 * shown by an echo, half of them are ended at random moments: by their client, by a deadline, by
 * the handler in a callback, and by another thread of the server's. The others talk on, some until
 * they are done. In the middle of that the server is shut down, with a drain that outlasts the
 * deadlines.
 *
 * STORM_SEED is the seed, STORM_STREAMS how many there are.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "grpc_c_fixture.h"

#define CHANNELS      4u
#define WORKERS       8u
#define ENDERS        2u /* threads that cancel, and as many that finish */
#define LENT_BYTES    64u
#define TURNS_MAX     20u /* of streams that end by themselves */
#define DRAIN_MORE_MS 300
#define SMALLEST_LEAK 16 /* bytes */
#define SETTLE_MS     10000
#define PAUSE_MAX_NS  300000 /* between two cancellings: what makes their moments random */

/* How a stream is meant to end. `number` of its requests, so that the handler knows. */
enum fate {
    TALKS,           /* until the server stops */
    CLOSES,          /* its client half-closes after some turns */
    IS_CANCELLED,    /* by a thread of its client's */
    RUNS_OUT,        /* of time */
    IS_FAILED,       /* by its handler, after some turns */
    IS_FAILED_ASIDE, /* by another thread of the server's */
    N_FATES
};

static const char *const fate_names[N_FATES] = {
    "talk on", "close", "are cancelled", "run out of time", "are failed", "are failed aside"};

/* In ten: the last four are the half that is cut off. */
static const unsigned share_of[N_FATES] = {4, 1, 2, 1, 1, 1};

/* -- chance -------------------------------------------------------------------------------------
 */

static uint64_t seed;

/* xorshift64*: a state a thread, so that a seed means the same on each machine. */
static uint32_t chance(uint64_t *state, uint32_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 0x2545f4914f6cdd1dULL) >> 32) % below;
}

static uint64_t chance_of(unsigned thread)
{
    uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15ULL + thread * 0xbf58476d1ce4e5b9ULL;

    return state != 0 ? state : 1;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void pause_for(uint64_t *state)
{
    struct timespec moment = {0, (long)chance(state, PAUSE_MAX_NS)};

    nanosleep(&moment, NULL);
}

/* -- the server's side --------------------------------------------------------------------------
 */

/* One call. Whoever sets `finished`, under the lock, finishes it; after that nobody touches it. */
struct slot {
    pthread_mutex_t lock;
    grpc_c_call *call;
    bool finished;
    enum fate fate; /* from its first message on */
    unsigned turns; /* left, of one that is to fail */
};

static struct slot *slots;
static size_t n_slots;
static atomic_uint next_slot;
static atomic_uint begun;
static atomic_uint finished;
static atomic_uint live_data; /* not yet destroyed */
static atomic_uint lent;
static atomic_uint returned;
static atomic_bool storming;

/* Under the lock. */
static void finish(struct slot *slot, enum grpc_c_code code)
{
    struct grpc_c_status status = {.code = code, .message = code == GRPC_C_OK ? NULL : "enough"};

    if (!slot->finished) {
        slot->finished = true;
        grpc_c_call_finish(slot->call, &status);
        atomic_fetch_add(&finished, 1);
    }
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    struct slot *slot = arg;

    (void)call;
    pthread_mutex_lock(&slot->lock);
    finish(slot, GRPC_C_CANCELLED);
    pthread_mutex_unlock(&slot->lock);
}

static void forget(void *data)
{
    (void)data;
    atomic_fetch_sub(&live_data, 1);
}

static void chat(grpc_c_call *call)
{
    unsigned i = atomic_fetch_add(&next_slot, 1);
    struct slot *slot = &slots[i];

    insist(i < n_slots);
    slot->call = call;
    atomic_fetch_add(&begun, 1);
    atomic_fetch_add(&live_data, 1);
    grpc_c_call_set_data(call, slot, forget);
    grpc_c_call_on_cancel(call, on_cancel, slot);
    grpc_c_call_read(call);
}

/* A second one of the same would be a use after free. */
static void give_back(void *arg)
{
    free(arg);
    atomic_fetch_add(&returned, 1);
}

static void read_on(grpc_c_call *call, void *arg)
{
    struct slot *slot = arg;

    pthread_mutex_lock(&slot->lock);
    if (!slot->finished) {
        grpc_c_call_read(call);
    }
    pthread_mutex_unlock(&slot->lock);
}

/* Under the lock. */
static void echo(struct slot *slot, const echo_request *request)
{
    echo_response response = ECHO_RESPONSE;
    struct grpc_c_lent loan = {.data = malloc(LENT_BYTES), .length = LENT_BYTES};

    insist(loan.data != NULL);
    memset((void *)loan.data, (int)request->number, LENT_BYTES);
    loan.release = give_back;
    loan.arg = (void *)loan.data;
    response.number = request->number;
    response.payload = (ProtobufCBinaryData){LENT_BYTES, (uint8_t *)loan.data};
    atomic_fetch_add(&lent, 1);
    grpc_c_call_write_lent(slot->call, &response.base, &loan, 1, read_on, slot);
}

static void chat_message(grpc_c_call *call, const echo_request *request)
{
    struct slot *slot = grpc_c_call_data(call);

    pthread_mutex_lock(&slot->lock);
    if (request == NULL) {
        finish(slot, GRPC_C_OK);
    } else if (!slot->finished) {
        slot->fate = (enum fate)request->number;
        if (slot->fate == IS_FAILED && atomic_load(&storming) && slot->turns-- == 0) {
            finish(slot, GRPC_C_ABORTED);
        } else {
            echo(slot, request);
        }
    }
    pthread_mutex_unlock(&slot->lock);
}

static const struct echo_handlers handlers = {.chat = chat, .chat_message = chat_message};

/* Finishes, in a random order, the calls that are to end so. */
static void *finish_aside(void *arg)
{
    uint64_t state = chance_of(100 + (unsigned)(uintptr_t)arg);
    unsigned n = atomic_load(&next_slot);
    unsigned first = chance(&state, n);

    for (unsigned i = 0; i < n; i++) {
        struct slot *slot = &slots[(first + i) % n];
        bool mine;
        pthread_mutex_lock(&slot->lock);
        mine = slot->fate == IS_FAILED_ASIDE;
        if (mine) {
            finish(slot, GRPC_C_ABORTED);
        }
        pthread_mutex_unlock(&slot->lock);
        if (mine) {
            pause_for(&state);
        }
    }
    return NULL;
}

/* -- the client's side --------------------------------------------------------------------------
 */

/* The lock keeps the stream alive for a thread that cancels it. */
struct talk {
    pthread_mutex_t lock;
    grpc_c_stream *stream; /* NULL: finished */
    enum fate fate;
    unsigned turns;
    int64_t due; /* the deadline; 0: none */
};

static struct talk *talks;
static size_t n_talks;
static grpc_c_channel *channels[CHANNELS];
static pthread_barrier_t barrier;
static bool all_open;       /* written by one between two barriers */
static int64_t patience_ms; /* how long a stream may be about to run out of time; as that */
static atomic_uint n_over;
static atomic_uint ended[N_FATES][GRPC_C_UNAUTHENTICATED + 1];

static bool say(struct talk *talk)
{
    echo_request request = ECHO_REQUEST;

    request.number = talk->fate;
    return grpc_c_stream_write(talk->stream, &request.base) == 0;
}

static bool hear(struct talk *talk)
{
    echo_response *response = (echo_response *)grpc_c_stream_read(talk->stream);

    if (response == NULL) {
        return false;
    }
    insist(response->number == talk->fate && response->payload.len == LENT_BYTES &&
           response->payload.data[LENT_BYTES - 1] == talk->fate);
    grpcc__test__echo_response__free_unpacked(response, NULL);
    return true;
}

static void open_talk(struct talk *talk, size_t i, uint64_t *state)
{
    struct grpc_c_call_options options = {0};

    talk->turns = 1 + chance(state, TURNS_MAX);
    if (talk->fate == RUNS_OUT) {
        options.timeout_ms = patience_ms + chance(state, 1000);
        talk->due = now_ms() + options.timeout_ms;
    }
    talk->stream = grpc_c_stream_open(channels[i % CHANNELS], echo_chat, &options);
    insist(talk->stream != NULL);
}

static enum grpc_c_code close_talk(struct talk *talk)
{
    struct grpc_c_result result = {0};
    enum grpc_c_code code;
    grpc_c_stream *stream;

    pthread_mutex_lock(&talk->lock);
    stream = talk->stream;
    talk->stream = NULL; /* nobody cancels it from now on */
    pthread_mutex_unlock(&talk->lock);
    grpc_c_stream_finish(stream, &result);
    code = result.code;
    insist(code != GRPC_C_ABORTED || strcmp(result.message, "enough") == 0);
    grpc_c_result_fini(&result);
    return code;
}

/* Opens all that are to be opened in two sweeps, so that many are under way at a time. */
static void open_share(size_t first, enum fate only, uint64_t *state)
{
    for (size_t i = first; i < n_talks; i += WORKERS) {
        if ((talks[i].fate == RUNS_OUT) == (only == RUNS_OUT) && talks[i].stream == NULL) {
            open_talk(&talks[i], i, state);
            (void)say(&talks[i]);
        }
    }
    for (size_t i = first; i < n_talks; i += WORKERS) {
        if ((talks[i].fate == RUNS_OUT) == (only == RUNS_OUT) && talks[i].turns > 0) {
            bool heard = hear(&talks[i]);
            insist(heard || only == RUNS_OUT);
            talks[i].turns *= heard;
        }
    }
}

/* Until all are open at one moment: on a slow machine some may be out of time before the last. */
static void open_those_that_run_out(size_t first, uint64_t *state)
{
    do {
        for (size_t i = first; i < n_talks; i += WORKERS) {
            if (talks[i].fate == RUNS_OUT && talks[i].stream != NULL) {
                (void)close_talk(&talks[i]);
            }
        }
        open_share(first, RUNS_OUT, state);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier); /* the first thread has looked */
    } while (!all_open);
}

/* One turn; false where it is over. */
static bool turn(struct talk *talk)
{
    if (talk->fate == CLOSES && talk->turns-- == 0) {
        return false;
    }
    return say(talk) && hear(talk);
}

static void talk_until_over(size_t first, uint64_t *state)
{
    size_t left = 1;

    while (left > 0) {
        left = 0;
        for (size_t i = first; i < n_talks; i += WORKERS) {
            struct talk *talk = &talks[i];
            if (talk->stream == NULL) {
                continue;
            }
            if (chance(state, 4) == 0 || turn(talk)) { /* some are passed over */
                left++;
                continue;
            }
            atomic_fetch_add(&ended[talk->fate][close_talk(talk)], 1);
            atomic_fetch_add(&n_over, 1);
        }
    }
}

static void *work(void *arg)
{
    size_t first = (size_t)(uintptr_t)arg;
    uint64_t state = chance_of((unsigned)first);

    open_share(first, TALKS, &state);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* patience_ms is set */
    open_those_that_run_out(first, &state);
    pthread_barrier_wait(&barrier); /* now the storm */
    talk_until_over(first, &state);
    return NULL;
}

static void *cancel_some(void *arg)
{
    unsigned number = (unsigned)(uintptr_t)arg;
    uint64_t state = chance_of(200 + number);
    size_t first = chance(&state, (uint32_t)n_talks);

    for (size_t i = 0; i < n_talks; i++) {
        struct talk *talk = &talks[(first + i) % n_talks];
        if (talk->fate != IS_CANCELLED || (first + i) % n_talks % ENDERS != number) {
            continue;
        }
        pthread_mutex_lock(&talk->lock);
        if (talk->stream != NULL) {
            grpc_c_stream_cancel(talk->stream);
        }
        pthread_mutex_unlock(&talk->lock);
        pause_for(&state);
    }
    return NULL;
}

/* -- what must hold -----------------------------------------------------------------------------
 */

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long size = 0;
    unsigned long resident = 0;

    if (file != NULL) {
        if (fscanf(file, "%lu %lu", &size, &resident) != 2) { /* NOLINT(cert-err34-c) */
            resident = 0;
        }
        (void)fclose(file);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static unsigned of_fate(enum fate fate)
{
    unsigned n = 0;

    for (size_t i = 0; i < n_talks; i++) {
        n += talks[i].fate == fate;
    }
    return n;
}

/* What a stream of that fate ends with where the server's stop has not come first. */
static const enum grpc_c_code meant[N_FATES] = {
    [TALKS] = GRPC_C_UNAVAILABLE,      [CLOSES] = GRPC_C_OK,
    [IS_CANCELLED] = GRPC_C_CANCELLED, [RUNS_OUT] = GRPC_C_DEADLINE_EXCEEDED,
    [IS_FAILED] = GRPC_C_ABORTED,      [IS_FAILED_ASIDE] = GRPC_C_ABORTED,
};

/* Some have ended in each way, and half of those that end without the server's stop. */
static void await_the_middle(void)
{
    for (unsigned fate = TALKS + 1; fate < N_FATES; fate++) {
        await_count(&ended[fate][meant[fate]], 1);
    }
    await_count(&n_over, (unsigned)(n_talks - of_fate(TALKS)) / 2);
}

static void check_ends(void)
{
    for (unsigned fate = 0; fate < N_FATES; fate++) {
        unsigned sum = 0;
        print_message("  %u %s:", of_fate(fate), fate_names[fate]);
        for (int code = 0; code <= GRPC_C_UNAUTHENTICATED; code++) {
            unsigned n = atomic_load(&ended[fate][code]);
            sum += n;
            if (n > 0) {
                print_message(" %u %s", n, grpc_c_code_name(code));
                assert_true(code == (int)meant[fate] || code == GRPC_C_UNAVAILABLE);
            }
        }
        print_message("\n");
        assert_int_equal(sum, of_fate(fate));
    }
}

static void deal_fates(void)
{
    uint64_t state = chance_of(1000);
    enum fate deck[10];
    unsigned n = 0;

    for (unsigned fate = 0; fate < N_FATES; fate++) {
        for (unsigned i = 0; i < share_of[fate]; i++) {
            deck[n++] = fate;
        }
    }
    for (size_t i = 0; i < n_talks; i++) {
        talks[i].fate = deck[i % n];
        pthread_mutex_init(&talks[i].lock, NULL);
    }
    for (size_t i = n_talks - 1; i > 0; i--) {
        size_t other = chance(&state, (uint32_t)i + 1);
        enum fate fate = talks[i].fate;
        talks[i].fate = talks[other].fate;
        talks[other].fate = fate;
    }
    for (size_t i = 0; i < n_slots; i++) {
        pthread_mutex_init(&slots[i].lock, NULL);
        slots[i].turns = chance(&state, TURNS_MAX);
    }
}

static void reset(size_t n)
{
    n_talks = n;
    n_slots = 4 * n;
    talks = calloc(n_talks, sizeof(*talks));
    slots = calloc(n_slots, sizeof(*slots));
    assert_true(talks != NULL && slots != NULL);
    atomic_store(&next_slot, 0);
    atomic_store(&begun, 0);
    atomic_store(&finished, 0);
    atomic_store(&lent, 0);
    atomic_store(&returned, 0);
    atomic_store(&n_over, 0);
    atomic_store(&storming, false);
    memset(ended, 0, sizeof(ended));
    all_open = false;
    deal_fates();
    pthread_barrier_init(&barrier, NULL, WORKERS + 1);
}

static void drop(void)
{
    pthread_barrier_destroy(&barrier);
    for (size_t i = 0; i < n_talks; i++) {
        pthread_mutex_destroy(&talks[i].lock);
    }
    for (size_t i = 0; i < n_slots; i++) {
        pthread_mutex_destroy(&slots[i].lock);
    }
    free(talks);
    free(slots);
}

/* Whether each has had an echo, and none has run out of time. */
static bool are_all_open(void)
{
    int64_t now = now_ms();

    for (size_t i = 0; i < n_talks; i++) {
        if (talks[i].turns == 0 || (talks[i].due != 0 && talks[i].due <= now)) {
            return false;
        }
    }
    return true;
}

static void await_all_open(void)
{
    int64_t start = now_ms();

    pthread_barrier_wait(&barrier); /* those without a deadline are open */
    patience_ms = 500 + (now_ms() - start) / 2;
    pthread_barrier_wait(&barrier);
    do {
        pthread_barrier_wait(&barrier);
        all_open = are_all_open();
        patience_ms *= 2;
        insist(patience_ms < (int64_t)1 << 40);
        pthread_barrier_wait(&barrier);
    } while (!all_open);
    assert_true(atomic_load(&begun) - atomic_load(&finished) >= n_talks);
}

static unsigned last_due_in(void)
{
    int64_t last = 0;
    int64_t now = now_ms();

    for (size_t i = 0; i < n_talks; i++) {
        last = talks[i].due > last ? talks[i].due : last;
    }
    return last > now ? (unsigned)(last - now) : 0;
}

static void start(pthread_t *threads, size_t n, void *(*run)(void *arg))
{
    for (size_t i = 0; i < n; i++) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i), 0);
    }
}

static void join(const pthread_t *threads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

/* From the last stream's being open to the last one's end. */
static void storm(struct fixture *fixture)
{
    pthread_t cancelling[ENDERS];
    pthread_t finishing[ENDERS];
    unsigned stopped;

    atomic_store(&storming, true);
    pthread_barrier_wait(&barrier);
    start(cancelling, ENDERS, cancel_some);
    start(finishing, ENDERS, finish_aside);
    await_the_middle();
    stopped = grpc_c_server_shutdown(fixture->server, last_due_in() + DRAIN_MORE_MS);
    print_message("  %u were left for the server's stop\n", stopped);
    assert_true(stopped > 0);
    join(cancelling, ENDERS);
    join(finishing, ENDERS);
}

static void play(size_t n)
{
    struct fixture fixture;
    pthread_t workers[WORKERS];
    size_t heap;
    size_t resident;

    reset(n);
    fixture_start(&fixture, NULL, &handlers);
    channels[0] = fixture.channel;
    for (size_t i = 1; i < CHANNELS; i++) {
        channels[i] = fixture_connect(&fixture);
    }
    heap = heap_bytes();
    resident = resident_bytes();
    start(workers, WORKERS, work);
    await_all_open();
    print_message("%zu streams open; client and server together take of each %zu bytes of heap,"
                  " resident %zu\n",
                  n, (heap_bytes() - heap) / n, (resident_bytes() - resident) / n);
    storm(&fixture);
    join(workers, WORKERS);
    for (size_t i = 1; i < CHANNELS; i++) {
        grpc_c_channel_destroy(channels[i]);
    }
    fixture_stop(&fixture);
    check_ends();
    assert_int_equal(atomic_load(&begun), atomic_load(&finished));
    assert_int_equal(atomic_load(&live_data), 0);
    await_count(&returned, atomic_load(&lent));
    assert_int_equal(atomic_load(&returned), atomic_load(&lent));
    print_message("  %u calls begun and finished, %u loans lent and given back\n",
                  atomic_load(&begun), atomic_load(&lent));
    drop();
}

/* Core lets go of what belonged to a connection on threads of its own, perhaps a little later. */
static size_t heap_bytes_below(size_t bytes)
{
    int64_t until = now_ms() + SETTLE_MS;
    size_t now;

    while ((now = heap_bytes()) >= bytes && now_ms() < until) {
        sched_yield();
    }
    return now;
}

static void every_stream_ends_and_nothing_stays(void **state)
{
    size_t n = number_from("STORM_STREAMS", 10000);
    size_t before;
    size_t most; /* not one small allocation a stream more */
    size_t after;

    (void)state;
    play(n); /* what stays for good: a name for each of the most calls there were at once */
    before = heap_bytes();
    play(n);
    most = before + n * SMALLEST_LEAK;
    after = heap_bytes_below(most);
    print_message("heap: %zu bytes before, %zu after\n", before, after);
    assert_true(after < most); /* under a sanitizer both are 0, and its own to count */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_stream_ends_and_nothing_stays)};

    seed = number_from("STORM_SEED", (uint64_t)now_ms());
    print_message("STORM_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests_name("grpc_c_storm", tests, NULL, NULL);
}
