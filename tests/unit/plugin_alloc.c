/*
 * Memory that runs out at any point of the plugin's work is an error, and neither a crash nor code
 * with something missing. The linker leads the plugin's allocations here (see plugin.cmake).
 */
#include "plugin_fixture.h"

#include <stdbool.h>
#include <string.h>

static int armed;
static unsigned long countdown; /* allocations that still succeed while armed */
static bool forever;            /* all after the failing one fail as well */
static bool failed;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_reallocarray(void *memory, size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size);

static bool fails(void)
{
    if (armed == 0 || (failed && !forever)) {
        return false;
    }
    if (countdown > 0) {
        countdown--;
        return false;
    }
    failed = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t size)
{
    return fails() ? NULL : __real_reallocarray(memory, count, size);
}

static void assert_failed_well(const struct outcome *outcome)
{
    if (outcome->refused == 0) {
        assert_non_null(outcome->response->error);
        assert_non_null(strstr(outcome->response->error, "out of memory"));
    }
}

/* Fails the first allocation, then the second one, ... until the plugin needs no more. */
static void fail_each(const struct fixture *fixture)
{
    unsigned long n;

    for (n = 0;; n++) {
        struct outcome outcome;

        countdown = n;
        failed = false;
        run_plugin(&outcome, fixture->packed, fixture->packed_length, &armed);
        if (!failed) {
            assert_int_equal(outcome.refused, 0);
            assert_int_equal(outcome.response->n_file, 2);
            outcome_fini(&outcome);
            break;
        }
        assert_failed_well(&outcome);
        outcome_fini(&outcome);
    }
    assert_in_range(n, 100, 100000);
}

static void each_failing_allocation_is_an_error(void **state)
{
    struct fixture fixture;

    (void)state;
    forever = false;
    fixture_init(&fixture);
    fail_each(&fixture);
    fixture_fini(&fixture);
}

static void memory_that_has_run_out_is_an_error(void **state)
{
    struct fixture fixture;

    (void)state;
    forever = true;
    fixture_init(&fixture);
    fail_each(&fixture);
    fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failing_allocation_is_an_error),
        cmocka_unit_test(memory_that_has_run_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
