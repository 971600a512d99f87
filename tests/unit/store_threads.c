/* Many threads at once: appends of both kinds, reads, seals and compactions. */
#include "store_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { WRITERS = 6, EACH = 300 };

struct writer {
    pls_store *store;
    uint32_t seed;
    struct pls_ref refs[EACH];
    unsigned wrong;
};

static size_t size_of(uint32_t seed)
{
    return (size_t)seed * 131 % 3000;
}

static void *write_and_read(void *arg)
{
    struct writer *me = arg;
    uint8_t data[3000];
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t seed = me->seed + i;
        enum pls_durability durability = (seed / 7) % 4 == 0 ? PLS_SYNCED : PLS_BUFFERED;
        fill(data, size_of(seed), seed);
        me->wrong += try_append(me->store, data, size_of(seed), durability, &me->refs[i]) != PLS_OK;
        uint32_t back = i - i % 5;
        me->wrong += !reads_filled(me->store, &me->refs[back], me->seed + back);
    }
    return NULL;
}

/* By segment and offset. */
static int by_place(const void *a, const void *b)
{
    const struct pls_ref *x = a, *y = b;
    if (x->file_id != y->file_id) {
        return x->file_id < y->file_id ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* No offset is given out twice, and no hole is left. */
static void assert_end_to_end(const struct writer *writers)
{
    enum { ALL = WRITERS * EACH };
    static struct pls_ref refs[ALL];
    size_t n = 0;
    for (size_t w = 0; w < WRITERS; w++) {
        for (size_t i = 0; i < EACH; i++) {
            refs[n++] = writers[w].refs[i];
        }
    }
    qsort(refs, ALL, sizeof *refs, by_place);
    for (size_t i = 0; i < ALL; i++) {
        bool first = i == 0 || refs[i - 1].file_id != refs[i].file_id;
        assert_int_equal(refs[i].offset,
                         first ? 0 : refs[i - 1].offset + 4 + (uint64_t)refs[i - 1].length);
    }
}

static void appends_from_many_threads_lie_end_to_end_and_read_back(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 100000;
    fx_reopen(fx);
    struct writer *writers = calloc(WRITERS, sizeof *writers);
    pthread_t threads[WRITERS];
    assert_non_null(writers);
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i].store = fx->store;
        writers[i].seed = i * EACH;
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &writers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].wrong, 0);
    }
    assert_end_to_end(writers);
    fx_crash(fx);
    for (size_t w = 0; w < WRITERS; w++) {
        for (uint32_t i = 0; i < EACH; i++) {
            assert_filled(fx->store, &writers[w].refs[i], writers[w].seed + i);
        }
    }
    free(writers);
}

/* -- compaction while others write and read -- */

enum { KEPT = 400, ROUNDS = 12, WRITES_A_ROUND = 4000 };

/* What is live: the writer puts a new payload in a slot, compactions move them, readers look. */
struct live {
    pls_store *store;
    pthread_mutex_t lock; /* guards the slots and `round` */
    struct {
        struct pls_ref ref;
        uint32_t seed;
        unsigned version; /* of the ref */
    } slots[KEPT];
    atomic_bool stop;
    atomic_uint round;
    atomic_uint writes;     /* begun and ended: odd while one is in flight */
    enum pls_code appended; /* the writer's: what its first append that failed said */
};

struct reader {
    struct live *live;
    pthread_t thread;
    unsigned wrong, reads;
};

static void put_in_slot(struct live *live, size_t slot, const struct pls_ref *ref, uint32_t seed)
{
    pthread_mutex_lock(&live->lock);
    live->slots[slot].ref = *ref;
    live->slots[slot].seed = seed;
    live->slots[slot].version++;
    pthread_mutex_unlock(&live->lock);
}

/* So much a round and no more: where syncs are slow, a compaction would else have ever more to do.
 */
static void *overwrite(void *arg)
{
    struct live *live = arg;
    uint8_t data[700];
    for (uint32_t i = 0; !atomic_load(&live->stop) && live->appended == PLS_OK;) {
        if (i >= (atomic_load(&live->round) + 1) * WRITES_A_ROUND) {
            sched_yield();
            continue;
        }
        uint32_t seed = 1000 + i;
        struct pls_ref ref;
        fill(data, sizeof data, seed);
        atomic_fetch_add(&live->writes, 1);
        live->appended = try_append(live->store, data, sizeof data, PLS_BUFFERED, &ref);
        if (live->appended == PLS_OK) {
            put_in_slot(live, (size_t)i * 17 % KEPT, &ref, seed);
        }
        atomic_fetch_add(&live->writes, 1);
        i++;
    }
    return NULL;
}

/* A ref that is replaced while it is read may be gone; one that is still in its slot may not, but
 * between a commit and the map being worked in. */
static void *read_slots(void *arg)
{
    struct reader *me = arg;
    struct live *live = me->live;
    for (size_t i = 0; !atomic_load(&live->stop); i = (i + 7) % KEPT) {
        bool good = false, replaced = true;
        while (!good && replaced) {
            pthread_mutex_lock(&live->lock);
            struct pls_ref ref = live->slots[i].ref;
            uint32_t seed = live->slots[i].seed;
            unsigned version = live->slots[i].version;
            pthread_mutex_unlock(&live->lock);
            good = reads_filled(live->store, &ref, seed);
            for (int patience = 0; !good && patience < 100000; patience++) {
                pthread_mutex_lock(&live->lock);
                replaced = live->slots[i].version != version;
                pthread_mutex_unlock(&live->lock);
                if (replaced) {
                    break;
                }
                sched_yield();
            }
        }
        me->wrong += !good;
        me->reads++;
    }
    return NULL;
}

/* A caller lists its live refs after the seal, and after what was in flight then. */
static size_t list_live(struct live *live, struct pls_ref *refs)
{
    unsigned then = atomic_load(&live->writes);
    while (then % 2 == 1 && atomic_load(&live->writes) == then) {
        sched_yield();
    }
    pthread_mutex_lock(&live->lock);
    for (size_t i = 0; i < KEPT; i++) {
        refs[i] = live->slots[i].ref;
    }
    pthread_mutex_unlock(&live->lock);
    return KEPT;
}

static void work_in(struct live *live, const struct outcome *outcome)
{
    pthread_mutex_lock(&live->lock);
    for (size_t i = 0; i < KEPT; i++) {
        const struct pls_ref *now = moved(outcome, &live->slots[i].ref);
        if (now != NULL) {
            live->slots[i].ref = *now;
            live->slots[i].version++;
        }
    }
    pthread_mutex_unlock(&live->lock);
}

static void compact_live(struct live *live, unsigned round, struct outcome *outcome)
{
    struct pls_ref refs[KEPT];
    struct pls_seal given = seal(live->store);
    size_t n = list_live(live, refs);
    struct pls_compact_options options = {.min_garbage_percent = round % 3 == 0 ? 30 : 0};
    compact(live->store, &given, &options, refs, n, outcome);
}

static void compactions_disturb_neither_appends_nor_reads(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 60000;
    fx_reopen(fx);
    static struct live live;
    live = (struct live){.store = fx->store};
    pthread_mutex_init(&live.lock, NULL);
    for (uint32_t i = 0; i < KEPT; i++) {
        live.slots[i].ref = put_filled(fx->store, 700, i);
        live.slots[i].seed = i;
    }
    pthread_t writer;
    struct reader readers[2] = {{.live = &live}, {.live = &live}};
    assert_int_equal(pthread_create(&writer, NULL, overwrite, &live), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_slots, &readers[i]), 0);
    }
    struct outcome outcome = {.code = PLS_OK};
    for (unsigned round = 0; round < ROUNDS && outcome.code == PLS_OK; round++) {
        atomic_store(&live.round, round);
        compact_live(&live, round, &outcome);
        work_in(&live, &outcome);
        outcome_fini(&outcome);
    }
    atomic_store(&live.stop,
                 true); /* no thread may outlive what it works on: then come the checks */
    pthread_join(writer, NULL);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(readers[i].thread, NULL);
    }
    assert_string_equal(pls_strerror(live.appended), pls_strerror(PLS_OK));
    assert_string_equal(outcome.error.text, "");
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(readers[0].wrong + readers[1].wrong, 0);
    fx_crash(fx);
    for (size_t i = 0; i < KEPT; i++) {
        assert_filled(fx->store, &live.slots[i].ref, live.slots[i].seed);
    }
    pthread_mutex_destroy(&live.lock);
}

static void *stat_and_list(void *arg)
{
    struct fixture *fx = arg;
    for (int i = 0; i < 50; i++) {
        struct pls_stat stat;
        char names[2][PLS_NAME_MAX + 1];
        bool more;
        if (pls_store_stat(fx->store, &stat, NULL) == PLS_OK) {
            pls_stat_fini(&stat);
        }
        pls_dir_list(fx->dir, "", names, 2, &more);
    }
    return NULL;
}

static void stores_are_made_and_looked_at_from_many_threads(void **state)
{
    struct fixture *fx = *state;
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, stat_and_list, fx), 0);
    }
    for (int i = 0; i < 20; i++) {
        pls_store *store;
        char name[] = {(char)('a' + i), '\0'};
        assert_int_equal(pls_store_open(fx->dir, name, 0, &store, NULL), PLS_OK);
        put_text(store, "x");
        put_text(fx->store, "y");
        seal(fx->store);
        pls_store_release(store);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(appends_from_many_threads_lie_end_to_end_and_read_back),
        STORE_TEST(compactions_disturb_neither_appends_nor_reads),
        STORE_TEST(stores_are_made_and_looked_at_from_many_threads),
    };
    return cmocka_run_group_tests_name("store_threads", tests, NULL, NULL);
}
