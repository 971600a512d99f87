/*
 * The store's hot paths against bare loops over the same bytes, alternately, in one run.
 *
 *   append      pls_append, BUFFERED, one caller     a checksum and one pwritev a record
 *   read        pls_read of random records           a pread and a checksum a record
 *   synced      pls_append, SYNCED, 64 in flight     a pwritev and an fdatasync a record
 *
 * Prints for each the median time of an operation on both sides, and the ratio bare/store: above 1
 * the store is faster. Machines are shared and noisy: the ratios are what counts.
 *
 *   bench_store DIRECTORY
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>
#include <payloadstore/payloadstore.h>

#define ROUNDS       7
#define PAYLOAD      1024u
#define RECORD       (PAYLOAD + 4u)
#define BUFFERED_OPS 50000u
#define SYNCED_OPS   512u
#define IN_FLIGHT    64u

static uint8_t payload[PAYLOAD];
static pls_store *store;
static int bare_fd;
static struct pls_ref refs[BUFFERED_OPS];
static uint32_t order[BUFFERED_OPS]; /* of the reads, the same on both sides */

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* -- append -- */

static void bare_append(uint32_t i)
{
    uint32_t prefix = PAYLOAD;
    struct iovec iov[] = {{&prefix, sizeof prefix}, {payload, PAYLOAD}};
    refs[i].crc32c = ~crc32_iscsi(payload, (int)PAYLOAD, ~0u);
    must(pwritev(bare_fd, iov, 2, (off_t)i * RECORD) == RECORD, "pwritev");
}

static void append_done(struct pls_append *append, enum pls_code code)
{
    must(code == PLS_OK, pls_strerror(code));
    *(volatile int *)append->data = 1;
}

static void store_append(uint32_t i)
{
    volatile int done = 0;
    struct iovec iov = {payload, PAYLOAD};
    struct pls_append append = {
        .payload = &iov, .n_payload = 1, .done = append_done, .data = (void *)&done};
    pls_append(store, &append);
    while (!done) { /* only at a rotation: one caller's BUFFERED append is answered inline */
        sched_yield();
    }
    refs[i] = append.ref;
}

/* -- read -- */

static void bare_read(uint32_t i)
{
    uint8_t record[RECORD];
    must(pread(bare_fd, record, RECORD, (off_t)order[i] * RECORD) == RECORD, "pread");
    must(~crc32_iscsi(record + 4, (int)PAYLOAD, ~0u) == refs[order[i]].crc32c, "checksum");
}

static void release(struct pls_read *read, enum pls_code code)
{
    must(code == PLS_OK, pls_strerror(code));
    pls_view_release(&read->view);
    *(volatile int *)read->data = 1;
}

static void store_read(uint32_t i)
{
    volatile int done = 0;
    struct pls_read read = {.ref = refs[order[i]], .done = release, .data = (void *)&done};
    pls_read(store, &read);
    while (!done) {
        sched_yield();
    }
}

/* -- synced -- */

static void bare_synced(uint32_t i)
{
    bare_append(i);
    must(fdatasync(bare_fd) == 0, "fdatasync");
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards in_flight */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned in_flight;

static void synced_done(struct pls_append *append, enum pls_code code)
{
    must(code == PLS_OK, pls_strerror(code));
    free(append);
    pthread_mutex_lock(&lock);
    in_flight--;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_below(unsigned n)
{
    pthread_mutex_lock(&lock);
    while (in_flight >= n) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static void store_synced(uint32_t i)
{
    static const struct iovec iov = {payload, PAYLOAD};
    struct pls_append *append = calloc(1, sizeof *append);
    must(append != NULL, "calloc");
    *append = (struct pls_append){
        .payload = &iov, .n_payload = 1, .durability = PLS_SYNCED, .done = synced_done};
    wait_below(IN_FLIGHT);
    pthread_mutex_lock(&lock);
    in_flight++;
    pthread_mutex_unlock(&lock);
    pls_append(store, append);
    if (i == SYNCED_OPS - 1) {
        wait_below(1);
    }
}

/* -- the comparison -- */

static double time_of(void (*operation)(uint32_t i), uint32_t n)
{
    double start = now();
    for (uint32_t i = 0; i < n; i++) {
        operation(i);
    }
    return (now() - start) / n;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `grows`: the bare file begins anew in each round, for what a store writes is new to the file
 * system each time. */
static void compare(const char *name, void (*bare)(uint32_t i), void (*ours)(uint32_t i),
                    uint32_t n, bool grows)
{
    double bare_ns[ROUNDS], our_ns[ROUNDS], ratio[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        must(!grows || ftruncate(bare_fd, 0) == 0, "ftruncate");
        bare_ns[round] = time_of(bare, n);
        our_ns[round] = time_of(ours, n);
        ratio[round] = bare_ns[round] / our_ns[round];
    }
    qsort(bare_ns, ROUNDS, sizeof *bare_ns, ascending);
    qsort(our_ns, ROUNDS, sizeof *our_ns, ascending);
    qsort(ratio, ROUNDS, sizeof *ratio, ascending);
    printf("%-8s bare %9.0f ns   store %9.0f ns   bare/store %.2f (%.2f to %.2f)\n", name,
           bare_ns[ROUNDS / 2], our_ns[ROUNDS / 2], ratio[ROUNDS / 2], ratio[0], ratio[ROUNDS - 1]);
}

int main(int argc, char **argv)
{
    char path[512];
    struct pls_error error;
    pls_dir *dir;
    if (argc != 2) {
        fprintf(stderr, "usage: bench_store DIRECTORY\n");
        return 2;
    }
    must(mkdir(argv[1], 0755) == 0 || errno == EEXIST, argv[1]);
    snprintf(path, sizeof path, "%s/bare", argv[1]);
    bare_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    must(bare_fd >= 0, path);
    snprintf(path, sizeof path, "%s/store", argv[1]);
    if (pls_dir_open(path, NULL, &dir, &error) != PLS_OK ||
        pls_store_open(dir, "bench", 0, &store, &error) != PLS_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (uint32_t i = 0; i < PAYLOAD; i++) {
        payload[i] = (uint8_t)(i * 7);
    }
    for (uint32_t i = 0; i < BUFFERED_OPS; i++) {
        order[i] = (uint32_t)(i * 2654435761u) % BUFFERED_OPS;
    }
    compare("append", bare_append, store_append, BUFFERED_OPS, true);
    compare("read", bare_read, store_read, BUFFERED_OPS, false);
    compare("synced", bare_synced, store_synced, SYNCED_OPS, true);
    pls_store_release(store);
    close(bare_fd);
    return pls_dir_close(dir) == PLS_OK ? 0 : 1;
}
