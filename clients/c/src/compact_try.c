/* One CompactSealed stream: the request out, the answer in. */
#include <stdlib.h>

#include "compact.h"
#include "google/protobuf/wrappers.pb-c.h"

/* Live refs: so many that a server looks at them in some hundred microseconds. */
#define PER_MESSAGE 1024u
#define AT_ONCE     256u /* relocations told at a time */

/* A message's live refs; on the heap, some hundred KiB. */
struct live {
    struct plc_ref refs[PER_MESSAGE];
    Payloadstore__V1__PayloadRef messages[PER_MESSAGE];
    Payloadstore__V1__PayloadRef *pointers[PER_MESSAGE];
};

/* -- the request --------------------------------------------------------------------------------
 */

static bool write_message(grpc_c_stream *stream,
                          const Payloadstore__V1__CompactSealedRequest *request)
{
    return payloadstore__v1__payload_store__compact_sealed__write(stream, request) == 0;
}

static bool send_first(struct plci_compaction *c, grpc_c_stream *stream, bool map_only)
{
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    Payloadstore__V1__SealHandle seal = PAYLOADSTORE__V1__SEAL_HANDLE__INIT;

    seal.sealed_id = c->seal.sealed_id;
    seal.compaction_id = c->seal.compaction_id;
    request.store = (char *)plci_store(c->client, c->call);
    request.seal = &seal;
    request.epoch = plci_epoch(c->call);
    if (map_only) {
        request.map_only = true;
        request.commit = true;
    } else {
        request.min_garbage_percent = c->options->min_garbage_percent;
        request.dry_run = c->options->dry_run;
        request.keep_damaged = c->options->keep_damaged;
        request.carry_recent_ms = c->carry_recent_ms;
    }
    return write_message(stream, &request);
}

static bool send_refs(grpc_c_stream *stream, struct live *live, size_t n)
{
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;

    for (size_t i = 0; i < n; i++) {
        plci_ref_out(&live->refs[i], &live->messages[i]);
        live->pointers[i] = &live->messages[i];
    }
    request.live = live->pointers;
    request.n_live = n;
    return write_message(stream, &request);
}

/* The number says to the server that no message was lost on the way. */
static bool send_commit(struct plci_compaction *c, grpc_c_stream *stream, uint64_t n_live)
{
    Payloadstore__V1__CompactSealedRequest request = PAYLOADSTORE__V1__COMPACT_SEALED_REQUEST__INIT;
    Google__Protobuf__UInt64Value expected = GOOGLE__PROTOBUF__UINT64_VALUE__INIT;

    expected.value = n_live;
    request.expected_live = &expected;
    request.commit = true;
    c->commit_sent = !c->options->dry_run;
    return write_message(stream, &request);
}

/*
 * The whole list. PLC_OK also where the server would not have it: the stream's end says why. Else
 * the caller's callbacks ended it.
 */
static enum plc_code send_list(struct plci_compaction *c, grpc_c_stream *stream, struct live *live)
{
    const struct plc_compact_callbacks *callbacks = c->callbacks;
    uint64_t n_live = 0;
    size_t n;

    if (callbacks->live_begin != NULL && !callbacks->live_begin(callbacks->arg, &c->seal)) {
        return plci_fail(c->error, PLC_STOPPED, "live_begin stopped the compaction");
    }
    while ((n = callbacks->live(callbacks->arg, live->refs, PER_MESSAGE)) > 0) {
        if (n == PLC_LIVE_STOP) {
            return plci_fail(c->error, PLC_STOPPED, "live stopped the compaction");
        }
        if (n > PER_MESSAGE) {
            return plci_fail(c->error, PLC_INVALID_ARGUMENT, "live gave %zu refs where %u fit", n,
                             PER_MESSAGE);
        }
        if (!send_refs(stream, live, n)) {
            return PLC_OK;
        }
        n_live += n;
    }
    (void)send_commit(c, stream, n_live);
    return PLC_OK;
}

static enum plc_code send(struct plci_compaction *c, grpc_c_stream *stream, bool map_only)
{
    enum plc_code code = PLC_OK;

    c->got_through = send_first(c, stream, map_only);
    if (c->got_through && !map_only) {
        struct live *live = malloc(sizeof *live);
        code = live != NULL ? send_list(c, stream, live)
                            : plci_fail(c->error, PLC_NO_MEMORY, "no memory for the live refs");
        free(live);
    }
    if (code == PLC_OK) {
        (void)grpc_c_stream_writes_done(stream);
    }
    return code;
}

/* -- the answer ---------------------------------------------------------------------------------
 */

static bool tell_relocations(struct plci_compaction *c,
                             const Payloadstore__V1__CompactSealedResponse *response)
{
    const struct plc_compact_callbacks *callbacks = c->callbacks;
    struct plc_relocation told[AT_ONCE];

    for (size_t i = 0; i < response->n_relocations;) {
        size_t n = 0;
        while (n < AT_ONCE && i < response->n_relocations) {
            const Payloadstore__V1__Relocation *relocation = response->relocations[i++];
            told[n++] = (struct plc_relocation){plci_ref_in(relocation->old_ref),
                                                plci_ref_in(relocation->new_ref)};
        }
        if (callbacks->relocated != NULL && !callbacks->relocated(callbacks->arg, told, n)) {
            return false;
        }
    }
    return true;
}

static void tell_progress(const struct plc_compact_callbacks *callbacks,
                          const Payloadstore__V1__CompactionProgress *progress)
{
    const struct plc_compact_progress told = {progress->records_done, progress->records_total,
                                              progress->bytes_done, progress->bytes_total};

    if (callbacks->progress != NULL) {
        callbacks->progress(callbacks->arg, &told);
    }
}

static void take_summary(struct plc_compact_summary *summary,
                         const Payloadstore__V1__CompactionSummary *answer)
{
    summary->live_records = answer->live_records;
    summary->relocated_records = answer->relocated_records;
    summary->relocated_bytes = answer->relocated_bytes;
    summary->kept_segments = answer->kept_segments;
    summary->deleted_segments = answer->deleted_segments;
    summary->reclaimed_bytes = answer->reclaimed_bytes;
    summary->short_of_room = answer->short_of_room;
}

/* False where the caller wants no more of it. */
static bool take(struct plci_compaction *c, const Payloadstore__V1__CompactSealedResponse *response,
                 bool map_only)
{
    if (response->progress != NULL) {
        tell_progress(c->callbacks, response->progress);
    }
    plci_tell_damaged(response->damaged, response->n_damaged, c->callbacks->damaged,
                      c->callbacks->arg);
    if (response->n_relocations > 0 || response->summary != NULL) {
        c->damaged_told = c->damaged_told || !map_only; /* they come first, and with the list */
    }
    if (response->summary != NULL) {
        take_summary(&c->summary, response->summary);
    }
    return tell_relocations(c, response);
}

/* To the end; *summed where the summary came. */
static enum plc_code receive(struct plci_compaction *c, grpc_c_stream *stream, bool map_only,
                             bool *summed)
{
    Payloadstore__V1__CompactSealedResponse *response;
    bool go_on = true;

    *summed = false;
    while (go_on &&
           (response = payloadstore__v1__payload_store__compact_sealed__read(stream)) != NULL) {
        go_on = take(c, response, map_only);
        *summed = response->summary != NULL;
        payloadstore__v1__compact_sealed_response__free_unpacked(response, NULL);
    }
    return go_on ? PLC_OK
                 : plci_fail(c->error, PLC_STOPPED,
                             "relocated stopped the telling; the compaction has committed");
}

enum plc_code plci_compact_try(struct plci_compaction *c, bool map_only)
{
    const struct grpc_c_call_options options = plci_compact_call_options(c);
    struct grpc_c_result result = {0};
    bool summed = false;

    c->got_through = false;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__compact_sealed__open(c->client->channel, &options);
    if (stream == NULL) {
        return plci_fail(c->error, PLC_NO_MEMORY, "no memory for the call");
    }
    enum plc_code code = send(c, stream, map_only);
    if (code == PLC_OK) {
        code = receive(c, stream, map_only, &summed);
    }
    if (code != PLC_OK) {
        grpc_c_stream_cancel(stream);
        grpc_c_stream_finish(stream, NULL);
        return code;
    }
    grpc_c_stream_finish(stream, &result);
    code = plci_end(c->error, &result);
    if (code == PLC_OK && !summed) {
        return plci_fail(c->error, PLC_INTERNAL, "the answer ended without a summary");
    }
    return code;
}
