/* FORMAT.md: its hex dumps, written to files, are a store, and what a store writes is such a dump.
 */
#include "store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define DUMP_MAX ((size_t)16 * KIB)

struct dump {
    uint8_t bytes[DUMP_MAX];
    size_t n;
};

/* "00000010: 0000 6768 69    ..ghi" */
static bool add_line(struct dump *dump, const char *line)
{
    char *at;
    unsigned long offset = strtoul(line, &at, 16);
    if (at != line + 8 || *at != ':' || offset + 16 > DUMP_MAX) {
        return false;
    }
    dump->n = offset;
    at++;
    while (at[0] == ' ' && at[1] != ' ') {
        for (at++; at[0] != ' '; at += 2) {
            const char digits[] = {at[0], at[1], '\0'};
            dump->bytes[dump->n++] = (uint8_t)strtoul(digits, NULL, 16);
        }
    }
    return true;
}

/* The dumps of the page in order. */
enum { SEGMENT, INDEX, STATE, RELOCATIONS, SEAL_AGES, DUMPS };

static void read_dumps(struct dump dumps[DUMPS])
{
    char line[1024];
    size_t n = 0;
    FILE *page = fopen(FORMAT_MD, "r");
    assert_non_null(page);
    while (fgets(line, sizeof line, page) != NULL && n < DUMPS) {
        bool is_dump = add_line(&dumps[n], line);
        n += !is_dump && dumps[n].n > 0;
    }
    fclose(page);
    assert_int_equal(n, DUMPS);
}

static void the_dumps_of_the_page_are_a_store(void **state)
{
    static struct dump dumps[DUMPS];
    struct fixture *fx = *state;
    read_dumps(dumps);
    assert_int_equal(dumps[SEGMENT].n, 21);
    file_write(fx, "page/store.state", 0, dumps[STATE].bytes, dumps[STATE].n);
    file_write(fx, "page/relocations.tab", 0, dumps[RELOCATIONS].bytes, dumps[RELOCATIONS].n);
    file_write(fx, "page/payload_0001.dat", 0, dumps[SEGMENT].bytes + 7, 7);
    file_write(fx, "page/payload_0002.dat", 0, "", 0);
    file_write(fx, "plain/payload_0000.dat", 0, dumps[SEGMENT].bytes, dumps[SEGMENT].n);
    file_write(fx, "indexed/payload_0000.dat", 0, dumps[SEGMENT].bytes, dumps[SEGMENT].n);
    file_write(fx, "indexed/index_0000.idx", 0, dumps[INDEX].bytes, dumps[INDEX].n);
    file_flip(fx, "indexed/payload_0000.dat", 4);
    fx_reopen(fx);
    pls_store *page, *plain, *indexed;
    assert_int_equal(pls_store_find(fx->dir, "indexed", &indexed, NULL), PLS_OK);
    assert_int_equal(pls_store_find(fx->dir, "page", &page, NULL), PLS_OK);
    assert_int_equal(pls_store_find(fx->dir, "plain", &plain, NULL), PLS_OK);
    assert_int_equal(active_id(page), 2);
    assert_text(page, &(struct pls_ref){.file_id = 0, .offset = 7, .length = 3}, "def");
    assert_text(page, &(struct pls_ref){.file_id = 1, .offset = 0, .length = 3}, "def");
    assert_unreadable(page, &(struct pls_ref){.file_id = 0, .offset = 0, .length = 3},
                      PLS_NO_RECORD);
    assert_text(plain, &(struct pls_ref){.offset = 0, .length = 3}, "abc");
    assert_text(plain, &(struct pls_ref){.offset = 14, .length = 3}, "ghi");
    /* The index knows the checksum of what was there. */
    assert_unreadable(indexed, &(struct pls_ref){.offset = 0, .length = 3}, PLS_DAMAGED);
    assert_text(indexed, &(struct pls_ref){.offset = 7, .length = 3}, "def");
    pls_store_release(indexed);
    pls_store_release(page);
    pls_store_release(plain);
}

static void a_seal_writes_the_ages_of_the_page(void **state)
{
    static struct dump dumps[DUMPS];
    struct fixture *fx = *state;
    read_dumps(dumps);
    plsi_clock_stop();
    put_text(fx->store, "abc");
    put_text(fx->store, "def");
    plsi_clock_shift(9500);
    put_text(fx->store, "ghi");
    plsi_clock_shift(500);
    seal(fx->store);
    uint8_t bytes[DUMP_MAX];
    assert_int_equal(file_size(fx, "s/seal_0000.ages"), dumps[SEAL_AGES].n);
    file_read(fx, "s/seal_0000.ages", 0, bytes, dumps[SEAL_AGES].n);
    assert_memory_equal(bytes, dumps[SEAL_AGES].bytes, dumps[SEAL_AGES].n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(the_dumps_of_the_page_are_a_store),
        STORE_TEST(a_seal_writes_the_ages_of_the_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
