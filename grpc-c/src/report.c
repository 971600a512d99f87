/* Calls that their handlers have not finished, for the log. */
#include <stdio.h>

#include <grpc/support/alloc.h>

#include "call.h"

/* One of the server's, as a line; under its lock. */
static bool describe(struct gci_call *call, const grpc_c_server *server, int64_t least_ms,
                     char *line, size_t size)
{
    int64_t age = gci_coarse_ms() - call->arrived_ms;
    char *peer;

    if (call->queue->server != server || call->state != GCI_CALL_OPEN || age < least_ms) {
        return false;
    }
    peer = gci_call_peer(call);
    (void)snprintf(line, size, "not finished by its handler: %s of %s%s, for %lld ms",
                   call->slot->path, peer != NULL ? peer : "?",
                   call->cancelled ? ", cancelled" : "", (long long)age);
    gpr_free(peer);
    return true;
}

unsigned grpc_c_server_report(grpc_c_server *server, unsigned least_ms)
{
    unsigned n = 0;
    bool end = false;

    for (uint32_t i = 0; !end; i++) {
        struct gci_slot *slot = gci_slot_visit(i, &end);
        char line[512];
        bool found;
        if (slot == NULL) {
            continue;
        }
        found = describe(slot->call, server, least_ms, line, sizeof(line));
        pthread_mutex_unlock(&slot->lock);
        if (found) {
            gci_log(GRPC_C_LOG_ERROR, "%s", line);
            n++;
        }
    }
    return n;
}
