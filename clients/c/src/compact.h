/* What compact.c (seal, try, try again) and compact_try.c (one stream) share. */
#ifndef CLIENTS_C_SRC_COMPACT_H
#define CLIENTS_C_SRC_COMPACT_H

#include "internal.h"
#include "payloadstore-client/compact.h"

struct plci_compaction {
    plc_client *client;
    const struct plc_call *call;
    const struct plc_compact_options *options;
    const struct plc_compact_callbacks *callbacks;
    struct plc_error *error;
    struct plc_seal seal;
    uint64_t carry_recent_ms;
    int64_t end_ms; /* by plci_now_ms; 0: no deadline */
    bool
        commit_sent; /* perhaps: some try's commit was on its way, and nobody has denied it since */
    bool got_through;  /* the last try reached a server */
    bool damaged_told; /* all of them */
    struct plc_compact_summary summary;
};

/* One stream: with the list, or for the map of a compaction that may have committed. */
enum plc_code plci_compact_try(struct plci_compaction *c, bool map_only);

/* For a call from now on; timeout_ms is below 0 where the deadline has passed. */
struct grpc_c_call_options plci_compact_call_options(const struct plci_compaction *c);

#endif
