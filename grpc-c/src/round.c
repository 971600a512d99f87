/*
 * A poller's round: the event it waited for, and those that are there by then.
 *
 * The answers of a round go out at its end. Core writes to the socket for each of them, and each
 * write may wake the client; so where several go to one connection, whose socket is known
 * (listener.h), the kernel holds them back until the last one is there (TCP_CORK). Before, the
 * program has its say (grpc_c_server_on_round_end): what it does for all calls of a round at once
 * answers them in the same round.
 *
 * A round is short: a few dozen events, or a quarter of that in answers, whichever comes first.
 * More at once would be cheaper still, but the client would have nothing to do meanwhile.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <grpc/support/alloc.h>

#include "call.h"
#include "listener.h"
#include "server.h"

#define EVENTS_MAX     64u
#define ANSWERS_ENOUGH 16u

/* The queue whose round this thread is in. */
static _Thread_local struct gci_queue *in_round;

bool gci_round_postpone(struct gci_call *call)
{
    struct gci_queue *queue = call->queue;

    if (in_round != queue || queue->n_answered == GCI_ANSWERED_MAX) {
        return false;
    }
    queue->answered[queue->n_answered++] = call;
    return true;
}

/* -- sockets ---------------------------------------------------------------------------------- */

/* The sockets of a round's answers, each once. */
struct sockets {
    struct {
        int fd;
        bool several; /* answers */
    } list[GCI_ANSWERED_MAX];
    unsigned n;
};

static void add_socket(struct sockets *sockets, const struct gci_call *call)
{
    char *peer = grpc_call_get_peer(call->core);
    int fd = gci_listener_fd(peer);

    gpr_free(peer);
    if (fd < 0) {
        return;
    }
    for (unsigned i = 0; i < sockets->n; i++) {
        if (sockets->list[i].fd == fd) {
            sockets->list[i].several = true;
            return;
        }
    }
    sockets->list[sockets->n].fd = fd;
    sockets->list[sockets->n++].several = false;
}

/*
 * Nothing is lost where the socket is closed meanwhile, or its number another connection's: that
 * one is held back for a moment.
 */
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

static void send_answers(struct gci_queue *queue)
{
    struct sockets sockets;
    unsigned n = queue->n_answered;

    sockets.n = 0;
    for (unsigned i = 0; n > 1 && i < n; i++) {
        add_socket(&sockets, queue->answered[i]);
    }
    cork(&sockets, 1);
    for (unsigned i = 0; i < n; i++) {
        send_answer(queue->answered[i]);
    }
    cork(&sockets, 0);
    queue->n_answered = 0;
}

/* -- rounds ----------------------------------------------------------------------------------- */

bool gci_round_take(struct gci_poller *poller)
{
    struct gci_queue *queue = gci_container_of(poller, struct gci_queue, poller);
    const struct gci_round_end *end = &queue->server->round_end;
    enum gci_taken taken;

    in_round = queue;
    taken = gci_poller_take(poller, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    for (unsigned i = 1; taken == GCI_TAKEN && i < EVENTS_MAX && queue->n_answered < ANSWERS_ENOUGH;
         i++) {
        taken = gci_poller_take(poller, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    }
    if (end->run != NULL) {
        end->run(end->user);
    }
    in_round = NULL;
    if (queue->n_answered > 0) {
        send_answers(queue);
    }
    return taken != GCI_QUEUE_SHUT;
}
