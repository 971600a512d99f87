/* Whether a channel is connected, and the wait until it is. */
#include <grpc/support/time.h>

#include "client.h"

enum grpc_c_channel_state grpc_c_channel_state(grpc_c_channel *channel)
{
    switch (grpc_channel_check_connectivity_state(channel->core, 0)) {
    case GRPC_CHANNEL_READY:
        return GRPC_C_CHANNEL_READY;
    case GRPC_CHANNEL_CONNECTING:
        return GRPC_C_CHANNEL_CONNECTING;
    case GRPC_CHANNEL_IDLE:
        return GRPC_C_CHANNEL_IDLE;
    default:
        return GRPC_C_CHANNEL_FAILED;
    }
}

/* Lives on the caller's stack until its event. */
struct watch {
    struct gci_tag tag;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;  /* lock */
    bool moved; /* lock: to another state, in time */
};

static void on_change(struct gci_tag *tag, bool ok)
{
    struct watch *watch = gci_container_of(tag, struct watch, tag);

    pthread_mutex_lock(&watch->lock);
    watch->done = true;
    watch->moved = ok;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

/* False where the deadline has passed. */
static bool wait_for_change(grpc_c_channel *channel, grpc_connectivity_state from,
                            gpr_timespec deadline)
{
    struct watch watch = {.done = false};

    pthread_mutex_init(&watch.lock, NULL);
    pthread_cond_init(&watch.changed, NULL);
    gci_tag_init(&watch.tag, on_change);
    grpc_channel_watch_connectivity_state(channel->core, from, deadline, channel->poller.queue,
                                          gci_tag_arm(&watch.tag));
    pthread_mutex_lock(&watch.lock);
    while (!watch.done) {
        pthread_cond_wait(&watch.changed, &watch.lock);
    }
    pthread_mutex_unlock(&watch.lock);
    pthread_cond_destroy(&watch.changed);
    pthread_mutex_destroy(&watch.lock);
    return watch.moved;
}

int grpc_c_channel_wait_ready(grpc_c_channel *channel, int64_t timeout_ms)
{
    gpr_timespec deadline =
        timeout_ms == 0 ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : gci_deadline_in(timeout_ms);
    grpc_connectivity_state state;

    do {
        state = grpc_channel_check_connectivity_state(channel->core, 1);
    } while (state != GRPC_CHANNEL_READY && wait_for_change(channel, state, deadline));
    return state == GRPC_CHANNEL_READY ? 0 : -1;
}
