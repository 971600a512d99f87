/*
 * A store against a model in memory: random appends, seals, compactions, restarts and crashes.
 *
 * The model knows of each record the bytes, where it lies, and every older name that must still
 * read. A compaction is given each live record by some of its names; whether one that was cut has
 * committed, the store is asked afterwards, as a caller who lost the answer would.
 *
 * STORE_MODEL_SEED is the first seed (printed), STORE_MODEL_RUNS how many are tried in a row,
 * STORE_MODEL_STEPS how long each runs.
 */
#include "store_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "store.h"
#include "sys.h"

enum {
    NAMES = 6,
    RECORDS = 4000,
    SEALS = 4,
    GIVEN = 3 * NAMES * 400,
    GHOSTS = 64,
    LIVE = 120, /* beyond that records are let go of */
    LARGEST = 700,
    STEP_MS = 1500 /* that pass from one step to the next at most */
};

struct record {
    uint32_t seed;
    bool live;                   /* given to compactions */
    struct pls_ref names[NAMES]; /* each must read; the last one is where the record lies */
    bool given[NAMES];           /* to the compaction that runs */
    unsigned n;                  /* 0: nothing is known of it any more */
    unsigned run;                /* of the process, in which it was appended */
    int64_t ms;                  /* and when */
};

struct given_seal {
    struct pls_seal seal;
    unsigned run;
    int64_t ms;
};

/* A name no compaction was given: it may read, but never as anything else. */
struct ghost {
    struct pls_ref ref;
    uint32_t seed;
};

struct model {
    struct fixture *fx;
    uint64_t random;
    uint32_t seed; /* of the next record */
    struct record records[RECORDS];
    size_t n;
    unsigned run;
    struct given_seal seals[SEALS];
    size_t n_seals;
    struct pls_ref given[GIVEN];
    size_t n_given;
    uint64_t expected_live; /* records given that lie in sealed segments */
    struct ghost ghosts[GHOSTS];
    unsigned next_ghost;
};

static uint32_t below(struct model *m, uint32_t n)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (uint32_t)(m->random >> 33) % n;
}

static bool one_in(struct model *m, uint32_t n)
{
    return below(m, n) == 0;
}

static bool same_place(const struct pls_ref *a, const struct pls_ref *b)
{
    return a->file_id == b->file_id && a->offset == b->offset;
}

/* -- what must read ---------------------------------------------------------------------------- */

static void check_record(struct model *m, const struct record *record)
{
    for (unsigned i = 0; i < record->n; i++) {
        assert_filled(m->fx->store, &record->names[i], record->seed);
    }
}

static void check_ghosts(struct model *m)
{
    for (size_t i = 0; i < GHOSTS; i++) {
        const struct ghost *ghost = &m->ghosts[i];
        struct pls_view view = {0};
        if (ghost->ref.length == 0) {
            continue;
        }
        enum pls_code code = try_read(m->fx->store, &ghost->ref, &view);
        pls_view_release(&view);
        assert_true(code == PLS_NO_RECORD || reads_filled(m->fx->store, &ghost->ref, ghost->seed));
    }
}

static void check_all(struct model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        check_record(m, &m->records[i]);
    }
    check_ghosts(m);
}

static void add_ghost(struct model *m, const struct pls_ref *ref, uint32_t seed)
{
    m->ghosts[m->next_ghost++ % GHOSTS] = (struct ghost){.ref = *ref, .seed = seed};
}

/* -- steps that move nothing ------------------------------------------------------------------- */

static void append(struct model *m)
{
    if (m->n == RECORDS) {
        return;
    }
    struct record *record = &m->records[m->n++];
    *record = (struct record){
        .seed = m->seed++, .live = true, .n = 1, .run = m->run, .ms = plsi_now_ms()};
    record->names[0] = put_filled(m->fx->store, below(m, LARGEST), record->seed);
}

/* The caller has no more use for some of its records. */
static void let_go(struct model *m)
{
    size_t live = 0;
    for (size_t i = 0; i < m->n; i++) {
        live += m->records[i].live;
    }
    for (size_t i = 0; i < m->n; i++) {
        m->records[i].live = m->records[i].live && !one_in(m, live > LIVE ? 2 : 12);
    }
}

static void restart(struct model *m)
{
    m->run++;
    if (one_in(m, 2)) {
        fx_crash(m->fx);
    } else {
        fx_reopen(m->fx);
    }
}

static void take_seal(struct model *m)
{
    struct pls_seal given = seal(m->fx->store);
    if (m->n_seals > 0 && m->seals[m->n_seals - 1].seal.sealed_id == given.sealed_id) {
        return;
    }
    if (m->n_seals == SEALS) {
        memmove(m->seals, m->seals + 1, sizeof m->seals - sizeof *m->seals);
        m->n_seals--;
    }
    m->seals[m->n_seals++] = (struct given_seal){.seal = given, .run = m->run, .ms = plsi_now_ms()};
}

static void delete_store(struct model *m)
{
    pls_store_release(m->fx->store);
    m->fx->store = NULL;
    assert_int_equal(pls_store_delete(m->fx->dir, "s", 0, NULL, NULL), PLS_OK);
    assert_int_equal(pls_store_open(m->fx->dir, "s", 0, &m->fx->store, NULL), PLS_OK);
    for (size_t i = 0; i < m->n; i++) {
        for (unsigned k = 0; k < m->records[i].n; k++) {
            assert_unreadable(m->fx->store, &m->records[i].names[k], PLS_NO_RECORD);
        }
    }
    memset(m->ghosts, 0, sizeof m->ghosts);
    m->n = 0;
    m->n_seals = 0;
}

/* -- a compaction ------------------------------------------------------------------------------ */

static void give(struct model *m, struct record *record, unsigned name)
{
    assert_true(m->n_given < GIVEN);
    m->given[m->n_given++] = record->names[name];
    if (one_in(m, 3)) {
        m->given[m->n_given - 1].crc32c = 0; /* a ref from a caller that keeps no checksums */
    }
    record->given[name] = true;
}

/* Each live record by one of its names at least, in no order, some twice. */
static void choose_given(struct model *m, const struct pls_seal *given)
{
    m->n_given = 0;
    m->expected_live = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct record *record = &m->records[i];
        memset(record->given, 0, sizeof record->given);
        if (!record->live || record->n == 0) {
            continue;
        }
        give(m, record, below(m, record->n));
        for (unsigned k = 0; k < record->n; k++) {
            if (one_in(m, 3)) {
                give(m, record, k);
            }
        }
        m->expected_live += record->names[record->n - 1].file_id <= given->sealed_id;
    }
    for (size_t i = m->n_given; i > 1; i--) {
        size_t k = below(m, (uint32_t)i);
        struct pls_ref ref = m->given[k];
        m->given[k] = m->given[i - 1];
        m->given[i - 1] = ref;
    }
}

/* Where the compaction's map says the record lies now: under whichever name it was given. */
static struct pls_ref new_place(const struct record *record, const struct outcome *outcome,
                                size_t *answered)
{
    struct pls_ref place = record->names[record->n - 1];
    bool first = true;
    for (unsigned k = 0; k < record->n; k++) {
        const struct pls_ref *now = record->given[k] ? moved(outcome, &record->names[k]) : NULL;
        if (now == NULL) {
            continue;
        }
        ++*answered;
        assert_true(!same_place(now, &record->names[k]));
        assert_true(first || same_place(now, &place));
        place = *now;
        first = false;
    }
    return place;
}

/* Of what can be dated: it must be carried. The store may carry more. */
static bool is_recent(const struct record *record, const struct given_seal *given,
                      uint64_t carry_recent_ms)
{
    return carry_recent_ms > 0 && record->run == given->run && record->ms <= given->ms &&
           (uint64_t)(given->ms - record->ms) <= carry_recent_ms;
}

/* Nobody was told where it went. */
static struct pls_ref carried_place(struct model *m, const struct record *record)
{
    struct pls_ref place;
    struct plsi_segment *segment = NULL;
    assert_int_equal(plsi_resolve(m->fx->store, &record->names[record->n - 1], &segment, &place),
                     PLS_OK);
    plsi_segment_release(segment);
    return place;
}

/* The names that were given stay, all of a recent record, and what lies beyond the seal; where it
 * lies comes last. */
static void apply_to(struct model *m, struct record *record, const struct given_seal *given,
                     uint64_t carry_recent_ms, const struct outcome *outcome, size_t *answered)
{
    struct record before = *record;
    struct pls_ref place = new_place(&before, outcome, answered);
    bool carried = before.n > 0 && is_recent(&before, given, carry_recent_ms);
    if (carried) {
        place = carried_place(m, &before);
    }
    bool any = carried;
    record->n = 0;
    for (unsigned k = 0; k < before.n; k++) {
        const struct pls_ref *name = &before.names[k];
        any |= before.given[k];
        if (same_place(name, &place)) {
            continue;
        }
        if ((before.given[k] || carried) && record->n + 1 < NAMES) {
            record->names[record->n++] = *name;
        } else {
            add_ghost(m, name, before.seed);
        }
    }
    if (any || place.file_id > given->seal.sealed_id) {
        record->names[record->n++] = place;
    } else if (before.n > 0) {
        add_ghost(m, &place, before.seed);
    }
}

static void assert_ascending(const struct outcome *outcome)
{
    for (size_t i = 1; i < outcome->n_map; i++) {
        const struct pls_ref *a = &outcome->map[i - 1].old_ref, *b = &outcome->map[i].old_ref;
        assert_true(a->file_id < b->file_id || (a->file_id == b->file_id && a->offset < b->offset));
    }
}

static void apply(struct model *m, const struct given_seal *given, uint64_t carry_recent_ms,
                  const struct outcome *outcome)
{
    size_t answered = 0;
    assert_int_equal(outcome->summary.live_records, m->expected_live);
    assert_ascending(outcome);
    for (size_t i = 0; i < m->n; i++) {
        apply_to(m, &m->records[i], given, carry_recent_ms, outcome, &answered);
    }
    assert_int_equal(answered, outcome->n_map); /* nothing in the map that was not given */
    m->n_seals = 0; /* of those above this one a caller would take new ones */
    check_all(m);
}

/* Asks until the store says whether the compaction has committed. */
static bool ask(struct model *m, const struct pls_seal *given, bool dead_are_gone,
                struct outcome *outcome)
{
    const struct pls_compact_options map_only = {.map_only = true};
    compact(m->fx->store, given, &map_only, NULL, 0, outcome);
    if (outcome->code == PLS_IO) { /* the store has stopped writing */
        if (!dead_are_gone) {
            check_all(m);
        }
        restart(m);
        compact(m->fx->store, given, &map_only, NULL, 0, outcome);
    }
    if (outcome->code != PLS_OK) {
        assert_int_equal(outcome->code, PLS_NOT_COMMITTED);
    }
    return outcome->code == PLS_OK;
}

static void arm(struct model *m)
{
    static const int errors[] = {EIO, ENOSPC};
    long at = 1 + (long)below(m, one_in(m, 2) ? 40 : 250);
    if (one_in(m, 2)) {
        plsi_sys_fail_from(at, EIO);
    } else {
        plsi_sys_fail_at(at, errors[below(m, 2)]);
    }
}

static void compact_once(struct model *m, const struct given_seal *given_seal, bool cut)
{
    const struct pls_seal *given = &given_seal->seal;
    static const unsigned percents[] = {0, 0, 20, 60, 100};
    const struct pls_compact_options options = {.min_garbage_percent = percents[below(m, 5)],
                                                .keep_damaged = !cut && one_in(m, 4),
                                                .dry_run = one_in(m, 8),
                                                .carry_recent_ms =
                                                    one_in(m, 2) ? below(m, 100 * STEP_MS) : 0};
    struct outcome outcome, again;
    choose_given(m, given);
    if (cut) {
        settle(m->fx->store);
        arm(m);
    }
    compact(m->fx->store, given, &options, m->given, m->n_given, &outcome);
    plsi_sys_fail_at(0, 0);
    if (!cut) {
        assert_int_equal(outcome.code, PLS_OK);
    } else if (one_in(m, 3)) {
        restart(m);
    }
    bool committed = ask(m, given, outcome.committed, &again);
    if (!cut) {
        assert_int_equal(committed, !options.dry_run);
        assert_int_equal(outcome.n_damaged, 0);
    }
    if (committed) {
        assert_true(outcome.code != PLS_OK || outcome.n_map == again.n_map);
        apply(m, given_seal, options.carry_recent_ms, &again);
    } else {
        check_all(m);
    }
    outcome_fini(&outcome);
    outcome_fini(&again);
}

static void compact_step(struct model *m)
{
    if (m->n_seals == 0 || one_in(m, 2)) {
        take_seal(m);
    }
    struct given_seal given = m->seals[below(m, (uint32_t)m->n_seals)];
    let_go(m);
    compact_once(m, &given, one_in(m, 3));
}

static void forget_empty(struct model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (m->records[i].n > 0) {
            m->records[n++] = m->records[i];
        }
    }
    m->n = n;
}

/* -- runs -------------------------------------------------------------------------------------- */

static void step(struct model *m)
{
    uint32_t what = below(m, 100);
    plsi_clock_shift(below(m, STEP_MS));
    if (what < 70) {
        append(m);
    } else if (what < 76) {
        take_seal(m);
    } else if (what < 90) {
        compact_step(m);
        forget_empty(m);
    } else if (what < 96) {
        check_all(m);
    } else if (what < 99) {
        restart(m);
        check_all(m);
    } else if (one_in(m, 3)) {
        delete_store(m);
    }
}

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 10) : otherwise;
}

static void a_store_does_what_its_model_does(void **state)
{
    unsigned long seed = from_environment("STORE_MODEL_SEED", 1);
    unsigned long runs = from_environment("STORE_MODEL_RUNS", 12);
    unsigned long steps = from_environment("STORE_MODEL_STEPS", 300);
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    plsi_sys_pretend_syncs(true);
    for (unsigned long run = 0; run < runs; run++) {
        *m = (struct model){.fx = *state, .random = (seed + run) * 0x9e3779b97f4a7c15u + 1};
        print_message("seed %lu\n", seed + run);
        m->fx->options.segment_max_bytes = 4096;
        delete_store(m);
        fx_reopen(m->fx);
        m->run++;
        for (unsigned long i = 0; i < steps; i++) {
            step(m);
        }
        check_all(m);
    }
    plsi_sys_pretend_syncs(false);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_store_does_what_its_model_does),
    };
    plsi_clock_stop();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
