/*
 * A compaction through lost connections.
 *
 *   what is known                     what is tried
 *   no commit has been sent           the list
 *   a commit may have arrived         the map alone; where the server says that nothing has
 *                                     committed, the list
 *
 * All with one seal handle, which makes the second time harmless: a server that has committed gives
 * the first answer again.
 */
#include <time.h>

#include "compact.h"

#define FIRST_PAUSE_MS   20
#define LONGEST_PAUSE_MS 1000
#define LOSSES_MAX       8 /* a compaction that kills its server must not do so for ever */

/* How long to go on trying. */
struct patience {
    int64_t retry_ms;
    int64_t since_ms; /* when the server was lost; 0: it has not been */
    int64_t pause_ms;
    unsigned losses; /* of servers that had been reached */
};

struct grpc_c_call_options plci_compact_call_options(const struct plci_compaction *c)
{
    int64_t left_ms = c->end_ms - plci_now_ms();
    return (struct grpc_c_call_options){
        .timeout_ms = c->end_ms == 0 ? 0 : (left_ms != 0 ? left_ms : -1),
        .wait_for_ready = c->client->wait_for_server,
    };
}

static void pause_for(int64_t ms)
{
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

/* Waits before the next try; false where there shall be none. */
static bool wait_for_server(struct patience *p, const struct plci_compaction *c, bool reached)
{
    int64_t now_ms = plci_now_ms();

    if (p->since_ms == 0 || reached) {
        p->since_ms = now_ms;
        p->pause_ms = FIRST_PAUSE_MS;
        p->losses += reached ? 1 : 0;
    }
    if (now_ms + p->pause_ms > p->since_ms + p->retry_ms || p->losses > LOSSES_MAX ||
        (c->end_ms != 0 && now_ms + p->pause_ms > c->end_ms)) {
        return false;
    }
    pause_for(p->pause_ms);
    p->pause_ms = p->pause_ms * 2 < LONGEST_PAUSE_MS ? p->pause_ms * 2 : LONGEST_PAUSE_MS;
    return true;
}

/* The connection broke, or the server stopped; core says UNKNOWN of some streams that were reset.
 */
static bool is_loss(enum plc_code code)
{
    return code == PLC_UNAVAILABLE || code == PLC_CANCELLED || code == PLC_UNKNOWN;
}

/* -- seal ---------------------------------------------------------------------------------------
 */

static enum plc_code seal(struct plci_compaction *c, struct patience *p)
{
    enum plc_code code;

    do {
        struct plc_call call = c->call != NULL ? *c->call : (struct plc_call){0};
        if (c->end_ms != 0) {
            int64_t left_ms = c->end_ms - plci_now_ms();
            call.deadline_ms = left_ms < c->client->deadline_ms ? left_ms : c->client->deadline_ms;
            call.deadline_ms = call.deadline_ms != 0 ? call.deadline_ms : -1;
        }
        code = plc_seal_store(c->client, &call, &c->seal, c->error);
    } while (is_loss(code) && wait_for_server(p, c, false));
    return code;
}

/* What may have been stored before the Seal and not been told to who lists the live refs. */
static uint64_t recent_ms(const struct plci_compaction *c, int64_t unanswered_since_ms)
{
    uint64_t recent = c->options->carry_recent_ms;
    uint64_t deadline = (uint64_t)c->client->append_deadline_ms;
    uint64_t age = (uint64_t)(plci_now_ms() - unanswered_since_ms) + 1;

    if (c->options->carry_nothing) {
        return 0;
    }
    recent = recent > deadline ? recent : deadline;
    return recent > age ? recent : age;
}

/* -- tries --------------------------------------------------------------------------------------
 */

static enum plc_code compact(struct plci_compaction *c, struct patience *p)
{
    bool lost = false;   /* a try, whose end on the server we do not know */
    bool denied = false; /* the server had not committed when asked last */

    for (;;) {
        bool map_only = c->commit_sent && !denied;
        enum plc_code code = plci_compact_try(c, map_only);
        c->summary.tries++;
        if (map_only && code == PLC_FAILED_PRECONDITION) {
            denied = true;
            continue;
        }
        /* Our own earlier stream, of whose death the server does not know yet, or which is in its
         * commit step. */
        bool ours = lost && code == PLC_COMPACTION_RUNNING;
        /* That one committed after all, with its list: the newer one may differ where refs were
         * damaged. */
        bool late = lost && !map_only && code == PLC_REF_NOT_KEPT;
        if (!is_loss(code) && !ours && !late) {
            return code;
        }
        lost = true;
        denied = false;
        if (!wait_for_server(p, c, is_loss(code) && c->got_through)) {
            return code;
        }
    }
}

static enum plc_code check(const struct plc_call *call, const struct plc_compact_options *options,
                           const struct plc_compact_callbacks *callbacks, struct plc_error *error)
{
    if (callbacks == NULL || callbacks->live == NULL ||
        (callbacks->relocated == NULL && !options->dry_run)) {
        return plci_fail(error, PLC_INVALID_ARGUMENT, "a callback is missing");
    }
    if (call != NULL && call->deadline_ms < 0) {
        return plci_fail(error, PLC_DEADLINE_EXCEEDED, "the deadline has passed");
    }
    return PLC_OK;
}

enum plc_code plc_compact(plc_client *client, const struct plc_call *call,
                          const struct plc_compact_options *options,
                          const struct plc_compact_callbacks *callbacks,
                          struct plc_compact_summary *summary, struct plc_error *error)
{
    static const struct plc_compact_options defaults;
    struct plci_compaction c = {.client = client,
                                .call = call,
                                .options = options != NULL ? options : &defaults,
                                .callbacks = callbacks,
                                .error = error};
    struct patience p = {.retry_ms =
                             c.options->retry_ms != 0 ? c.options->retry_ms : PLC_RETRY_DEFAULT_MS};
    enum plc_code code = check(call, c.options, callbacks, error);

    if (code != PLC_OK) {
        return code;
    }
    c.end_ms = call != NULL && call->deadline_ms != 0 ? plci_now_ms() + call->deadline_ms : 0;
    int64_t unanswered_since_ms =
        plci_unanswered_since(client); /* before the Seal: nothing slips */
    code = seal(&c, &p);
    if (code != PLC_OK) {
        return code;
    }
    p = (struct patience){.retry_ms = p.retry_ms};
    c.carry_recent_ms = recent_ms(&c, unanswered_since_ms);
    code = compact(&c, &p);
    if (code == PLC_OK && summary != NULL) {
        *summary = c.summary;
        summary->seal = c.seal;
        summary->damaged_incomplete = c.options->keep_damaged && !c.damaged_told;
    }
    return code;
}
