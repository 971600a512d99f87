#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

#define PLACES  4096u /* where a payload may begin */
#define STEP    8u    /* bytes from one to the next */
#define SAMPLES 64u
#define A_BATCH MIB /* bytes of a batch */

void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_store: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

void must_agree(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_store: %s\n", what);
        exit(1);
    }
}

void must_be_ok(enum pls_code code, const char *what)
{
    if (code != PLS_OK) {
        fprintf(stderr, "bench_store: %s: %s\n", what, pls_strerror(code));
        exit(1);
    }
}

void must_tell(enum pls_code code, const struct pls_error *error)
{
    must_agree(code == PLS_OK, error->text);
}

void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    must(memory != NULL, "memory");
    return memory;
}

static double ns_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct instant now(void)
{
    return (struct instant){ns_of(CLOCK_MONOTONIC), ns_of(CLOCK_PROCESS_CPUTIME_ID)};
}

struct taken taken_since(struct instant start, uint32_t ops)
{
    struct instant end = now();
    return (struct taken){.ns = (end.wall_ns - start.wall_ns) / ops,
                          .cpu_ns = (end.cpu_ns - start.cpu_ns) / ops};
}

const char *path_of(const struct options *options, const char *name)
{
    static char path[PATH_MAX];
    must(snprintf(path, sizeof path, "%s/%s", options->directory, name) < PATH_MAX, "the path");
    return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void remove_tree(const char *path)
{
    must(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT, path);
}

static uint8_t *payloads;

void payloads_init(uint32_t bytes)
{
    size_t size = (size_t)PLACES * STEP + bytes;
    uint64_t x = 0x9e3779b97f4a7c15u;
    payloads = allocate(1, size);
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        payloads[i] = (uint8_t)(x >> 32);
    }
}

const uint8_t *payload_of(uint32_t i)
{
    return payloads + (size_t)(i % PLACES) * STEP;
}

/* -- a store ----------------------------------------------------------------------------------- */

void place_open(struct place *place, const struct options *options, uint64_t segment_max_bytes)
{
    struct pls_options with = {.segment_max_bytes = segment_max_bytes};
    struct pls_error error;
    must_tell(pls_dir_open(path_of(options, "store"), &with, &place->dir, &error), &error);
    must_tell(pls_store_open(place->dir, "bench", 0, &place->store, &error), &error);
}

void place_close(struct place *place)
{
    pls_store_release(place->store);
    must_be_ok(pls_dir_close(place->dir), "closing the store");
}

static void on_filled(struct pls_append *append, enum pls_code code)
{
    must_be_ok(code, "filling the store");
    sem_post(append->data);
}

void fill(pls_store *store, uint32_t n, uint32_t bytes, uint32_t a_batch, struct pls_ref *refs)
{
    struct pls_record *records = allocate(a_batch, sizeof *records);
    sem_t filled;
    sem_init(&filled, 0, 0);
    for (uint32_t i = 0, k; i < n; i += k) {
        for (k = 0; k < a_batch && i + k < n; k++) {
            records[k] = (struct pls_record){.payload = {(void *)payload_of(i + k), bytes}};
        }
        struct pls_append append = {.done = on_filled, .data = &filled};
        pls_append_batch(store, &append, records, k);
        while (sem_wait(&filled) != 0) {
        }
        for (uint32_t j = 0; refs != NULL && j < k; j++) {
            refs[i + j] = records[j].ref;
        }
    }
    sem_destroy(&filled);
    free(records);
}

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

uint32_t batch_of(uint32_t bytes)
{
    return bytes < A_BATCH ? least(A_BATCH / (bytes + 4), PLS_BATCH_MAX) : 1;
}

/* Thousands of segments are thousands of syncs: they are left out while making the store, and one
 * for all follows. A batch that is larger than a segment has one to itself. */
static void make_in_child(const struct options *options, void *refs)
{
    struct place place;
    bool many = options->segments > 1;
    plsi_sys_pretend_syncs(true);
    place_open(&place, options, many ? 1 : 0);
    fill(place.store, options->ops, options->bytes,
         many ? options->ops / options->segments : batch_of(options->bytes), refs);
    place_close(&place);
    int fd = open(options->directory, O_RDONLY | O_DIRECTORY);
    must(fd >= 0 && syncfs(fd) == 0, "syncing the store");
}

void make_store(const struct options *options, struct pls_ref *refs)
{
    remove_tree(path_of(options, "store"));
    in_child(make_in_child, options, refs);
}

struct pls_seal seal(pls_store *store)
{
    struct pls_seal given;
    struct pls_error error;
    must_tell(pls_store_seal(store, 0, &given, &error), &error);
    return given;
}

struct sample {
    sem_t read;
    const uint8_t *payload;
};

static void on_sample(struct pls_read *read, enum pls_code code)
{
    struct sample *sample = read->data;
    must_be_ok(code, "reading a payload back");
    must_agree(memcmp(read->view.data, sample->payload, read->ref.length) == 0,
               "a payload reads as another");
    pls_view_release(&read->view);
    sem_post(&sample->read);
}

void check_some(pls_store *store, const struct pls_ref *refs, uint32_t n, uint32_t bytes,
                uint32_t every)
{
    struct sample sample;
    uint32_t step = n / SAMPLES + 1;
    sem_init(&sample.read, 0, 0);
    for (uint32_t i = (n - 1) % step; i < n; i += step) {
        struct pls_read read = {.ref = refs[i], .done = on_sample, .data = &sample};
        sample.payload = payload_of(i * every);
        must_agree(read.ref.length == bytes, "a ref has another payload's length");
        pls_read(store, &read);
        while (sem_wait(&sample.read) != 0) {
        }
    }
    sem_destroy(&sample.read);
}

/* -- processes --------------------------------------------------------------------------------- */

void *shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(memory != MAP_FAILED, "memory");
    return memory;
}

void shared_end(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

void in_child(void (*run)(const struct options *options, void *arg), const struct options *options,
              void *arg)
{
    int status;
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(options, arg);
        fflush(NULL);
        _exit(0);
    }
    while (waitpid(child, &status, 0) != child) {
    }
    if (status != 0) { /* it has said why */
        exit(1);
    }
}
