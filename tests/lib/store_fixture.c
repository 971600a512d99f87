#include "store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "work_dir.h"

/* -- the directory ----------------------------------------------------------------------------- */

static void on_log(void *arg, enum pls_log_level level, const char *store, const char *event,
                   const char *text)
{
    struct fixture *fx = arg;
    (void)level;
    (void)store;
    pthread_mutex_lock(&fx->lock);
    size_t used = strlen(fx->log);
    snprintf(fx->log + used, sizeof fx->log - used, "%s: %s\n", event, text);
    pthread_mutex_unlock(&fx->lock);
}

bool fx_logged(struct fixture *fx, const char *words)
{
    pthread_mutex_lock(&fx->lock);
    bool found = strstr(fx->log, words) != NULL;
    pthread_mutex_unlock(&fx->lock);
    return found;
}

int fx_setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof *fx);
    if (fx == NULL) {
        return -1;
    }
    work_dir_create(fx->path);
    pthread_mutex_init(&fx->lock, NULL);
    fx->options = (struct pls_options){
        .segment_max_bytes = MIB, .io_threads = 2, .log = on_log, .log_arg = fx};
    *state = fx;
    fx_open(fx);
    return 0;
}

int fx_teardown(void **state)
{
    struct fixture *fx = *state;
    pls_store_release(fx->store);
    pls_dir_close(fx->dir);
    work_dir_remove(fx->path);
    pthread_mutex_destroy(&fx->lock);
    free(fx);
    return 0;
}

void fx_open(struct fixture *fx)
{
    struct pls_error error;
    if (pls_dir_open(fx->path, &fx->options, &fx->dir, &error) != PLS_OK ||
        pls_store_open(fx->dir, "s", 0, &fx->store, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
    settle(fx->store);
}

void settle(pls_store *store)
{
    plsi_store_quiesce(store);
}

void fx_close(struct fixture *fx)
{
    pls_dir *dir = fx->dir;
    pls_store_release(fx->store);
    fx->store = NULL;
    fx->dir = NULL;
    assert_int_equal(pls_dir_close(dir), PLS_OK);
}

void fx_reopen(struct fixture *fx)
{
    fx_close(fx);
    fx_open(fx);
}

void fx_crash(struct fixture *fx)
{
    char copy[PATH_MAX + 8];
    snprintf(copy, sizeof copy, "%s.crash", fx->path);
    fx_copy(fx, copy);
    fx_close(fx);
    work_dir_remove(fx->path);
    assert_int_equal(rename(copy, fx->path), 0);
    fx_open(fx);
}

static void copy_file(const char *from, const char *to)
{
    static char buffer[64 * KIB];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    assert_true(in != NULL && out != NULL);
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) {
        assert_int_equal(fwrite(buffer, 1, n, out), n);
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void copy_tree(const char *from, const char *to)
{
    assert_int_equal(mkdir(to, 0755), 0);
    DIR *dir = opendir(from);
    assert_non_null(dir);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char a[PATH_MAX], b[PATH_MAX];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        assert_true(snprintf(a, sizeof a, "%s/%s", from, entry->d_name) < (int)sizeof a);
        assert_true(snprintf(b, sizeof b, "%s/%s", to, entry->d_name) < (int)sizeof b);
        assert_int_equal(lstat(a, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            copy_tree(a, b);
        } else {
            copy_file(a, b);
        }
    }
    closedir(dir);
}

void fx_copy(const struct fixture *fx, const char *path)
{
    copy_tree(fx->path, path);
}

/* -- payloads ---------------------------------------------------------------------------------- */

void fill(uint8_t *data, size_t n, uint32_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data[i] = (uint8_t)(x >> 32);
    }
}

/* An answer that is waited for. */
struct answer {
    pthread_mutex_t lock; /* a leaf; guards the two below */
    pthread_cond_t came;
    bool is_there;
    enum pls_code code;
};

static void answer_init(struct answer *answer)
{
    *answer = (struct answer){0};
    pthread_mutex_init(&answer->lock, NULL);
    pthread_cond_init(&answer->came, NULL);
}

static void answer_give(struct answer *answer, enum pls_code code)
{
    pthread_mutex_lock(&answer->lock);
    answer->is_there = true;
    answer->code = code;
    pthread_cond_signal(&answer->came);
    pthread_mutex_unlock(&answer->lock);
}

static enum pls_code answer_wait(struct answer *answer)
{
    pthread_mutex_lock(&answer->lock);
    while (!answer->is_there) {
        pthread_cond_wait(&answer->came, &answer->lock);
    }
    enum pls_code code = answer->code;
    pthread_mutex_unlock(&answer->lock);
    pthread_cond_destroy(&answer->came);
    pthread_mutex_destroy(&answer->lock);
    return code;
}

static void on_append(struct pls_append *append, enum pls_code code)
{
    answer_give(append->data, code);
}

enum pls_code try_append_as(pls_store *store, uint64_t epoch, const void *data, size_t n,
                            enum pls_durability durability, struct pls_ref *ref)
{
    struct answer answer;
    struct iovec part = {.iov_base = (void *)data, .iov_len = n};
    struct pls_append append = {.payload = &part,
                                .n_payload = 1,
                                .durability = durability,
                                .epoch = epoch,
                                .done = on_append,
                                .data = &answer};
    answer_init(&answer);
    pls_append(store, &append);
    enum pls_code code = answer_wait(&answer);
    *ref = append.ref;
    return code;
}

enum pls_code try_append(pls_store *store, const void *data, size_t n,
                         enum pls_durability durability, struct pls_ref *ref)
{
    return try_append_as(store, 0, data, n, durability, ref);
}

struct pls_ref put(pls_store *store, const void *data, size_t n)
{
    struct pls_ref ref;
    assert_int_equal(try_append(store, data, n, PLS_BUFFERED, &ref), PLS_OK);
    return ref;
}

struct pls_ref put_text(pls_store *store, const char *text)
{
    return put(store, text, strlen(text));
}

struct pls_ref put_filled(pls_store *store, size_t n, uint32_t seed)
{
    uint8_t *data = malloc(n + 1);
    assert_non_null(data);
    fill(data, n, seed);
    struct pls_ref ref = put(store, data, n);
    free(data);
    return ref;
}

static void on_read(struct pls_read *read, enum pls_code code)
{
    answer_give(read->data, code);
}

enum pls_code try_read(pls_store *store, const struct pls_ref *ref, struct pls_view *view)
{
    struct answer answer;
    struct pls_read read = {.ref = *ref, .done = on_read, .data = &answer};
    answer_init(&answer);
    pls_read(store, &read);
    enum pls_code code = answer_wait(&answer);
    *view = read.view;
    return code;
}

void try_read_batch(pls_store *store, const struct pls_ref *refs, size_t n, struct pls_view *views,
                    enum pls_code *codes)
{
    struct answer *answers = calloc(n, sizeof *answers);
    struct pls_read *reads = calloc(n, sizeof *reads);
    assert_non_null(answers);
    assert_non_null(reads);
    for (size_t i = 0; i < n; i++) {
        answer_init(&answers[i]);
        reads[i] = (struct pls_read){.ref = refs[i], .done = on_read, .data = &answers[i]};
    }
    pls_read_batch(store, reads, n);
    for (size_t i = 0; i < n; i++) {
        codes[i] = answer_wait(&answers[i]);
        views[i] = reads[i].view;
    }
    free(reads);
    free(answers);
}

bool reads_filled(pls_store *store, const struct pls_ref *ref, uint32_t seed)
{
    struct pls_view view;
    uint8_t *data = malloc((size_t)ref->length + 1);
    bool same = data != NULL && try_read(store, ref, &view) == PLS_OK;
    if (same) {
        fill(data, ref->length, seed);
        same = view.length == ref->length && memcmp(view.data, data, ref->length) == 0;
        pls_view_release(&view);
    }
    free(data);
    return same;
}

void assert_text(pls_store *store, const struct pls_ref *ref, const char *text)
{
    struct pls_view view;
    assert_int_equal(try_read(store, ref, &view), PLS_OK);
    assert_int_equal(view.length, strlen(text));
    assert_memory_equal(view.data, text, view.length);
    pls_view_release(&view);
}

void assert_filled(pls_store *store, const struct pls_ref *ref, uint32_t seed)
{
    if (!reads_filled(store, ref, seed)) {
        fail_msg("%u:%ju of %u bytes does not read back", ref->file_id, (uintmax_t)ref->offset,
                 ref->length);
    }
}

void assert_unreadable(pls_store *store, const struct pls_ref *ref, enum pls_code code)
{
    struct pls_view view;
    assert_int_equal(try_read(store, ref, &view), code);
    assert_null(view.owner);
}

void assert_ref(const struct pls_ref *ref, uint32_t file_id, uint64_t offset, uint32_t length)
{
    assert_int_equal(ref->file_id, file_id);
    assert_int_equal(ref->offset, offset);
    assert_int_equal(ref->length, length);
}

/* -- seal, compaction, stat -------------------------------------------------------------------- */

struct pls_seal seal(pls_store *store)
{
    struct pls_seal given;
    struct pls_error error;
    if (pls_store_seal(store, 0, &given, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
    settle(store);
    return given;
}

void assert_seal(const struct pls_seal *given, uint32_t sealed_id, uint32_t compaction_id)
{
    assert_int_equal(given->sealed_id, sealed_id);
    assert_int_equal(given->compaction_id, compaction_id);
}

uint64_t disk_usage(pls_store *store)
{
    struct pls_stat stat;
    assert_int_equal(pls_store_stat(store, &stat, NULL), PLS_OK);
    uint64_t bytes = stat.disk_usage_bytes;
    pls_stat_fini(&stat);
    return bytes;
}

uint32_t active_id(pls_store *store)
{
    struct pls_stat stat;
    assert_int_equal(pls_store_stat(store, &stat, NULL), PLS_OK);
    uint32_t id = stat.active_id;
    pls_stat_fini(&stat);
    return id;
}

static void take_result(pls_compact *compaction, struct outcome *outcome)
{
    size_t n, room = 0;
    pls_compact_summary(compaction, &outcome->summary);
    do {
        if (outcome->n_map + 3 > room) {
            room = room * 2 + 64;
            struct pls_relocation *map = realloc(outcome->map, room * sizeof *map);
            if (map == NULL) {
                outcome->code = PLS_NO_MEMORY;
                return;
            }
            outcome->map = map;
        }
        outcome->code = pls_compact_next_map(compaction, outcome->map + outcome->n_map, 3, &n);
        outcome->n_map += n;
    } while (outcome->code == PLS_OK && n > 0);
    outcome->n_damaged = pls_compact_next_damaged(
        compaction, outcome->damaged, sizeof outcome->damaged / sizeof *outcome->damaged);
}

void compact(pls_store *store, const struct pls_seal *given,
             const struct pls_compact_options *options, const struct pls_ref *live, size_t n,
             struct outcome *outcome)
{
    pls_compact *compaction;
    *outcome = (struct outcome){0};
    outcome->code = pls_compact_begin(store, given,
                                      options != NULL ? options : &(struct pls_compact_options){0},
                                      &compaction, &outcome->error);
    if (outcome->code != PLS_OK) {
        return;
    }
    outcome->code = pls_compact_live(compaction, live, n, &outcome->error);
    if (outcome->code == PLS_OK) {
        outcome->code = pls_compact_run(compaction, NULL, NULL, &outcome->error);
    }
    outcome->committed = outcome->code == PLS_OK;
    if (outcome->code == PLS_OK) {
        take_result(compaction, outcome);
    }
    pls_compact_destroy(compaction);
}

struct pls_compact_summary compact_ok(pls_store *store, const struct pls_seal *given,
                                      const struct pls_ref *live, size_t n)
{
    struct outcome outcome;
    compact(store, given, NULL, live, n, &outcome);
    if (outcome.code != PLS_OK) {
        fail_msg("%s", outcome.error.text);
    }
    outcome_fini(&outcome);
    return outcome.summary;
}

void outcome_fini(struct outcome *outcome)
{
    free(outcome->map);
    outcome->map = NULL;
}

const struct pls_ref *moved(const struct outcome *outcome, const struct pls_ref *old_ref)
{
    for (size_t i = 0; i < outcome->n_map; i++) {
        const struct pls_ref *ref = &outcome->map[i].old_ref;
        if (ref->file_id == old_ref->file_id && ref->offset == old_ref->offset) {
            assert_int_equal(ref->length, old_ref->length);
            return &outcome->map[i].new_ref;
        }
    }
    return NULL;
}

/* -- files ------------------------------------------------------------------------------------- */

static void path_of(const struct fixture *fx, const char *name, char path[PATH_MAX])
{
    assert_true(snprintf(path, PATH_MAX, "%s/%s", fx->path, name) < PATH_MAX);
}

static int open_file(const struct fixture *fx, const char *name, int flags)
{
    char path[PATH_MAX];
    path_of(fx, name, path);
    int fd = open(path, flags | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    return fd;
}

bool file_exists(const struct fixture *fx, const char *name)
{
    char path[PATH_MAX];
    path_of(fx, name, path);
    return access(path, F_OK) == 0;
}

uint64_t file_size(const struct fixture *fx, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    path_of(fx, name, path);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void file_write(const struct fixture *fx, const char *name, uint64_t offset, const void *data,
                size_t n)
{
    char path[PATH_MAX];
    path_of(fx, name, path);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    mkdir(path, 0755);
    int fd = open_file(fx, name, O_WRONLY | O_CREAT);
    assert_int_equal(pwrite(fd, data, n, (off_t)offset), n);
    close(fd);
}

void file_read(const struct fixture *fx, const char *name, uint64_t offset, void *data, size_t n)
{
    int fd = open_file(fx, name, O_RDONLY);
    assert_int_equal(pread(fd, data, n, (off_t)offset), n);
    close(fd);
}

void file_flip(const struct fixture *fx, const char *name, uint64_t offset)
{
    uint8_t byte;
    file_read(fx, name, offset, &byte, 1);
    byte = (uint8_t)~byte;
    file_write(fx, name, offset, &byte, 1);
}

void file_remove(const struct fixture *fx, const char *name)
{
    char path[PATH_MAX];
    path_of(fx, name, path);
    assert_int_equal(unlink(path), 0);
}

void file_cut(const struct fixture *fx, const char *name, uint64_t size)
{
    int fd = open_file(fx, name, O_WRONLY);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

size_t file_count(const struct fixture *fx, const char *directory, const char *prefix)
{
    char path[PATH_MAX];
    path_of(fx, directory, path);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    }
    closedir(dir);
    return n;
}
