/*
 * The real job through C stubs: thousands of real files in, out, sealed, compacted, restarted, and
 * every byte compared.
 *
 * The steps build on one another, in one test: each is the next day of the same store.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server_process.h"
#include "service_client.h"

#define STORE   "real-job"
#define CALLERS 4
#define KEEP    3 /* every third is live */

static const char *const flags[] = {"--segment-max-mb", "16", NULL};

struct item {
    struct ref ref; /* first: sorted by it */
    char *path;
};

static struct item *items;
static size_t n_items, room_items;

/* -- the files --------------------------------------------------------------------------------- */

static int add_file(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)walk;
    if (kind != FTW_F) {
        return 0;
    }
    if (n_items == room_items) {
        room_items = room_items * 2 + 1024;
        items = realloc(items, room_items * sizeof *items);
    }
    items[n_items++] = (struct item){.path = strdup(path)};
    return 0;
}

static uint8_t *load(const char *path, size_t *length)
{
    struct stat st = {0};
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    *length = (size_t)st.st_size;
    assert_int_equal(read(fd, bytes, *length), (ssize_t)*length);
    close(fd);
    return bytes;
}

/* -- from several callers at once -- */

struct caller {
    pthread_t thread;
    grpc_c_channel *channel;
    size_t first;
    atomic_size_t *failures;
    bool (*each)(grpc_c_channel *channel, size_t i);
};

static void *call_each(void *arg)
{
    struct caller *caller = arg;
    for (size_t i = caller->first; i < n_items; i += CALLERS) {
        if (!caller->each(caller->channel, i)) {
            printf("# %s failed\n", items[i].path);
            atomic_fetch_add(caller->failures, 1);
        }
    }
    return NULL;
}

static void for_each_item(grpc_c_channel *channel, bool (*each)(grpc_c_channel *channel, size_t i))
{
    struct caller callers[CALLERS];
    atomic_size_t failures = 0;
    for (size_t k = 0; k < CALLERS; k++) {
        callers[k] =
            (struct caller){.channel = channel, .first = k, .failures = &failures, .each = each};
        assert_int_equal(pthread_create(&callers[k].thread, NULL, call_each, &callers[k]), 0);
    }
    for (size_t k = 0; k < CALLERS; k++) {
        pthread_join(callers[k].thread, NULL);
    }
    assert_int_equal(failures, 0);
}

static bool append_item(grpc_c_channel *channel, size_t i)
{
    size_t length;
    uint8_t *bytes = load(items[i].path, &length);
    enum grpc_c_code code =
        client_append(channel, STORE, bytes, length,
                      i % 16 == 0 ? PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED
                                  : PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED,
                      &items[i].ref);
    free(bytes);
    return code == GRPC_C_OK && items[i].ref.length == length;
}

static bool compare_item(grpc_c_channel *channel, size_t i)
{
    size_t length, stored_length = 0;
    uint8_t *stored = NULL;
    if (client_read(channel, STORE, &items[i].ref, &stored, &stored_length) != GRPC_C_OK) {
        return false;
    }
    uint8_t *bytes = load(items[i].path, &length);
    bool same = length == stored_length && (length == 0 || memcmp(bytes, stored, length) == 0);
    free(bytes);
    free(stored);
    return same;
}

static bool compare_kept(grpc_c_channel *channel, size_t i)
{
    return i % KEEP != 0 || compare_item(channel, i);
}

/* What was not kept is gone: not as damage, not as other bytes. */
static bool dead_is_gone(grpc_c_channel *channel, size_t i)
{
    uint8_t *stored = NULL;
    size_t length = 0;
    if (i % KEEP == 0) {
        return true;
    }
    enum grpc_c_code code = client_read(channel, STORE, &items[i].ref, &stored, &length);
    free(code == GRPC_C_OK ? stored : NULL);
    return code == GRPC_C_NOT_FOUND;
}

/* -- compaction -- */

struct moves {
    size_t n;
    struct ref *new_refs; /* by item */
    bool unknown;
};

static void note_move(void *arg, const struct ref *old_ref, const struct ref *new_ref)
{
    struct moves *moves = arg;
    const struct item *item = bsearch(old_ref, items, n_items, sizeof *items, ref_compare);
    if (item == NULL || (item - items) % KEEP != 0) {
        moves->unknown = true;
        return;
    }
    moves->new_refs[item - items] = *new_ref;
    moves->n++;
}

static void compact(grpc_c_channel *channel, uint32_t sealed_id, const struct ref *later)
{
    size_t n_live = (n_items + KEEP - 1) / KEEP;
    struct ref *live = calloc(n_live + 1, sizeof *live);
    struct moves moves = {.new_refs = calloc(n_items, sizeof *moves.new_refs)};
    struct client_summary summary = {0};
    for (size_t i = 0; i < n_live; i++) {
        live[i] = items[i * KEEP].ref;
    }
    live[n_live] = *later;

    grpc_c_stream *stream = client_compact_open(channel, STORE, sealed_id);
    client_compact_live(stream, live, n_live + 1, 1);
    client_compact_commit(stream);
    assert_int_equal(client_compact_finish(stream, note_move, &moves, &summary), GRPC_C_OK);
    assert_false(moves.unknown);
    assert_int_equal(moves.n, n_live);
    assert_int_equal(summary.live, n_live);
    assert_int_equal(summary.relocated, n_live);
    assert_true(summary.deleted > 1);
    for (size_t i = 0; i < n_items; i += KEEP) {
        items[i].ref = moves.new_refs[i];
    }
    free(moves.new_refs);
    free(live);
}

/* -- the job -- */

static void files_survive_append_seal_compaction_and_restart(void **state)
{
    struct server_process *server = *state;
    server_process_start(server, flags);
    for_each_item(server->channel, append_item);
    for_each_item(server->channel, compare_item);
    qsort(items, n_items, sizeof *items, ref_compare);

    uint32_t sealed_id;
    struct ref later;
    assert_int_equal(client_seal(server->channel, STORE, &sealed_id), GRPC_C_OK);
    assert_int_equal(client_append(server->channel, STORE, "later", 5,
                                   PAYLOADSTORE__V1__DURABILITY__DURABILITY_SYNCED, &later),
                     GRPC_C_OK);
    assert_int_equal(later.file_id, sealed_id + 2);

    uint64_t before = client_disk_usage(server->channel, STORE);
    compact(server->channel, sealed_id, &later);
    uint64_t after = client_disk_usage(server->channel, STORE);
    printf("# %zu files, %lu bytes on disk before the compaction, %lu after\n", n_items,
           (unsigned long)before, (unsigned long)after);
    assert_true(after < before / 2);
    for_each_item(server->channel, compare_kept);
    for_each_item(server->channel, dead_is_gone);

    assert_int_equal(server_process_stop(server, SIGTERM), 0);
    server_process_start(server, flags);
    for_each_item(server->channel, compare_kept);
    for_each_item(server->channel, dead_is_gone);
    assert_int_equal(server_process_stop(server, SIGTERM), 0);
}

static int set_up(void **state)
{
    static struct server_process server;
    nftw("/usr/share/doc", add_file, 32, FTW_PHYS);
    nftw("/usr/include", add_file, 32, FTW_PHYS);
    server_process_init(&server);
    *state = &server;
    return n_items > 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    server_process_fini(*state);
    for (size_t i = 0; i < n_items; i++) {
        free(items[i].path);
    }
    free(items);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_survive_append_seal_compaction_and_restart),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
