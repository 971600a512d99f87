#include "state.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "error.h"
#include "sys.h"

#define MAGIC   "PLSSTATE"
#define VERSION 1u
#define HEAD    16u /* magic, version, length */
#define FIXED   64u /* the body without the owner's text and the open seals */

enum { DELETED = 1, CLEAN = 2, SEALED = 4, COMPACTED = 8, HAS_DONE = 16 };

static uint32_t flags_of(const struct plsi_state *s)
{
    return (s->deleted ? DELETED : 0u) | (s->clean ? CLEAN : 0u) | (s->sealed ? SEALED : 0u) |
           (s->compacted ? COMPACTED : 0u) | (s->has_done ? HAS_DONE : 0u);
}

static size_t encode(const struct plsi_state *s, uint8_t *file)
{
    size_t owner = strlen(s->owner);
    struct plsi_bytes c = {file};
    plsi_put_bytes(&c, MAGIC, 8);
    plsi_put32(&c, VERSION);
    plsi_put32(&c, (uint32_t)(FIXED + owner + (size_t)4 * s->n_open));
    plsi_put32(&c, flags_of(s));
    plsi_put64(&c, s->next_id);
    plsi_put64(&c, s->epoch);
    plsi_put_bytes(&c, s->incarnation, sizeof s->incarnation);
    plsi_put32(&c, s->seal.sealed_id);
    plsi_put32(&c, s->seal.compaction_id);
    plsi_put32(&c, s->clean_id);
    plsi_put64(&c, s->clean_bytes);
    plsi_put32(&c, s->done_id);
    plsi_put16(&c, (uint16_t)owner);
    plsi_put16(&c, s->n_open);
    plsi_put_bytes(&c, s->owner, owner);
    for (uint16_t i = 0; i < s->n_open; i++) {
        plsi_put32(&c, s->open[i]);
    }
    size_t length = (size_t)(c.at - file);
    plsi_put32(&c, plsi_crc32c(0, file, length));
    return length + 4;
}

/* False where the body is not whole or does not fit together. */
static bool decode(struct plsi_state *s, uint8_t *file, size_t length)
{
    if (length < HEAD + FIXED + 4) {
        return false;
    }
    struct plsi_bytes end = {file + length - 4};
    if (plsi_get32(&end) != plsi_crc32c(0, file, length - 4)) {
        return false;
    }
    struct plsi_bytes c = {file + 12};
    if (plsi_get32(&c) != length - HEAD - 4) {
        return false;
    }
    uint32_t flags = plsi_get32(&c);
    *s = (struct plsi_state){
        .deleted = flags & DELETED,
        .clean = flags & CLEAN,
        .sealed = flags & SEALED,
        .compacted = flags & COMPACTED,
        .has_done = flags & HAS_DONE,
    };
    s->next_id = plsi_get64(&c);
    s->epoch = plsi_get64(&c);
    plsi_get_bytes(&c, s->incarnation, sizeof s->incarnation);
    s->seal.sealed_id = plsi_get32(&c);
    s->seal.compaction_id = plsi_get32(&c);
    s->clean_id = plsi_get32(&c);
    s->clean_bytes = plsi_get64(&c);
    s->done_id = plsi_get32(&c);
    uint16_t owner = plsi_get16(&c);
    s->n_open = plsi_get16(&c);
    if (owner > PLS_OWNER_MAX || s->n_open > PLSI_OPEN_SEALS_MAX ||
        length != HEAD + FIXED + owner + (size_t)4 * s->n_open + 4 ||
        s->next_id > (uint64_t)UINT32_MAX + 1) {
        return false;
    }
    plsi_get_bytes(&c, s->owner, owner);
    for (uint16_t i = 0; i < s->n_open; i++) {
        s->open[i] = plsi_get32(&c);
    }
    return true;
}

enum pls_code plsi_state_read(struct plsi_backend *backend, struct plsi_state *state, bool *found,
                              struct pls_error *error)
{
    uint8_t file[PLSI_META_MAX];
    size_t length;
    enum pls_code code =
        backend->ops->get_meta(backend, PLSI_STATE_FILE, file, &length, found, error);
    if (code != PLS_OK || !*found) {
        return code;
    }
    if (length < HEAD || memcmp(file, MAGIC, 8) != 0) {
        return plsi_fail(error, PLS_BAD_FORMAT, PLSI_STATE_FILE " is damaged");
    }
    struct plsi_bytes c = {file + 8};
    uint32_t version = plsi_get32(&c);
    if (version != VERSION) {
        return plsi_fail(error, PLS_BAD_FORMAT,
                         PLSI_STATE_FILE " has version %u, this program knows version %u", version,
                         VERSION);
    }
    if (!decode(state, file, length)) {
        return plsi_fail(error, PLS_BAD_FORMAT, PLSI_STATE_FILE " is damaged");
    }
    return PLS_OK;
}

enum pls_code plsi_state_write(struct plsi_backend *backend, const struct plsi_state *state,
                               struct pls_error *error)
{
    uint8_t file[PLSI_META_MAX];
    size_t length = encode(state, file);
    return backend->ops->put_meta(backend, PLSI_STATE_FILE, file, length, error);
}

enum pls_code plsi_state_init(struct plsi_state *state, struct pls_error *error)
{
    *state = (struct plsi_state){0};
    int n = plsi_sys_random(state->incarnation, sizeof state->incarnation);
    if (n != (int)sizeof state->incarnation) {
        return plsi_fail(error, PLS_IO, "no random numbers for the incarnation");
    }
    return PLS_OK;
}

void plsi_state_open_seal(struct plsi_state *state)
{
    if (state->n_open == PLSI_OPEN_SEALS_MAX) {
        memmove(state->open, state->open + 1, sizeof state->open - sizeof *state->open);
        state->n_open--;
    }
    state->open[state->n_open++] = state->seal.sealed_id;
}

void plsi_state_close_seals(struct plsi_state *state, uint32_t sealed_id)
{
    uint16_t closed = 0;
    while (closed < state->n_open && state->open[closed] <= sealed_id) {
        closed++;
    }
    state->n_open = (uint16_t)(state->n_open - closed);
    memmove(state->open, state->open + closed, state->n_open * sizeof *state->open);
    state->compacted = true;
}

bool plsi_state_seal_is_open(const struct plsi_state *state, const struct pls_seal *seal)
{
    if (seal->compaction_id != (uint64_t)seal->sealed_id + 1) {
        return false;
    }
    for (uint16_t i = 0; i < state->n_open; i++) {
        if (state->open[i] == seal->sealed_id) {
            return true;
        }
    }
    return false;
}
