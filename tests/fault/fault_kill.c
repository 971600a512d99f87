/*
 * A process that dies: at any system call, half-way in a write, or by SIGKILL at any moment.
 *
 * A child opens the store, checks what must be there, and works on: threads append, segments
 * rotate, seals and compactions run, the directory is closed and opened, the store deleted. In a
 * journal in memory that it shares with its parent stands what it was answered, written after the
 * answer. It dies; the next child goes on in the same directory.
 *
 *   the journal says                    after the death
 *   an append was answered              it reads
 *   a compaction was started            what it was given reads by the names it was given, whether
 * it has committed or not; the rest of what lay below the seal may be gone; the store says which it
 * is
 *   ... and answered                    it has committed
 *   a seal was answered                 its handle is good
 *   a deletion was started              all of it is there, or nothing, for ever
 *   a place was given out               no other append ever gets it
 *
 * The deaths walk: through the system calls of one thread's work, and of an open, the N-th in turn.
 * Every other one comes at random among several threads. FAULT_KILLS says how many there are.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"
#include "store_fixture.h"
#include "sys.h"
#include "work_dir.h"

enum {
    SLOTS = 240, /* records known at a time */
    NAMES = 4,
    GHOSTS = 48,
    THREADS = 3,
    LARGEST = 900,
    IDS = 1 << 16,
    LIFE_SECONDS = 60 /* of a child, which should take milliseconds */
};

/* -- the journal ------------------------------------------------------------------------------- */

struct record {
    atomic_bool answered; /* everything else is written before */
    uint32_t seed;
    unsigned n;
    struct pls_ref names[NAMES]; /* each must read */
    bool given[NAMES];           /* to the compaction that was started */
};

/* A name that no compaction was given: it may read, but never as anything else. */
struct ghost {
    struct pls_ref ref;
    uint32_t seed;
    bool deleted; /* with its store: it may not read any more */
};

enum phase { IDLE, SEALED, STARTED, ANSWERED, DELETING };

struct journal {
    struct record records[SLOTS];
    atomic_int phase;
    struct pls_seal seal; /* from SEALED on */
    uint32_t closed;      /* the last id that an append may no longer get; UINT32_MAX: none yet */
    struct ghost ghosts[GHOSTS];
    unsigned next_ghost;
    char incarnation[33];
};

/* What a compaction's answer changes is written to the other journal, and counts from the switch.
 */
struct shared {
    struct journal journals[2];
    atomic_uint which;
    atomic_uint next_seed;
    atomic_uint_fast64_t ends[IDS]; /* behind the last record answered in each segment */
    atomic_bool working;            /* the child has checked, and may be killed */
    atomic_ulong appends, compactions, found_committed, found_uncommitted, deletions;
};

static struct shared *shared; /* by all threads, and the parent */
static char path[PATH_MAX];

static struct journal *now(void)
{
    return &shared->journals[atomic_load(&shared->which)];
}

/* -- a child ----------------------------------------------------------------------------------- */

struct child {
    struct chance chance;
    pls_dir *dir;
    pls_store *store;
    uint64_t begins[IDS]; /* `ends` and `closed` as this child found them */
    uint32_t closed;
};

struct appender {
    struct child *child;
    pthread_t thread;
    struct chance chance;
    size_t from, to; /* its slots */
    unsigned n;
};

static struct child me; /* large */

static size_t length_of(uint32_t seed)
{
    return seed * 2654435761u % LARGEST;
}

static void open_store(struct child *child)
{
    static const unsigned sizes[] = {500, 2000, 8000};
    struct pls_options options = {.segment_max_bytes = sizes[below(&child->chance, 3)],
                                  .io_threads = 2};
    struct pls_error error;
    enum pls_code code = pls_dir_open(path, &options, &child->dir, &error);
    MUST(code == PLS_OK, "%s", error.text);
    code = pls_store_open(child->dir, "s", 0, &child->store, &error);
    MUST(code == PLS_OK, "%s", error.text);
}

static void close_store(struct child *child)
{
    pls_store_release(child->store);
    MUST(pls_dir_close(child->dir) == PLS_OK, "a clean close");
}

static void read_incarnation(struct child *child, char text[33])
{
    struct pls_stat stat;
    MUST(pls_store_stat(child->store, &stat, NULL) == PLS_OK, "stat");
    memcpy(text, stat.incarnation, sizeof stat.incarnation);
    pls_stat_fini(&stat);
}

/* -- what must read -- */

static bool may_be_gone(const struct journal *journal, const struct record *record, unsigned name)
{
    int phase = atomic_load(&journal->phase);
    return (phase == STARTED || phase == ANSWERED) && !record->given[name] &&
           record->names[name].file_id <= journal->seal.sealed_id;
}

static void check_names(struct child *child, const struct record *record)
{
    const struct journal *journal = now();
    for (unsigned k = 0; k < record->n; k++) {
        const struct pls_ref *ref = &record->names[k];
        enum reading reading = reading_of(child->store, ref, record->seed);
        MUST(reading == RIGHT || (reading == NOTHING && may_be_gone(journal, record, k)),
             "%u:%ju of %u bytes: %d, phase %d, seal %u, given %d", ref->file_id,
             (uintmax_t)ref->offset, ref->length, reading, atomic_load(&journal->phase),
             journal->seal.sealed_id, record->given[k]);
    }
}

static void check_all(struct child *child)
{
    struct journal *journal = now();
    for (size_t i = 0; i < SLOTS; i++) {
        if (atomic_load(&journal->records[i].answered)) {
            check_names(child, &journal->records[i]);
        }
    }
    for (size_t i = 0; i < GHOSTS; i++) {
        const struct ghost *ghost = &journal->ghosts[i];
        if (ghost->ref.length > 0) {
            enum reading reading = reading_of(child->store, &ghost->ref, ghost->seed);
            MUST(reading == NOTHING || (reading == RIGHT && !ghost->deleted),
                 "the ghost %u:%ju: %d", ghost->ref.file_id, (uintmax_t)ghost->ref.offset, reading);
        }
    }
}

static void add_ghost(struct journal *journal, const struct pls_ref *ref, uint32_t seed)
{
    journal->ghosts[journal->next_ghost++ % GHOSTS] = (struct ghost){.ref = *ref, .seed = seed};
}

/* -- a compaction's answer -- */

static void keep_name(struct record *record, const struct pls_ref *ref)
{
    if (record->n < NAMES) {
        record->names[record->n++] = *ref;
    }
}

/* Of the names that must read now, the caller goes on with some, one at least. */
static void apply_to(struct child *child, struct journal *journal, struct record *record,
                     const struct outcome *outcome)
{
    struct record before = *record;
    const struct pls_ref *place = NULL;
    record->n = 0;
    for (unsigned k = 0; k < before.n; k++) {
        const struct pls_ref *name = &before.names[k];
        const struct pls_relocation *moved =
            before.given[k] ? find_in_map(outcome->map, outcome->n_map, name) : NULL;
        if (moved != NULL) {
            place = &moved->new_ref;
        }
        if (name->file_id > journal->seal.sealed_id ||
            (before.given[k] && (moved == NULL || !one_in(&child->chance, 3)))) {
            keep_name(record, name);
        } else {
            add_ghost(journal, name, before.seed);
        }
    }
    if (place != NULL) {
        atomic_store(&shared->ends[place->file_id % IDS], UINT64_MAX);
        if (record->n == 0 || !one_in(&child->chance, 3)) {
            keep_name(record, place);
        }
    }
    atomic_store(&record->answered, record->n > 0);
}

static void apply(struct child *child, const struct outcome *outcome)
{
    struct journal *next = &shared->journals[!atomic_load(&shared->which)];
    memcpy(next, now(), sizeof *next);
    for (size_t i = 0; i < SLOTS; i++) {
        if (atomic_load(&next->records[i].answered)) {
            apply_to(child, next, &next->records[i], outcome);
        }
    }
    atomic_store(&next->phase, IDLE);
    atomic_fetch_xor(&shared->which, 1);
}

/* -- after a death -- */

static void settle_compaction(struct child *child, struct journal *journal)
{
    const struct pls_compact_options options = {.map_only = true};
    struct outcome outcome;
    bool answered = atomic_load(&journal->phase) == ANSWERED;
    compact(child->store, &journal->seal, &options, NULL, 0, &outcome);
    if (outcome.code == PLS_OK) {
        atomic_fetch_add(&shared->found_committed, !answered);
        apply(child, &outcome);
    } else {
        MUST(outcome.code == PLS_NOT_COMMITTED && !answered, "%s", outcome.error.text);
        atomic_fetch_add(&shared->found_uncommitted, 1);
        atomic_store(&journal->phase, one_in(&child->chance, 2) ? SEALED : IDLE);
    }
    outcome_fini(&outcome);
}

static void forget_all(struct journal *journal)
{
    for (size_t i = 0; i < SLOTS; i++) {
        struct record *record = &journal->records[i];
        for (unsigned k = 0; atomic_load(&record->answered) && k < record->n; k++) {
            add_ghost(journal, &record->names[k], record->seed);
        }
        atomic_store(&record->answered, false);
    }
    for (size_t i = 0; i < GHOSTS; i++) {
        journal->ghosts[i].deleted = true;
    }
}

static void settle_deletion(struct child *child, struct journal *journal)
{
    char incarnation[33];
    read_incarnation(child, incarnation);
    bool same = strcmp(incarnation, journal->incarnation) == 0;
    MUST(same || journal->incarnation[0] == '\0' || atomic_load(&journal->phase) == DELETING,
         "the store is another one");
    if (!same) {
        forget_all(journal);
        memcpy(journal->incarnation, incarnation, sizeof incarnation);
        atomic_store(&journal->phase, IDLE);
    } else if (atomic_load(&journal->phase) == DELETING) {
        atomic_store(&journal->phase, IDLE);
    }
}

static void settle_all(struct child *child)
{
    for (size_t i = 0; i < IDS; i++) {
        child->begins[i] = atomic_load(&shared->ends[i]);
    }
    child->closed = now()->closed;
    settle_deletion(child, now());
    check_all(child);
    int phase = atomic_load(&now()->phase);
    if (phase == STARTED || phase == ANSWERED) {
        settle_compaction(child, now());
        check_all(child);
    }
}

/* -- the work -- */

static void check_place(const struct child *child, const struct pls_ref *ref)
{
    uint32_t closed = child->closed;
    MUST(ref->file_id < IDS, "more segments than this test counts");
    MUST(ref->offset >= child->begins[ref->file_id] &&
             (closed == UINT32_MAX || ref->file_id > closed),
         "%u:%ju was given out before; closed up to %u", ref->file_id, (uintmax_t)ref->offset,
         closed);
    uint64_t end = ref->offset + 4 + ref->length;
    uint64_t before = atomic_load(&shared->ends[ref->file_id]);
    while (before < end &&
           !atomic_compare_exchange_weak(&shared->ends[ref->file_id], &before, end)) {
    }
}

static void append_one(struct appender *appender, struct record *record)
{
    uint8_t bytes[LARGEST];
    record->seed = atomic_fetch_add(&shared->next_seed, 1);
    size_t length = length_of(record->seed);
    fill(bytes, length, record->seed);
    enum pls_code code =
        try_append(appender->child->store, bytes, length,
                   one_in(&appender->chance, 2) ? PLS_SYNCED : PLS_BUFFERED, &record->names[0]);
    MUST(code == PLS_OK, "append: %s", pls_strerror(code));
    record->n = 1;
    memset(record->given, 0, sizeof record->given);
    atomic_store(&record->answered, true);
    atomic_fetch_add(&shared->appends, 1);
    check_place(appender->child, &record->names[0]);
}

static void *append_some(void *arg)
{
    struct appender *appender = arg;
    for (size_t i = appender->from; i < appender->to && appender->n > 0; i++) {
        struct record *record = &now()->records[i];
        if (!atomic_load(&record->answered)) {
            append_one(appender, record);
            appender->n--;
        }
    }
    return NULL;
}

static size_t list_live(struct child *child, struct journal *journal, struct pls_ref *live)
{
    unsigned dead = one_in(&child->chance, 4) ? 6 : 1; /* of eight are let go */
    size_t n = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        struct record *record = &journal->records[i];
        if (!atomic_load(&record->answered)) {
            continue;
        }
        memset(record->given, 0, sizeof record->given);
        if (below(&child->chance, 8) < dead) {
            continue;
        }
        unsigned one = below(&child->chance, record->n);
        for (unsigned k = 0; k < record->n; k++) {
            record->given[k] = k == one || one_in(&child->chance, 2);
            if (record->given[k]) {
                live[n] = record->names[k];
                live[n++].crc32c *= !one_in(&child->chance, 4);
            }
        }
    }
    return n;
}

static void take_seal(struct child *child, struct journal *journal)
{
    struct pls_seal given;
    struct pls_error error;
    MUST(pls_store_seal(child->store, 0, &given, &error) == PLS_OK, "%s", error.text);
    journal->seal = given;
    journal->closed = given.compaction_id;
    atomic_store(&journal->phase, SEALED);
}

/* Up to its answer; which is taken in once the appends have come to their end. */
static void run_compaction(struct child *child, struct journal *journal, struct outcome *outcome)
{
    static const unsigned percents[] = {0, 0, 30, 70, 100};
    static struct pls_ref live[SLOTS * NAMES];
    struct pls_compact_options options = {
        .min_garbage_percent = percents[below(&child->chance, 5)],
        .keep_damaged = one_in(&child->chance, 3),
        .dry_run = one_in(&child->chance, 10),
    };
    *outcome = (struct outcome){.code = PLS_NOT_COMMITTED};
    if (atomic_load(&journal->phase) != SEALED || one_in(&child->chance, 2)) {
        take_seal(child, journal);
    }
    if (one_in(&child->chance, 5)) {
        return; /* the handle waits */
    }
    size_t n = list_live(child, journal, live);
    atomic_store(&journal->phase, options.dry_run ? SEALED : STARTED);
    compact(child->store, &journal->seal, &options, live, n, outcome);
    MUST(outcome->code == PLS_OK && outcome->n_damaged == 0, "compaction: %s", outcome->error.text);
    atomic_store(&journal->phase, options.dry_run ? SEALED : ANSWERED);
}

static void start(struct child *child, struct appender *appenders, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        appenders[i] = (struct appender){.child = child,
                                         .chance = chance_from(below(&child->chance, UINT32_MAX)),
                                         .from = (size_t)SLOTS / n * i,
                                         .to = (size_t)SLOTS / n * (i + 1),
                                         .n = 2 + below(&child->chance, 12)};
        if (n == 1) {
            append_some(&appenders[i]);
        } else {
            MUST(pthread_create(&appenders[i].thread, NULL, append_some, &appenders[i]) == 0,
                 "no thread");
        }
    }
}

static void delete_store(struct child *child)
{
    struct pls_error error;
    struct journal *journal = now();
    atomic_store(&journal->phase, DELETING);
    pls_store_release(child->store);
    MUST(pls_store_delete(child->dir, "s", 0, NULL, &error) == PLS_OK, "%s", error.text);
    MUST(pls_store_open(child->dir, "s", 0, &child->store, &error) == PLS_OK, "%s", error.text);
    settle_deletion(child, journal);
    atomic_fetch_add(&shared->deletions, 1);
}

/* One thread: the same calls in the same order each time, as long as the chance is the same. */
static void work(struct child *child, unsigned threads)
{
    struct appender appenders[THREADS];
    struct outcome outcome = {0};
    struct journal *journal = now();
    start(child, appenders, threads);
    run_compaction(child, journal, &outcome);
    for (unsigned i = 0; threads > 1 && i < threads; i++) {
        pthread_join(appenders[i].thread, NULL);
    }
    if (atomic_load(&journal->phase) == ANSWERED) {
        apply(child, &outcome);
        atomic_fetch_add(&shared->compactions, 1);
    }
    outcome_fini(&outcome);
    if (one_in(&child->chance, 30)) {
        delete_store(child);
    }
    if (one_in(&child->chance, 3)) {
        close_store(child);
        open_store(child);
    }
}

/* -- the parent -------------------------------------------------------------------------------- */

struct plan {
    long in_open, at_work; /* dies at that system call of it; 0: not */
    unsigned threads, rounds;
    bool sigkill;
};

static _Noreturn void live_and_die(const struct plan *plan, struct chance chance)
{
    alarm(LIFE_SECONDS);
    me.chance = chance;
    plsi_sys_pretend_syncs(true); /* a process that dies takes no pages with it */
    if (plan->in_open > 0) {
        plsi_sys_die_at(plan->in_open);
    }
    open_store(&me);
    plsi_sys_fail_at(0, 0);
    settle_all(&me);
    if (plan->at_work > 0) {
        plsi_sys_die_at(plan->at_work);
    }
    atomic_store(&shared->working, true);
    for (unsigned i = 0; i < plan->rounds; i++) {
        work(&me, plan->threads);
    }
    close_store(&me);
    fflush(NULL);
    _exit(0);
}

/* Not by the clock: after some more appends, and a while that is nobody's. */
static void kill_when_it_works(pid_t child, struct chance *chance)
{
    unsigned long more = below(chance, 60);
    unsigned spins = below(chance, 2000);
    unsigned long from = atomic_load(&shared->appends);
    siginfo_t ended = {0};
    while ((!atomic_load(&shared->working) || atomic_load(&shared->appends) - from < more ||
            spins-- > 0) &&
           waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid == 0) {
        sched_yield();
    }
    kill(child, SIGKILL);
}

/* Whether it died, rather than coming to its end. */
static bool run_child(const struct plan *plan, struct chance *chance, uint64_t script)
{
    atomic_store(&shared->working, false);
    pid_t child = fork();
    MUST(child >= 0, "no process");
    if (child == 0) {
        live_and_die(plan, chance_from(script));
    }
    if (plan->sigkill) {
        kill_when_it_works(child, chance);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child, "waiting");
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && plan->sigkill;
    bool died = WIFEXITED(status) && WEXITSTATUS(status) == PLSI_SYS_DIED;
    MUST(killed || died || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
         "the child ended with status %x; its directory %s stays", (unsigned)status, path);
    return killed || died;
}

struct walk {
    long next;
    uint64_t script;
};

/* The next step of a walk; from the first again, on another way, once it has come to its end. */
static void step(struct walk *walk, bool died)
{
    walk->next = died ? walk->next + 1 : 1;
    walk->script += !died;
}

int main(void)
{
    unsigned long seed = fault_seed("fault_kill");
    unsigned long rounds = number_from("FAULT_KILLS", 1000);
    struct chance chance = chance_from(seed);
    struct walk work_walk = {1, seed}, open_walk = {1, seed};
    unsigned long kills[4] = {0};
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(shared != MAP_FAILED, "no memory to share");
    now()->closed = UINT32_MAX;
    fault_dir_create(path);
    for (unsigned long i = 0; i < rounds; i++) {
        struct plan plan = {.threads = THREADS, .rounds = 6};
        switch (i % 4) {
        case 0:
            plan = (struct plan){.at_work = work_walk.next, .threads = 1, .rounds = 1};
            break;
        case 1:
            plan.in_open = open_walk.next;
            plan.rounds = 1;
            break;
        case 2:
            plan.at_work = 1 + (long)below(&chance, 400);
            break;
        default:
            plan.sigkill = true;
            plan.rounds = 40;
        }
        bool died = run_child(&plan, &chance, i % 4 == 0 ? work_walk.script : seed * 1000003 + i);
        kills[i % 4] += died;
        if (i % 4 == 0) {
            step(&work_walk, died);
        } else if (i % 4 == 1) {
            step(&open_walk, died);
        }
    }
    work_dir_remove(path);
    printf(
        "--- report\n"
        "fault_kill: %lu deaths (%lu in a walk through work, %lu in one through opens, %lu at "
        "random calls, %lu by SIGKILL), seed %lu: %lu appends, %lu compactions answered, %lu cut "
        "before their commit and %lu after it, %lu deletions\n"
        "--- end\n",
        kills[0] + kills[1] + kills[2] + kills[3], kills[0], kills[1], kills[2], kills[3], seed,
        atomic_load(&shared->appends), atomic_load(&shared->compactions),
        atomic_load(&shared->found_uncommitted), atomic_load(&shared->found_committed),
        atomic_load(&shared->deletions));
    MUST(rounds < 1000 || (kills[0] > rounds / 8 && kills[1] > rounds / 8),
         "the walks have hardly met a system call");
    MUST(rounds < 1000 || (atomic_load(&shared->found_uncommitted) > 0 &&
                           atomic_load(&shared->found_committed) > 0),
         "no compaction was cut on both sides of its commit");
    return 0;
}
