/*
 * The appender: a queue of batches, and three threads.
 *
 *   queue      oldest ... sent, waiting for their answers | not sent | gathering ... newest
 *   sender     opens streams, sends the first batch that is not sent while the window is open;
 *              where a stream broke, gives the batches sent on it their results
 *   receiver   one a stream: takes the answers, each of which is the oldest batch's
 *   watchdog   cancels a stream whose oldest batch has become too old
 *
 * A stream begins with an empty batch, and goes on once that has its empty answer: a server has
 * been reached then. So of a batch whose stream ended before it is known that nothing was sent.
 *
 * Results are given by the receiver while there is one, else by the sender, which makes them follow
 * one another. `lock` guards all but what is set at open; no callback and no call runs under it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "batch.h"
#include "payloadstore-client/appender.h"

#define BATCH_PAYLOADS 64u
#define PAYLOADS_MAX   4096u
#define BATCH_BYTES    ((size_t)256 << 10)
#define BYTES_MAX      ((size_t)1000000) /* with what is around them less than 1 MiB */
#define WINDOW         8u
#define FIRST_PAUSE_MS 20
#define PAUSE_MAX_MS   1000

struct plc_appender {
    plc_client *client;
    struct plc_appender_options options;
    char *store;
    uint64_t epoch;
    int64_t deadline_ms;
    pthread_t sender;
    pthread_t receiver; /* the sender's to start and to join */
    pthread_t watchdog;
    pthread_mutex_t lock; /* guards: */
    pthread_cond_t changed;
    struct plci_batch *oldest, *newest;
    size_t n_batches;
    size_t n_sent;
    grpc_c_stream *stream; /* the sender's to open and to finish */
    bool greeted;          /* the empty batch was answered */
    bool broken;           /* the receiver has seen its end */
    bool answered;         /* something, on this stream */
    int64_t half_closed_ms;
    uint64_t n_appended, n_told;
    enum plc_code first_failure;
    bool telling;     /* a callback runs, */
    pthread_t teller; /* on this thread */
    bool closing;
    bool over; /* the sender has ended */
};

/* -- the queue; under the lock ------------------------------------------------------------------
 */

static void push(plc_appender *a, struct plci_batch *batch)
{
    if (a->newest != NULL) {
        a->newest->next = batch;
    } else {
        a->oldest = batch;
    }
    a->newest = batch;
    a->n_batches++;
    plci_unanswered_add(a->client, &batch->unanswered);
}

static struct plci_batch *pop(plc_appender *a)
{
    struct plci_batch *batch = a->oldest;
    a->oldest = batch->next;
    if (a->oldest == NULL) {
        a->newest = NULL;
    }
    a->n_batches--;
    a->n_sent -= batch->sent ? 1 : 0;
    return batch;
}

static struct plci_batch *first_unsent(const plc_appender *a)
{
    struct plci_batch *batch = a->oldest;
    while (batch != NULL && batch->sent) {
        batch = batch->next;
    }
    return batch;
}

static bool too_old(const plc_appender *a, const struct plci_batch *batch)
{
    return plci_now_ms() - batch->unanswered.since_ms >= a->deadline_ms;
}

static bool in_callback(const plc_appender *a)
{
    return a->telling && pthread_equal(a->teller, pthread_self());
}

/* -- results ------------------------------------------------------------------------------------
 */

/* Takes a batch that was popped. `refs` is NULL where it failed. */
static void tell(plc_appender *a, struct plci_batch *batch, Payloadstore__V1__PayloadRef **refs,
                 const struct plc_error *error)
{
    pthread_mutex_lock(&a->lock);
    a->telling = true;
    a->teller = pthread_self();
    pthread_mutex_unlock(&a->lock);
    for (size_t i = 0; i < batch->n; i++) {
        const struct plc_appended appended = {
            .tag = batch->tags[i],
            .code = error->code,
            .ref = refs != NULL ? plci_ref_in(refs[i]) : (struct plc_ref){0},
            .error = error,
        };
        a->options.appended(a->options.arg, &appended);
    }
    /* Only now does the caller know the refs. */
    plci_unanswered_remove(a->client, &batch->unanswered);
    pthread_mutex_lock(&a->lock);
    a->telling = false;
    a->n_told += batch->n;
    if (a->first_failure == PLC_OK) {
        a->first_failure = error->code;
    }
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    plci_batch_destroy(batch);
}

/* -- the receiver -------------------------------------------------------------------------------
 */

/* The answer to the empty batch; where it failed, those that follow do, each with its cause. */
static bool take_greeting(plc_appender *a, const Payloadstore__V1__AppendStreamResponse *response)
{
    bool sound = response->n_refs == 0;

    pthread_mutex_lock(&a->lock);
    a->greeted = sound;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return sound;
}

/* False where it is no answer to what was sent. */
static bool take_answer(plc_appender *a, const Payloadstore__V1__AppendStreamResponse *response)
{
    struct plci_batch *batch = NULL;
    struct plc_error error;

    pthread_mutex_lock(&a->lock);
    if (a->n_sent > 0 && (response->failure != NULL || response->n_refs == a->oldest->n)) {
        batch = pop(a);
        a->answered = true;
    }
    pthread_mutex_unlock(&a->lock);
    if (batch == NULL) {
        return false;
    }
    plci_ok(&error);
    if (response->failure != NULL) {
        plci_failure(&error, response->failure);
    }
    tell(a, batch, response->failure == NULL ? response->refs : NULL, &error);
    return true;
}

static void *receive(void *arg)
{
    plc_appender *a = arg;
    Payloadstore__V1__AppendStreamResponse *response;

    while ((response = payloadstore__v1__payload_store__append_stream__read(a->stream)) != NULL) {
        /* Only this thread changes that while the stream lasts. */
        bool sound = a->greeted ? take_answer(a, response) : take_greeting(a, response);
        payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
        if (!sound) {
            grpc_c_stream_cancel(a->stream);
        }
    }
    pthread_mutex_lock(&a->lock);
    a->broken = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* -- the sender ---------------------------------------------------------------------------------
 */

static bool open_stream(plc_appender *a)
{
    const struct grpc_c_call_options options = {.wait_for_ready = a->client->wait_for_server};
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__append_stream__open(a->client->channel, &options);
    if (stream == NULL) {
        return false;
    }
    pthread_mutex_lock(&a->lock);
    a->stream = stream;
    a->greeted = false;
    a->broken = false;
    a->answered = false;
    a->half_closed_ms = 0;
    pthread_cond_broadcast(&a->changed); /* for the watchdog: an append may wait already */
    pthread_mutex_unlock(&a->lock);
    if (pthread_create(&a->receiver, NULL, receive, a) != 0) {
        pthread_mutex_lock(&a->lock);
        a->stream = NULL;
        pthread_mutex_unlock(&a->lock);
        grpc_c_stream_cancel(stream);
        grpc_c_stream_finish(stream, NULL);
        return false;
    }
    return true;
}

/* NULL: the empty one. */
static void write_batch(plc_appender *a, const struct plci_batch *batch)
{
    Payloadstore__V1__AppendStreamRequest request = PAYLOADSTORE__V1__APPEND_STREAM_REQUEST__INIT;
    request.store = a->store;
    request.epoch = a->epoch;
    (void)plci_durability_out(a->options.durability, &request.durability);
    if (batch != NULL) {
        request.payloads = batch->payloads;
        request.n_payloads = batch->n;
    }
    /* Where this fails the receiver sees the end of the stream. Once it is written the batch may be
     * answered, and gone. */
    (void)payloadstore__v1__payload_store__append_stream__write(a->stream, &request);
}

static bool is_lost(enum plc_code code)
{
    return code == PLC_OK || code == PLC_UNAVAILABLE || code == PLC_CANCELLED ||
           code == PLC_UNKNOWN || code == PLC_INTERNAL || code == PLC_DEADLINE_EXCEEDED;
}

/* As the batches are told that were to go over a stream that did not come about. */
static void say_not_sent(struct plc_error *error)
{
    char cause[1000];

    if (error->code == PLC_CANCELLED) { /* by the watchdog */
        (void)plci_fail(error, PLC_DEADLINE_EXCEEDED, "not sent: no server was reached in time");
        return;
    }
    (void)snprintf(cause, sizeof cause, "%.999s",
                   error->code == PLC_OK ? "the server ended the stream" : error->message);
    (void)snprintf(error->message, sizeof error->message, "not sent: %s", cause);
    error->code = error->code == PLC_OK ? PLC_UNAVAILABLE : error->code;
}

/* The batches that wait for a stream which has ended before it was greeted. */
static void settle_waiting(plc_appender *a, struct plc_error *error)
{
    bool patient = is_lost(error->code) && (a->options.resend || a->client->wait_for_server);

    say_not_sent(error);
    pthread_mutex_lock(&a->lock);
    while (a->oldest != NULL && !(patient && !too_old(a, a->oldest))) {
        struct plci_batch *batch = pop(a);
        pthread_mutex_unlock(&a->lock);
        tell(a, batch, NULL, error);
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
}

/* The batches that were sent on a stream that has ended. */
static void settle_sent(plc_appender *a, struct plc_error *error)
{
    bool lost = is_lost(error->code);

    if (lost) {
        error->code = PLC_ANSWER_LOST;
        if (error->message[0] == '\0') {
            (void)snprintf(error->message, sizeof error->message,
                           "the server ended the stream without an answer");
        }
    }
    pthread_mutex_lock(&a->lock);
    while (a->n_sent > 0 && !(lost && a->options.resend && !too_old(a, a->oldest))) {
        struct plci_batch *batch = pop(a);
        pthread_mutex_unlock(&a->lock);
        tell(a, batch, NULL, error);
        pthread_mutex_lock(&a->lock);
    }
    for (struct plci_batch *batch = a->oldest; batch != NULL; batch = batch->next) {
        batch->sent = false;
    }
    a->n_sent = 0;
    pthread_mutex_unlock(&a->lock);
}

/* A server that is not there is not asked for more than so often. */
static void pause_after(int64_t *pause_ms, bool answered)
{
    *pause_ms = answered || *pause_ms == 0 ? FIRST_PAUSE_MS : *pause_ms * 2;
    *pause_ms = *pause_ms < PAUSE_MAX_MS ? *pause_ms : PAUSE_MAX_MS;
    const struct timespec time = {*pause_ms / 1000, *pause_ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

static void end_stream(plc_appender *a, int64_t *pause_ms)
{
    struct grpc_c_result result = {0};
    struct plc_error error;

    pthread_join(a->receiver, NULL);
    pthread_mutex_lock(&a->lock);
    grpc_c_stream *stream = a->stream;
    a->stream = NULL; /* the watchdog's last moment to cancel it */
    bool wanted = a->half_closed_ms != 0;
    bool answered = a->answered;
    bool greeted = a->greeted;
    pthread_mutex_unlock(&a->lock);
    grpc_c_stream_finish(stream, &result);
    plci_end(&error, &result);
    if (greeted) {
        settle_sent(a, &error);
    } else {
        settle_waiting(a, &error);
    }
    if (!wanted) {
        pause_after(pause_ms, answered);
    }
}

/* One that could not be opened ends like one that broke. */
static void fail_first(plc_appender *a)
{
    struct plc_error error;

    plci_fail(&error, PLC_NO_MEMORY, "no memory, or no thread, for a stream; it was not sent");
    pthread_mutex_lock(&a->lock);
    struct plci_batch *batch = pop(a);
    pthread_mutex_unlock(&a->lock);
    tell(a, batch, NULL, &error);
}

/* What the sender has to do next; waits until there is something. */
enum step { OPEN, SEND, END, CLOSE, STOP };

static enum step next_step(plc_appender *a, struct plci_batch **batch)
{
    for (;;) {
        *batch = first_unsent(a);
        if (a->stream != NULL && a->broken) {
            return END;
        }
        if (*batch != NULL && a->stream == NULL) {
            return OPEN;
        }
        if (*batch != NULL && a->greeted && a->n_sent < a->options.window) {
            return SEND;
        }
        if (a->closing && a->oldest == NULL) {
            if (a->stream == NULL) {
                return STOP;
            }
            if (a->half_closed_ms == 0) {
                return CLOSE;
            }
        }
        pthread_cond_wait(&a->changed, &a->lock);
    }
}

static void begin(plc_appender *a)
{
    if (open_stream(a)) {
        write_batch(a, NULL);
    } else {
        fail_first(a);
    }
}

static void send(plc_appender *a, struct plci_batch *batch)
{
    pthread_mutex_lock(&a->lock);
    batch->sent = true;
    a->n_sent++;
    pthread_cond_broadcast(&a->changed); /* for the watchdog */
    pthread_mutex_unlock(&a->lock);
    write_batch(a, batch);
}

static void *run_sender(void *arg)
{
    plc_appender *a = arg;
    struct plci_batch *batch;
    int64_t pause_ms = 0;
    enum step step;

    pthread_mutex_lock(&a->lock);
    while ((step = next_step(a, &batch)) != STOP) {
        if (step == CLOSE) {
            a->half_closed_ms = plci_now_ms();
            pthread_cond_broadcast(&a->changed);
        } else if (step == SEND) {
            batch->room = batch->n; /* it gathers no more */
        }
        pthread_mutex_unlock(&a->lock);
        if (step == OPEN) {
            begin(a);
        } else if (step == SEND) {
            send(a, batch);
        } else if (step == CLOSE) {
            (void)grpc_c_stream_writes_done(a->stream);
        } else {
            end_stream(a, &pause_ms);
        }
        pthread_mutex_lock(&a->lock);
    }
    a->over = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* -- the watchdog -------------------------------------------------------------------------------
 */

/* When the stream will have been silent for too long; 0: not at all. */
static int64_t limit_ms(const plc_appender *a)
{
    if (a->stream == NULL || a->broken) {
        return 0;
    }
    if (a->n_sent > 0 || (!a->greeted && a->oldest != NULL)) {
        return a->oldest->unanswered.since_ms + a->deadline_ms;
    }
    return a->half_closed_ms != 0 ? a->half_closed_ms + a->deadline_ms : 0;
}

static void *run_watchdog(void *arg)
{
    plc_appender *a = arg;

    pthread_mutex_lock(&a->lock);
    while (!a->over) {
        int64_t limit = limit_ms(a);
        if (limit == 0) {
            pthread_cond_wait(&a->changed, &a->lock);
        } else if (plci_now_ms() < limit) {
            const struct timespec until = {limit / 1000, limit % 1000 * 1000000};
            (void)pthread_cond_timedwait(&a->changed, &a->lock, &until);
        } else {
            grpc_c_stream_cancel(a->stream);
            pthread_cond_wait(&a->changed, &a->lock); /* for its end */
        }
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* -- the public face ----------------------------------------------------------------------------
 */

static void destroy(plc_appender *a)
{
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a->store);
    free(a);
}

static plc_appender *create(plc_client *client, const struct plc_call *call,
                            const struct plc_appender_options *options)
{
    plc_appender *a = calloc(1, sizeof *a);
    pthread_condattr_t monotonic;

    if (a == NULL) {
        return NULL;
    }
    a->store = strdup(plci_store(client, call));
    if (a->store == NULL) {
        free(a);
        return NULL;
    }
    a->client = client;
    a->epoch = plci_epoch(call);
    a->deadline_ms = plci_options(client, call, client->append_deadline_ms).timeout_ms;
    a->options = *options;
    a->options.batch_payloads = options->batch_payloads ? options->batch_payloads : BATCH_PAYLOADS;
    a->options.batch_bytes = options->batch_bytes ? options->batch_bytes : BATCH_BYTES;
    a->options.window = options->window ? options->window : WINDOW;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return a;
}

static bool start(plc_appender *a)
{
    if (pthread_create(&a->sender, NULL, run_sender, a) != 0) {
        return false;
    }
    if (pthread_create(&a->watchdog, NULL, run_watchdog, a) != 0) {
        pthread_mutex_lock(&a->lock);
        a->closing = true;
        pthread_cond_broadcast(&a->changed);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->sender, NULL);
        return false;
    }
    return true;
}

enum plc_code plc_appender_open(plc_client *client, const struct plc_call *call,
                                const struct plc_appender_options *options, plc_appender **appender,
                                struct plc_error *error)
{
    Payloadstore__V1__Durability durability;

    if (options == NULL || options->appended == NULL || appender == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the callback is missing");
    }
    if (options->batch_payloads > PAYLOADS_MAX || options->batch_bytes > BYTES_MAX) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "a batch is above %u payloads or %zu bytes",
                         PAYLOADS_MAX, BYTES_MAX);
    }
    if (!plci_durability_out(options->durability, &durability)) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "%d is no durability",
                         (int)options->durability);
    }
    plc_appender *a = create(client, call, options);
    if (a != NULL && !start(a)) {
        destroy(a);
        a = NULL;
    }
    if (a == NULL) {
        return plci_fail(error, PLC_NO_MEMORY, "no memory, or no thread, for an appender");
    }
    *appender = a;
    return plci_ok(error);
}

/* Under the lock: the batch that takes the payload next, once there is one; NULL: no memory. */
static struct plci_batch *wait_for_batch(plc_appender *a, size_t length)
{
    for (;;) {
        struct plci_batch *batch = a->newest;
        if (batch != NULL && !batch->sent && plci_batch_fits(batch, length)) {
            return batch;
        }
        if (a->n_batches <= a->options.window) {
            size_t capacity = length > a->options.batch_bytes ? length : a->options.batch_bytes;
            batch = plci_batch_create(a->options.batch_payloads, capacity);
            if (batch != NULL) {
                push(a, batch);
            }
            return batch;
        }
        pthread_cond_wait(&a->changed, &a->lock);
    }
}

enum plc_code plc_appender_append(plc_appender *a, const void *payload, size_t length, void *tag,
                                  struct plc_error *error)
{
    enum plc_code code = PLC_OK;

    if (payload == NULL && length > 0) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the payload is NULL");
    }
    if (length > PLC_PAYLOAD_LIMIT) {
        return plci_fail(error, PLC_PAYLOAD_TOO_LARGE, "a payload of %zu bytes is above %u", length,
                         PLC_PAYLOAD_LIMIT);
    }
    pthread_mutex_lock(&a->lock);
    if (in_callback(a)) {
        code = plci_fail(error, PLC_INVALID_ARGUMENT, "called from the appender's own callback");
    } else {
        struct plci_batch *batch = wait_for_batch(a, length);
        if (batch == NULL) {
            code = plci_fail(error, PLC_NO_MEMORY, "no memory for a batch");
        } else {
            plci_batch_add(batch, payload, length, tag);
            a->n_appended++;
            pthread_cond_broadcast(&a->changed);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return code == PLC_OK ? plci_ok(error) : code;
}

enum plc_code plc_appender_flush(plc_appender *a, struct plc_error *error)
{
    pthread_mutex_lock(&a->lock);
    if (in_callback(a)) {
        pthread_mutex_unlock(&a->lock);
        return plci_fail(error, PLC_INVALID_ARGUMENT, "called from the appender's own callback");
    }
    uint64_t all = a->n_appended;
    while (a->n_told < all) {
        pthread_cond_wait(&a->changed, &a->lock);
    }
    enum plc_code failure = a->first_failure;
    a->first_failure = PLC_OK;
    pthread_mutex_unlock(&a->lock);
    return failure == PLC_OK ? plci_ok(error)
                             : plci_fail(error, failure, "%s", plc_strerror((int)failure));
}

void plc_appender_close(plc_appender *a)
{
    if (a == NULL) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->sender, NULL);
    pthread_join(a->watchdog, NULL);
    destroy(a);
}
