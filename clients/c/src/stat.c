#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* False where memory has run out. */
static bool take(struct plc_stat *stat, const Payloadstore__V1__StatResponse *response)
{
    size_t n = response->n_segments;
    *stat = (struct plc_stat){
        .store = strdup(response->store),
        .disk_usage_bytes = response->disk_usage_bytes,
        .records = response->records,
        .active_id = response->active_id,
        .epoch = response->epoch,
        .owner = strdup(response->owner),
        .incarnation = strdup(response->incarnation),
        .appends_stopped = response->appends_stopped,
        .free_bytes = response->free_bytes,
        .max_payload_bytes = response->max_payload_bytes,
        .segments = calloc(n > 0 ? n : 1, sizeof *stat->segments),
    };
    if (response->last_seal != NULL) {
        stat->sealed = true;
        stat->last_seal =
            (struct plc_seal){response->last_seal->sealed_id, response->last_seal->compaction_id};
    }
    if (stat->store == NULL || stat->owner == NULL || stat->incarnation == NULL ||
        stat->segments == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const Payloadstore__V1__SegmentStat *segment = response->segments[i];
        stat->segments[i] = (struct plc_segment_stat){segment->file_id, segment->active,
                                                      segment->bytes, segment->records};
    }
    stat->n_segments = n;
    return true;
}

enum plc_code plc_stat(plc_client *client, const struct plc_call *call, struct plc_stat *stat,
                       struct plc_error *error)
{
    const struct grpc_c_call_options options = plci_options(client, call, client->deadline_ms);
    Payloadstore__V1__StatRequest request = PAYLOADSTORE__V1__STAT_REQUEST__INIT;
    struct grpc_c_result result = {0};
    bool taken = true;

    if (stat == NULL) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "the stat is NULL");
    }
    request.store = (char *)plci_store(client, call);
    Payloadstore__V1__StatResponse *response =
        payloadstore__v1__payload_store__stat__sync(client->channel, &request, &options, &result);
    if (response != NULL) {
        taken = take(stat, response);
        payloadstore__v1__stat_response__free_unpacked(response, NULL);
    }
    enum plc_code code = plci_end(error, &result);
    if (!taken) {
        plc_stat_fini(stat);
        return plci_fail(error, PLC_NO_MEMORY, "no memory for the answer");
    }
    return code;
}

void plc_stat_fini(struct plc_stat *stat)
{
    free(stat->store);
    free(stat->owner);
    free(stat->incarnation);
    free(stat->segments);
    *stat = (struct plc_stat){0};
}
