#include "ages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "error.h"
#include "log.h"

#define MAGIC     "PLS_AGES"
#define VERSION   1u
#define HEAD      28u
#define RUN_BYTES 20u

_Static_assert(HEAD + PLSI_AGES_MAX * RUN_BYTES + 4 <= PLSI_META_MAX, "the file is too long");

enum { HAS_STANDING = 1 };

static void file_name(uint32_t sealed_id, char name[PLSI_FILE_NAME])
{
    snprintf(name, PLSI_FILE_NAME, "seal_%04" PRIu32 ".ages", sealed_id);
}

bool plsi_ages_is_file(const char *name, uint32_t *sealed_id)
{
    char expected[PLSI_FILE_NAME];
    if (strncmp(name, "seal_", 5) != 0) {
        return false;
    }
    unsigned long long id = strtoull(name + 5, NULL, 10);
    *sealed_id = (uint32_t)id;
    file_name(*sealed_id, expected);
    size_t n = strlen(expected);
    return id <= UINT32_MAX && strncmp(name, expected, n) == 0 &&
           (name[n] == '\0' || strcmp(name + n, ".tmp") == 0);
}

/* -- writing ----------------------------------------------------------------------------------- */

/* What was there before this start is undated, until one compaction has seen it. */
static int64_t undated(const struct plsi_relocations *standing, uint32_t id)
{
    bool seen = standing != NULL && (id <= standing->seal.sealed_id ||
                                     plsi_relocations_role(standing, id) == PLSI_ROLE_OUTPUT);
    return seen ? PLSI_NOT_RECENT : PLSI_UNDATED;
}

/* With store->queue_lock held. What the active segment gets from now on is younger than all. */
static bool add_segment(struct plsi_runs *runs, const struct plsi_segment *segment, bool active,
                        const struct plsi_relocations *standing)
{
    const struct plsi_recent *recent = &segment->recent;
    bool fits = true;
    if (recent->runs.n == 0 || recent->runs.at[0].offset > 0) {
        fits = plsi_runs_add(runs, segment->id, 0, undated(standing, segment->id));
    }
    for (size_t i = 0; i < recent->runs.n && fits; i++) {
        const struct plsi_run *run = &recent->runs.at[i];
        fits = plsi_runs_add(runs, segment->id, run->offset, run->ms);
    }
    return fits && (!active || plsi_runs_add(runs, segment->id, recent->end, PLSI_UNDATED));
}

static enum pls_code gather(pls_store *store, uint32_t sealed_id,
                            const struct plsi_relocations *standing, struct plsi_runs *runs)
{
    size_t n;
    struct plsi_segment **segments = plsi_table_hold_all(&store->table, sealed_id, &n);
    bool fits = segments != NULL;
    for (size_t i = 0; i < n && fits; i++) {
        pthread_mutex_lock(&store->queue_lock);
        fits = add_segment(runs, segments[i], segments[i] == store->active, standing);
        pthread_mutex_unlock(&store->queue_lock);
    }
    plsi_table_release_all(segments, n);
    return fits ? PLS_OK : PLS_NO_MEMORY;
}

static size_t encode(uint32_t sealed_id, const struct plsi_relocations *standing,
                     const struct plsi_runs *runs, int64_t now, uint8_t *file)
{
    struct plsi_bytes c = {file};
    plsi_put_bytes(&c, MAGIC, 8);
    plsi_put32(&c, VERSION);
    plsi_put32(&c, (uint32_t)runs->n);
    plsi_put32(&c, sealed_id);
    plsi_put32(&c, standing != NULL ? HAS_STANDING : 0);
    plsi_put32(&c, standing != NULL ? standing->seal.sealed_id : 0);
    for (size_t i = 0; i < runs->n; i++) {
        plsi_put32(&c, runs->at[i].file);
        plsi_put64(&c, runs->at[i].offset);
        plsi_put64(&c, plsi_run_age(&runs->at[i], now));
    }
    size_t length = (size_t)(c.at - file);
    plsi_put32(&c, plsi_crc32c(0, file, length));
    return length + 4;
}

enum pls_code plsi_ages_write(pls_store *store, uint32_t sealed_id, int64_t now,
                              struct pls_error *error)
{
    struct plsi_runs runs = {0};
    struct plsi_relocations *standing = plsi_table_relocations(&store->table);
    enum pls_code code = gather(store, sealed_id, standing, &runs);
    if (code == PLS_OK) {
        char name[PLSI_FILE_NAME];
        uint8_t file[PLSI_META_MAX];
        plsi_runs_thin(&runs, PLSI_AGES_MAX, now);
        size_t length = encode(sealed_id, standing, &runs, now, file);
        file_name(sealed_id, name);
        code = store->backend->ops->put_meta(store->backend, name, file, length, error);
    } else {
        plsi_fail(error, code, "out of memory");
    }
    plsi_relocations_release(standing);
    plsi_runs_fini(&runs);
    return code;
}

/* -- reading ----------------------------------------------------------------------------------- */

static const char *check(const uint8_t *file, size_t length, uint32_t sealed_id,
                         const struct plsi_relocations *standing)
{
    struct plsi_bytes c = {(uint8_t *)file + 8};
    if (length < HEAD + 4 || memcmp(file, MAGIC, 8) != 0) {
        return "is damaged";
    }
    if (plsi_get32(&c) != VERSION) {
        return "is of a version unknown here";
    }
    struct plsi_bytes end = {(uint8_t *)file + length - 4};
    if (length != HEAD + (uint64_t)plsi_get32(&c) * RUN_BYTES + 4 ||
        plsi_get32(&end) != plsi_crc32c(0, file, length - 4) || plsi_get32(&c) != sealed_id) {
        return "is damaged";
    }
    bool had_standing = (plsi_get32(&c) & HAS_STANDING) != 0;
    uint32_t standing_id = plsi_get32(&c);
    if (had_standing != (standing != NULL) ||
        (had_standing && standing_id != standing->seal.sealed_id)) {
        return "is from before the last compaction";
    }
    return NULL;
}

static bool decode(const uint8_t *file, size_t length, struct plsi_runs *runs)
{
    struct plsi_bytes c = {(uint8_t *)file + HEAD};
    bool fits = true;
    while (c.at < file + length - 4 && fits) {
        uint32_t id = plsi_get32(&c);
        uint64_t offset = plsi_get64(&c);
        uint64_t age = plsi_get64(&c);
        fits = plsi_runs_add(runs, id, offset, age <= INT64_MAX ? -(int64_t)age : PLSI_NOT_RECENT);
    }
    return fits;
}

void plsi_ages_read(pls_store *store, uint32_t sealed_id, const struct plsi_relocations *standing,
                    struct plsi_runs *runs)
{
    char name[PLSI_FILE_NAME];
    uint8_t file[PLSI_META_MAX];
    size_t length;
    bool found;
    struct pls_error error;
    const char *why;
    file_name(sealed_id, name);
    if (store->backend->ops->get_meta(store->backend, name, file, &length, &found, &error) !=
        PLS_OK) {
        why = "cannot be read";
    } else if (!found) {
        why = "is missing";
    } else {
        why = check(file, length, sealed_id, standing);
    }
    if (why == NULL && !decode(file, length, runs)) {
        plsi_runs_fini(runs);
        why = "finds no memory";
    }
    if (why != NULL) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "ages_unknown",
                 "%s %s: all of seal %" PRIu32 " counts as recent", name, why, sealed_id);
    }
}

/* -- taking away ------------------------------------------------------------------------------- */

void plsi_ages_forget(pls_store *store, uint32_t sealed_id)
{
    char name[PLSI_FILE_NAME];
    file_name(sealed_id, name);
    store->backend->ops->remove(store->backend, name, NULL);
}

void plsi_ages_remove(pls_store *store, uint32_t sealed_id)
{
    const struct plsi_state *state = &store->state;
    for (uint16_t i = 0; i < state->n_open && state->open[i] <= sealed_id; i++) {
        plsi_ages_forget(store, state->open[i]);
    }
}

bool plsi_ages_sweep(void *arg, const char *name, uint64_t size)
{
    pls_store *store = arg;
    uint32_t id;
    (void)size;
    if (!plsi_ages_is_file(name, &id)) {
        return true;
    }
    bool temporary = strcmp(name + strlen(name) - 4, ".tmp") == 0;
    bool open = false;
    for (uint16_t i = 0; i < store->state.n_open; i++) {
        open |= store->state.open[i] == id;
    }
    if (temporary || !open) {
        struct pls_error error;
        if (store->backend->ops->remove(store->backend, name, &error) != PLS_OK) {
            plsi_log(store->dir, PLS_LOG_WARNING, store->name, "recovered", "%s", error.text);
        }
    }
    return true;
}
