/*
 * What a store knows beside its payloads: the file `store.state`, replaced whole in one atomic,
 * durable step.
 *
 * FORMAT.md has it byte by byte, and what a crash can leave of it.
 */
#ifndef PLSI_STATE_H
#define PLSI_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "payloadstore/payloadstore.h"

#define PLSI_STATE_FILE     "store.state"
#define PLSI_OPEN_SEALS_MAX 128

struct plsi_state {
    bool deleted;
    bool clean; /* nothing was written since the last close */
    bool sealed;
    bool compacted;   /* some compaction has committed since `seal` was given out */
    uint64_t next_id; /* up to 2^32: then none is left */
    uint64_t epoch;
    uint8_t incarnation[16];
    struct pls_seal seal;
    bool has_done; /* done_id is set */
    uint32_t done_id;
    uint32_t clean_id;
    uint64_t clean_bytes;
    char owner[PLS_OWNER_MAX + 1];
    /* Sealed ids of the handles that may still be compacted; of more than fit the oldest are
     * dropped. */
    uint16_t n_open;
    uint32_t open[PLSI_OPEN_SEALS_MAX];
};

/* *found is false where there is none. BAD_FORMAT: damaged, or of a version unknown here. */
enum pls_code plsi_state_read(struct plsi_backend *backend, struct plsi_state *state, bool *found,
                              struct pls_error *error);
enum pls_code plsi_state_write(struct plsi_backend *backend, const struct plsi_state *state,
                               struct pls_error *error);

/* Adds the seal just given out to the open ones. */
void plsi_state_open_seal(struct plsi_state *state);
/* A compaction of `sealed_id` has committed: neither it nor an older one may be compacted again. */
void plsi_state_close_seals(struct plsi_state *state, uint32_t sealed_id);
bool plsi_state_seal_is_open(const struct plsi_state *state, const struct pls_seal *seal);

/* A state for a store just made, with an incarnation of its own. */
enum pls_code plsi_state_init(struct plsi_state *state, struct pls_error *error);

#endif
