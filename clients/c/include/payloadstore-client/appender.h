/*
 * Appending under load: payloads are gathered into batches, and batches are on their way at once.
 *
 * A batch goes off as soon as the window lets it: alone where there is little to do, gathering
 * while others are in flight. Each payload has exactly one result, in the order of the appends.
 *
 * Threads. Any number may append; the order is then theirs. Results come on threads of the
 * appender, one at a time.
 */
#ifndef PAYLOADSTORE_CLIENT_APPENDER_H
#define PAYLOADSTORE_CLIENT_APPENDER_H

#include "payloadstore-client/client.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plc_appender plc_appender;

struct plc_appended {
    void *tag; /* as plc_appender_append was given it */
    enum plc_code code;
    struct plc_ref ref;            /* on PLC_OK */
    const struct plc_error *error; /* never NULL; until the callback returns */
};

struct plc_appender_options {
    /*
     * The result of one payload. Must not block for long: the answers behind it wait. The
     * appender's own functions refuse to be called from it. Required.
     */
    void (*appended)(void *arg, const struct plc_appended *appended);
    void *arg;
    enum plc_durability durability;
    unsigned batch_payloads; /* at most, 4096 being most; 0: 64 */
    size_t batch_bytes; /* at most, but for one larger payload; 1,000,000 being most; 0: 256 KiB */
    unsigned window;    /* batches without an answer; 0: 8 */
    bool resend;        /* send a batch again whose answer was lost: it may be stored twice, and
                           the copy whose ref was lost is garbage */
};

/*
 * `call` as ever; its deadline_ms, or the client's append_deadline_ms, is how old a batch may
 * become without an answer. The client must outlive the appender. Errors: INVALID_ARGUMENT,
 * NO_MEMORY.
 */
PLC_API enum plc_code plc_appender_open(plc_client *client, const struct plc_call *call,
                                        const struct plc_appender_options *options,
                                        plc_appender **appender, struct plc_error *error);

/*
 * Takes a copy of the payload, and waits while the window and the next batch are full. On PLC_OK a
 * result follows, else none does: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE (no message can hold it).
 *
 * Results: those of plc_append, for all payloads of a batch alike: it is stored as a whole or not
 * at all. ANSWER_LOST: the connection broke, or time ran out, and whether the batch was stored is
 * not known. It is sent again only with `resend`; error->status says what became of the stream. The
 * batches behind it go over a new stream. After any other code there is no copy of it that could be
 * read: UNAVAILABLE and DEADLINE_EXCEEDED say, but for a disk's failure, that no server was
 * reached and nothing was sent. With `resend` or wait_for_server they come at the deadline.
 */
PLC_API enum plc_code plc_appender_append(plc_appender *appender, const void *payload,
                                          size_t length, void *tag, struct plc_error *error);

/*
 * Waits until all that was appended before has had its result. Returns PLC_OK, or the first code of
 * a payload that failed since the last flush.
 */
PLC_API enum plc_code plc_appender_flush(plc_appender *appender, struct plc_error *error);

/* Flushes, and frees it. No other thread may use it any more. Takes NULL. */
PLC_API void plc_appender_close(plc_appender *appender);

#ifdef __cplusplus
}
#endif

#endif
