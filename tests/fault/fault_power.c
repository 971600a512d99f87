/*
 * The power fails: what a store did is recorded, and opened as a disk may have it after a crash at
 * any moment (recording.h).
 *
 * A workload runs once: appends of both kinds, alone and beside compactions, rotation, seals,
 * claims, clean closes, deletions, and now and then the death of the process, after which what it
 * wrote lies in the system's cache only. Of each name of each record is known from when on it was
 * promised and until when, and from when on its bytes are on the device. Then, for thousands of
 * moments:
 *
 *   at that moment                            after the crash
 *   a SYNCED append was answered, and no      it reads by its ref, with the checksum and without
 *   compaction was started without it
 *   a BUFFERED one was answered               it reads, or gets NO_RECORD or DAMAGED
 *   a compaction was answered                 the records in its map read by either name
 *   a compaction was started                  what it was given reads by the names it was given
 *   a clean close had ended                   all that this process appended reads
 *   a seal was answered                       the handle is good
 *   a claim was answered                      the epoch is not below it
 *   a deletion was answered                   there is no store
 *
 * The store opens every time. Nothing ever reads as what it is not, and no place that was given out
 * is given out again. Names come back in both of the recording's ways: the store promises to live
 * with a directory whose changes are kept or lost each by itself, as long as what was synced holds.
 *
 * FAULT_CRASHES says how many moments there are.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "recording.h"
#include "store_fixture.h"
#include "sys.h"
#include "work_dir.h"

enum {
    RECORDS = 400,
    NAMES = 8,
    MARKS = 200,
    BATCH = 6,
    LARGEST = 1400,
    STEPS = 14,
    CRASHES_A_WORKLOAD = 60
};

#define NEVER SIZE_MAX

/*
 * A record that was not synced, asked for without its checksum: after a crash the index is finished
 * from the data, and whatever the disk made of a payload gets a checksum that fits. To be set once
 * entries that are on the disk are believed rather than the data.
 */
static const bool index_knows_checksums = false;

struct name {
    struct pls_ref ref;
    size_t from, until; /* positions: promised, and given up */
    size_t solid;       /* from when on the bytes are on the device */
    bool given;         /* to the compaction that runs */
};

struct record {
    uint32_t seed;
    unsigned life; /* of the process that appended it */
    unsigned n;
    struct name names[NAMES];
};

/* Something that was answered. */
struct mark {
    size_t began, at;
    struct pls_seal seal;
    uint64_t epoch;
};

struct marks {
    struct mark marks[MARKS];
    size_t n;
};

struct workload {
    struct chance chance;
    char path[PATH_MAX];
    struct pls_options options;
    pls_dir *dir;
    pls_store *store;
    uint64_t epoch;
    uint32_t next_seed;
    unsigned life;
    struct record records[RECORDS];
    size_t n;
    struct marks seals, claims, deletions;
    size_t first; /* the position from which on there is a store */
};

static void add_mark(struct marks *marks, struct mark mark)
{
    if (marks->n < MARKS) {
        mark.at = recording_now();
        marks->marks[marks->n++] = mark;
    }
}

/* -- appends ----------------------------------------------------------------------------------- */

struct pending {
    struct pls_append append;
    struct iovec part;
    uint8_t bytes[LARGEST];
    uint32_t seed;
    size_t at;
    enum pls_code code;
    sem_t answered;
};

struct batch {
    struct workload *w;
    struct pending pending[BATCH];
    unsigned n;
    pthread_t thread;
};

static void on_append(struct pls_append *append, enum pls_code code)
{
    struct pending *pending = append->data;
    pending->at = recording_now();
    pending->code = code;
    sem_post(&pending->answered);
}

static void plan_batch(struct workload *w, struct batch *batch)
{
    batch->w = w;
    batch->n = 1 + below(&w->chance, BATCH);
    bool lazy = one_in(&w->chance, 2); /* nothing of it is synced */
    for (unsigned i = 0; i < batch->n; i++) {
        struct pending *pending = &batch->pending[i];
        pending->seed = w->next_seed++;
        pending->part.iov_base = pending->bytes;
        pending->part.iov_len = below(&w->chance, one_in(&w->chance, 3) ? LARGEST : 60);
        fill(pending->bytes, pending->part.iov_len, pending->seed);
        pending->append = (struct pls_append){
            .payload = &pending->part,
            .n_payload = 1,
            .durability = lazy || one_in(&w->chance, 2) ? PLS_BUFFERED : PLS_SYNCED,
            .epoch = w->epoch,
            .done = on_append,
            .data = pending};
        sem_init(&pending->answered, 0, 0);
    }
}

/* Two of them at a time. */
static void *run_batch(void *arg)
{
    struct batch *batch = arg;
    for (unsigned i = 0; i < batch->n; i++) {
        pls_append(batch->w->store, &batch->pending[i].append);
        if (i > 0) {
            sem_wait(&batch->pending[i - 1].answered);
        }
    }
    sem_wait(&batch->pending[batch->n - 1].answered);
    return NULL;
}

static void note_batch(struct batch *batch)
{
    struct workload *w = batch->w;
    for (unsigned i = 0; i < batch->n; i++) {
        struct pending *pending = &batch->pending[i];
        sem_destroy(&pending->answered);
        if (pending->code != PLS_OK || w->n == RECORDS) {
            continue;
        }
        struct record *record = &w->records[w->n++];
        *record = (struct record){.seed = pending->seed, .life = w->life, .n = 1};
        record->names[0] =
            (struct name){.ref = pending->append.ref,
                          .from = pending->at,
                          .until = NEVER,
                          .solid = pending->append.durability == PLS_SYNCED ? pending->at : NEVER};
    }
}

static void append_step(struct workload *w)
{
    struct batch batch;
    plan_batch(w, &batch);
    run_batch(&batch);
    note_batch(&batch);
}

/* -- a compaction ------------------------------------------------------------------------------ */

static size_t list_live(struct workload *w, struct pls_ref *live)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) {
        struct record *record = &w->records[i];
        bool wanted = !one_in(&w->chance, 6), any = false;
        for (unsigned k = record->n; k-- > 0;) {
            struct name *name = &record->names[k];
            name->given = wanted && name->until == NEVER && (!any || one_in(&w->chance, 2));
            if (name->given) {
                any = true;
                live[n] = name->ref;
                live[n++].crc32c *= !one_in(&w->chance, 4);
            }
        }
    }
    return n;
}

static void add_name(struct record *record, const struct pls_ref *ref, size_t at)
{
    for (unsigned k = 0; k < record->n; k++) {
        const struct pls_ref *known = &record->names[k].ref;
        if (known->file_id == ref->file_id && known->offset == ref->offset) {
            return;
        }
    }
    if (record->n < NAMES) {
        record->names[record->n++] =
            (struct name){.ref = *ref, .from = at, .until = NEVER, .solid = at};
    }
}

static void take_map(struct workload *w, const struct pls_seal *given,
                     const struct outcome *outcome, size_t began)
{
    size_t at = recording_now();
    for (size_t i = 0; i < w->n; i++) {
        struct record *record = &w->records[i];
        unsigned n = record->n;
        for (unsigned k = 0; k < n; k++) {
            struct name *name = &record->names[k];
            if (name->until != NEVER || name->from > at) {
                continue;
            }
            if (!name->given && name->ref.file_id <= given->sealed_id) {
                name->until = began;
                continue;
            }
            const struct pls_relocation *moved =
                name->given ? find_in_map(outcome->map, outcome->n_map, &name->ref) : NULL;
            if (moved != NULL) {
                name->solid = at < name->solid ? at : name->solid;
                add_name(record, &moved->new_ref, at);
            }
        }
    }
}

/* -- open, close, die -------------------------------------------------------------------------- */

static void open_store(struct workload *w)
{
    struct pls_error error;
    enum pls_code code = pls_dir_open(w->path, &w->options, &w->dir, &error);
    MUST(code == PLS_OK, "%s", error.text);
    code = pls_store_open(w->dir, "s", w->epoch, &w->store, &error);
    MUST(code == PLS_OK, "%s", error.text);
}

/* What this process has appended is on the device now. */
static void note_clean(struct workload *w)
{
    size_t at = recording_now();
    for (size_t i = 0; i < w->n; i++) {
        struct record *record = &w->records[i];
        for (unsigned k = 0; record->life == w->life && k < record->n; k++) {
            if (record->names[k].solid == NEVER) {
                record->names[k].solid = at;
            }
        }
    }
}

/* Where system calls fail, this is the death of the process. */
static void close_store(struct workload *w)
{
    pls_store_release(w->store);
    w->store = NULL;
    if (pls_dir_close(w->dir) == PLS_OK) {
        note_clean(w);
    }
    plsi_sys_fail_at(0, 0);
    w->life++;
}

static void reopen(struct workload *w)
{
    close_store(w);
    open_store(w);
}

/* After a death: whether the compaction has committed, and the map. */
static void ask(struct workload *w, const struct pls_seal *given, struct outcome *outcome)
{
    const struct pls_compact_options map_only = {.map_only = true, .epoch = w->epoch};
    outcome_fini(outcome);
    compact(w->store, given, &map_only, NULL, 0, outcome);
    MUST(outcome->code == PLS_OK || outcome->code == PLS_NOT_COMMITTED, "%s", outcome->error.text);
}

static void compact_step(struct workload *w, bool dies)
{
    static const unsigned percents[] = {0, 0, 40, 100};
    static struct pls_ref live[RECORDS * NAMES];
    struct pls_seal given;
    struct outcome outcome;
    if (pls_store_seal(w->store, w->epoch, &given, NULL) != PLS_OK) {
        MUST(dies, "a seal");
        return;
    }
    add_mark(&w->seals, (struct mark){.seal = given});
    struct pls_compact_options options = {.epoch = w->epoch,
                                          .min_garbage_percent = percents[below(&w->chance, 4)]};
    size_t n = list_live(w, live);
    struct batch batch;
    plan_batch(w, &batch);
    MUST(pthread_create(&batch.thread, NULL, run_batch, &batch) == 0, "no thread");
    size_t began = recording_now();
    compact(w->store, &given, &options, live, n, &outcome);
    /* Before the batch is noted: what it appended was given to nobody. */
    bool known = outcome.code == PLS_OK;
    if (known) {
        take_map(w, &given, &outcome, began);
    }
    pthread_join(batch.thread, NULL);
    MUST(known || dies, "%s", outcome.error.text);
    if (!known) {
        reopen(w);
        ask(w, &given, &outcome);
        if (outcome.code == PLS_OK) {
            take_map(w, &given, &outcome, began);
        }
        w->life--; /* the batch was the dead one's */
    }
    note_batch(&batch);
    w->life += !known;
    outcome_fini(&outcome);
}

static void claim_step(struct workload *w)
{
    struct pls_error error;
    uint64_t epoch;
    MUST(pls_store_claim(w->dir, "s", "power", NULL, &epoch, &error) == PLS_OK, "%s", error.text);
    w->epoch = epoch;
    add_mark(&w->claims, (struct mark){.epoch = epoch});
}

static void delete_step(struct workload *w)
{
    struct pls_error error;
    struct mark mark = {.began = recording_now()};
    pls_store_release(w->store);
    MUST(pls_store_delete(w->dir, "s", w->epoch, NULL, &error) == PLS_OK, "%s", error.text);
    for (size_t i = 0; i < w->n; i++) {
        for (unsigned k = 0; k < w->records[i].n; k++) {
            struct name *name = &w->records[i].names[k];
            name->until = name->until < mark.began ? name->until : mark.began;
        }
    }
    add_mark(&w->deletions, mark);
    w->seals.n = 0; /* handles of the other store */
    MUST(pls_store_open(w->dir, "s", w->epoch, &w->store, &error) == PLS_OK, "%s", error.text);
}

static void random_step(struct workload *w)
{
    bool dies = one_in(&w->chance, 4);
    if (dies) {
        plsi_sys_fail_from(1 + (long)below(&w->chance, 60), EIO);
    }
    uint32_t what = below(&w->chance, 20);
    if (what < 9) {
        append_step(w);
    } else if (what < 16) {
        compact_step(w, dies);
    } else if (what < 18 || dies) {
        append_step(w);
        reopen(w);
    } else if (what < 19) {
        claim_step(w);
    } else if (one_in(&w->chance, 3)) {
        delete_step(w);
    }
    if (dies) {
        reopen(w);
    }
}

static void run_workload(struct workload *w, unsigned long seed)
{
    static const unsigned sizes[] = {600, 2500, 10000};
    memset(w, 0, sizeof *w);
    w->chance = chance_from(seed);
    w->options =
        (struct pls_options){.segment_max_bytes = sizes[below(&w->chance, 3)], .io_threads = 2};
    fault_dir_create(w->path);
    recording_start(w->path);
    open_store(w);
    w->first = recording_now();
    for (unsigned i = 0; i < STEPS; i++) {
        random_step(w);
    }
    recording_stop();
    pls_store_release(w->store);
    MUST(pls_dir_close(w->dir) == PLS_OK, "the close");
    work_dir_remove(w->path);
}

/* -- after a crash ----------------------------------------------------------------------------- */

struct crash {
    const struct workload *w;
    size_t at;
    unsigned long seed, number; /* of the workload, and the crash in it */
    struct chance chance;
    pls_dir *dir;
    pls_store *store;
    uint64_t epoch;
    struct pls_ref live[RECORDS * NAMES];
    uint32_t seeds[RECORDS * NAMES];
    size_t n_live;
    unsigned long read, damaged, absent;
};

#define HOLDS(crash, condition, format, ...)                                          \
    MUST(condition, "FAULT_SEED=%lu, crash %lu of it at %zu: " format, (crash)->seed, \
         (crash)->number, (crash)->at, __VA_ARGS__)

static const struct mark *last_mark(const struct crash *crash, const struct marks *marks)
{
    const struct mark *last = NULL;
    for (size_t i = 0; i < marks->n && marks->marks[i].at <= crash->at; i++) {
        last = &marks->marks[i];
    }
    return last;
}

static void check_name(struct crash *crash, const struct record *record, const struct name *name)
{
    const struct pls_ref *ref = &name->ref;
    struct pls_ref bare = *ref;
    bare.crc32c = 0;
    bool must = name->from <= crash->at && crash->at < name->until && name->solid <= crash->at;
    enum reading full = reading_of(crash->store, ref, record->seed);
    enum reading without = reading_of(crash->store, &bare, record->seed);
    HOLDS(crash, full == RIGHT || (!must && full != WRONG),
          "%u:%ju of %u bytes reads %d; promised from %zu until %zu, synced at %zu", ref->file_id,
          (uintmax_t)ref->offset, ref->length, full, name->from, name->until, name->solid);
    /* Another record may lie at a place that nobody was told of, and is no other's wrong bytes. */
    bool told = name->from <= crash->at && index_knows_checksums;
    HOLDS(crash, without == RIGHT || (!must && (without != WRONG || !told)),
          "%u:%ju of %u bytes reads %d without its checksum; promised from %zu until %zu, synced "
          "at %zu",
          ref->file_id, (uintmax_t)ref->offset, ref->length, without, name->from, name->until,
          name->solid);
    crash->read += full == RIGHT;
    crash->damaged += full == DAMAGE;
    crash->absent += full == NOTHING;
    if (must) {
        crash->live[crash->n_live] = *ref;
        crash->seeds[crash->n_live++] = record->seed;
    }
}

/* Names that nobody had been told of at the crash are looked at now and then. */
static void check_names(struct crash *crash)
{
    crash->n_live = 0;
    for (size_t i = 0; i < crash->w->n; i++) {
        const struct record *record = &crash->w->records[i];
        for (unsigned k = 0; k < record->n; k++) {
            if (record->names[k].from <= crash->at || one_in(&crash->chance, 8)) {
                check_name(crash, record, &record->names[k]);
            }
        }
    }
}

static void check_deletion(struct crash *crash)
{
    const struct mark *last = last_mark(crash, &crash->w->deletions);
    struct pls_error error;
    enum pls_code code = pls_store_find(crash->dir, "s", &crash->store, &error);
    bool begun = false;
    for (size_t i = 0; i < crash->w->deletions.n; i++) {
        begun |= crash->w->deletions.marks[i].began <= crash->at;
    }
    HOLDS(crash, code == PLS_OK || (code == PLS_NO_STORE && (begun || crash->at < crash->w->first)),
          "%s", error.text);
    HOLDS(crash, last == NULL || last->at != crash->at || code == PLS_NO_STORE, "%s",
          "a deleted store is there");
    if (code != PLS_OK) {
        const struct mark *claim = last_mark(crash, &crash->w->claims);
        code = pls_store_open(crash->dir, "s", claim != NULL ? claim->epoch : 0, &crash->store,
                              &error);
    }
    HOLDS(crash, code == PLS_OK, "%s", error.text);
}

static void check_epoch(struct crash *crash)
{
    const struct mark *claim = last_mark(crash, &crash->w->claims);
    struct pls_stat stat;
    MUST(pls_store_stat(crash->store, &stat, NULL) == PLS_OK, "stat");
    crash->epoch = stat.epoch;
    pls_stat_fini(&stat);
    HOLDS(crash, claim == NULL || crash->epoch >= claim->epoch, "the epoch is %ju",
          (uintmax_t)crash->epoch);
}

static void check_seal(struct crash *crash)
{
    const struct mark *last = last_mark(crash, &crash->w->seals);
    const struct pls_compact_options options = {.epoch = crash->epoch};
    struct pls_error error;
    pls_compact *compaction;
    /* With a deletion there are handles of two stores. */
    if (last != NULL && crash->w->deletions.n == 0) {
        enum pls_code code =
            pls_compact_begin(crash->store, &last->seal, &options, &compaction, &error);
        HOLDS(crash, code == PLS_OK, "seal %u: %s", last->seal.sealed_id, error.text);
        pls_compact_destroy(compaction);
    }
}

/* No place in it was given out before. */
static void check_new(const struct crash *crash, const struct pls_ref *ref)
{
    for (size_t i = 0; i < crash->w->n; i++) {
        const struct record *record = &crash->w->records[i];
        for (unsigned k = 0; k < record->n; k++) {
            const struct name *name = &record->names[k];
            HOLDS(crash,
                  name->from > crash->at || name->ref.file_id != ref->file_id ||
                      ref->offset >= name->ref.offset + 4 + name->ref.length,
                  "%u:%ju is given out for the second time", ref->file_id, (uintmax_t)ref->offset);
        }
    }
}

/* The store works on: with an append, and a compaction of all that must be there. */
static void check_working(struct crash *crash)
{
    const struct pls_compact_options options = {.epoch = crash->epoch};
    struct pls_ref ref;
    struct pls_seal given;
    struct pls_error error;
    struct outcome outcome;
    enum pls_code code =
        try_append_as(crash->store, crash->epoch, "afterwards", 10, PLS_SYNCED, &ref);
    HOLDS(crash, code == PLS_OK, "an append: %s", pls_strerror(code));
    check_new(crash, &ref);
    code = pls_store_seal(crash->store, crash->epoch, &given, &error);
    HOLDS(crash, code == PLS_OK, "%s", error.text);
    compact(crash->store, &given, &options, crash->live, crash->n_live, &outcome);
    HOLDS(crash, outcome.code == PLS_OK, "%s", outcome.error.text);
    for (size_t i = 0; i < crash->n_live; i++) {
        const struct pls_relocation *moved =
            find_in_map(outcome.map, outcome.n_map, &crash->live[i]);
        HOLDS(crash, moved != NULL, "%u:%ju was not moved", crash->live[i].file_id,
              (uintmax_t)crash->live[i].offset);
        HOLDS(crash,
              reading_of(crash->store, &crash->live[i], crash->seeds[i]) == RIGHT &&
                  reading_of(crash->store, &moved->new_ref, crash->seeds[i]) == RIGHT,
              "%u:%ju after a compaction", crash->live[i].file_id,
              (uintmax_t)crash->live[i].offset);
        check_new(crash, &moved->new_ref);
    }
    outcome_fini(&outcome);
}

static void run_crash(struct crash *crash, const char *path)
{
    struct pls_error error;
    struct pls_options options = crash->w->options;
    enum names names = one_in(&crash->chance, 2) ? IN_ORDER : ANY;
    crash->at =
        crash->w->first + below(&crash->chance, (uint32_t)(recording_now() - crash->w->first + 1));
    options.io_threads = 1;
    recording_replay(crash->at, names, &crash->chance, path);
    enum pls_code code = pls_dir_open(path, &options, &crash->dir, &error);
    HOLDS(crash, code == PLS_OK, "%s", error.text);
    check_deletion(crash);
    check_epoch(crash);
    check_names(crash);
    check_seal(crash);
    if (one_in(&crash->chance, 3)) {
        check_working(crash);
    }
    pls_store_release(crash->store);
    HOLDS(crash, pls_dir_close(crash->dir) == PLS_OK, "%s", "the close");
    work_dir_remove(path);
}

int main(void)
{
    static struct workload w;
    static struct crash crash;
    unsigned long seed = fault_seed("fault_power");
    unsigned long crashes = number_from("FAULT_CRASHES", 3000), done = 0;
    char base[PATH_MAX], path[PATH_MAX + 8];
    fault_dir_create(base);
    snprintf(path, sizeof path, "%s/crash", base);
    plsi_sys_pretend_syncs(true); /* the recording takes them for what they are */
    for (unsigned long i = 0; done < crashes; i++) {
        run_workload(&w, seed + i);
        crash.w = &w;
        for (unsigned long k = 0; k < CRASHES_A_WORKLOAD && done < crashes; k++, done++) {
            crash.seed = seed + i;
            crash.number = k;
            crash.chance = chance_from((seed + i) * 1000 + k);
            run_crash(&crash, path);
        }
    }
    recording_free();
    work_dir_remove(base);
    printf("--- report\n"
           "fault_power: %lu crash points, seed %lu: %lu reads right, %lu damaged, %lu of no "
           "record\n"
           "--- end\n",
           done, seed, crash.read, crash.damaged, crash.absent);
    return 0;
}
