/*
 * A poller's round: the event it waited for, and those that are there by then.
 *
 * The answers of a round go out at its end. Core writes to the socket for each of them, and each
 * write may wake the client; so where several go to one connection, whose socket is known
 * (listener.h), the kernel holds them back until the last one is there (TCP_CORK). Before, the
 * program has its say (grpc_c_server_on_round_end): what it does for all calls of a round at once
 * answers them in the same round.
 *
 * A round is short: a few dozen events, a quarter of that in answers, as many bytes of answers as
 * stay in a processor's cache, or a millisecond, whichever comes first.
 * More at once would be cheaper still, but the client would have nothing to do meanwhile.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#include <grpc/support/alloc.h>

#include "call.h"
#include "listener.h"
#include "server.h"

#define ANSWERS_ENOUGH 16u
#define BYTES_ENOUGH   (256u << 10)     /* of answers */
#define LARGE          (32u << 10)      /* bytes of an answer that fills segments by itself */
#define ROUND_NS       INT64_C(1000000) /* after which no further event is taken */
#define CLOCK_EACH     4u               /* events */

/* The queue whose round this thread is in. */
static _Thread_local struct gci_queue *in_round;

static size_t answer_bytes(const struct gci_call *call)
{
    return call->final_buffer != NULL ? grpc_byte_buffer_length(call->final_buffer) : 0;
}

bool gci_round_postpone(struct gci_call *call)
{
    struct gci_queue *queue = call->queue;

    if (in_round != queue || queue->n_answered == GCI_ANSWERED_MAX) {
        return false;
    }
    queue->answered[queue->n_answered++] = call;
    queue->answered_bytes += answer_bytes(call);
    return true;
}

bool gci_round_watch_later(struct gci_call *call)
{
    struct gci_queue *queue = call->queue;

    if (in_round != queue || queue->server->pool != NULL || queue->n_came == GCI_EVENTS_MAX) {
        return false;
    }
    pthread_mutex_lock(&call->slot->lock);
    call->in_flight++; /* so that it is there at the end */
    pthread_mutex_unlock(&call->slot->lock);
    queue->came[queue->n_came++] = call;
    return true;
}

static void watch_open_ones(struct gci_queue *queue)
{
    for (unsigned i = 0; i < queue->n_came; i++) {
        gci_call_watch_close(queue->came[i]);
        gci_call_event_done(queue->came[i]);
    }
    queue->n_came = 0;
}

/* -- sockets ---------------------------------------------------------------------------------- */

/* The sockets of a round's answers, each once. */
struct sockets {
    struct {
        int fd;
        bool several; /* answers that are held back for each other */
    } list[GCI_ANSWERED_MAX];
    unsigned n;
    bool unknown; /* there are others */
};

/* A large answer is not held back: its rest would wait, and save no segment. */
static void add_socket(struct sockets *sockets, const struct gci_call *call)
{
    char *peer = grpc_call_get_peer(call->core);
    int fd = gci_listener_fd(peer);
    bool large = answer_bytes(call) >= LARGE;

    gpr_free(peer);
    if (fd < 0) {
        sockets->unknown = true;
        return;
    }
    for (unsigned i = 0; i < sockets->n; i++) {
        if (sockets->list[i].fd == fd) {
            sockets->list[i].several = sockets->list[i].several || !large;
            return;
        }
    }
    sockets->list[sockets->n].fd = fd;
    sockets->list[sockets->n++].several = false;
}

/* A call keeps its connection's socket open. */
static void cork(const struct sockets *sockets, int on)
{
    for (unsigned i = 0; i < sockets->n; i++) {
        if (sockets->list[i].several) {
            (void)setsockopt(sockets->list[i].fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
        }
    }
}

static void send_answer(struct gci_call *call)
{
    pthread_mutex_lock(&call->slot->lock);
    gci_call_send_final(call);
    pthread_mutex_unlock(&call->slot->lock);
}

/* Whether several connections are at work: in one round, or one after the other. */
static void note_sockets(struct gci_queue *queue, const struct sockets *sockets)
{
    if (sockets->unknown || sockets->n > 1 ||
        (sockets->n == 1 && sockets->list[0].fd != queue->last_fd)) {
        queue->shared = true;
    }
    if (sockets->n > 0) {
        queue->last_fd = sockets->list[0].fd;
    }
}

static void send_answers(struct gci_queue *queue)
{
    struct sockets sockets;
    unsigned n = queue->n_answered;

    sockets.n = 0;
    sockets.unknown = false;
    for (unsigned i = 0; n > 1 && i < n; i++) {
        add_socket(&sockets, queue->answered[i]);
    }
    cork(&sockets, 1);
    for (unsigned i = 0; i < n; i++) {
        send_answer(queue->answered[i]);
    }
    cork(&sockets, 0);
    queue->answers += n;
    queue->answer_bytes += queue->answered_bytes;
    note_sockets(queue, &sockets);
    queue->n_answered = 0;
    queue->answered_bytes = 0;
}

/* -- rounds ----------------------------------------------------------------------------------- */

static bool is_over(const struct gci_queue *queue, unsigned events, int64_t end)
{
    return events == GCI_EVENTS_MAX || queue->n_answered >= ANSWERS_ENOUGH ||
           queue->answered_bytes >= BYTES_ENOUGH ||
           (events % CLOCK_EACH == 0 && gci_clock_ns(CLOCK_MONOTONIC) >= end);
}

/* Those that are there by now, as far as a round goes. */
static enum gci_taken take_more(struct gci_queue *queue)
{
    int64_t end = gci_clock_ns(CLOCK_MONOTONIC) + ROUND_NS;
    enum gci_taken taken = GCI_TAKEN;

    for (unsigned i = 1; taken == GCI_TAKEN && !is_over(queue, i, end); i++) {
        taken = gci_poller_take(&queue->poller, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    }
    return taken;
}

bool gci_round_take(struct gci_poller *poller)
{
    struct gci_queue *queue = gci_container_of(poller, struct gci_queue, poller);
    const struct gci_round_end *end = &queue->server->round_end;
    enum gci_taken taken;

    if (gci_queue_helps(queue)) {
        gci_help_sleep(queue);
    } else if (queue->server->options.pollers > 1) {
        gci_help_look(queue);
    }
    in_round = queue;
    taken = gci_poller_take(poller, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    if (taken == GCI_TAKEN) {
        taken = take_more(queue);
    }
    if (end->run != NULL) {
        end->run(end->user);
    }
    in_round = NULL;
    if (queue->n_answered > 0) {
        send_answers(queue);
    }
    watch_open_ones(queue);
    return taken != GCI_QUEUE_SHUT;
}
