/* Log lines: their form, and that what they report cannot forge another. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "log.h"

#define TIME_LENGTH 24 /* 2026-11-22T15:04:05.123Z */

static int log_fd = -1;
static char logged[1 << 20];

static void log_to_memory(enum psd_log_level level, enum psd_log_format format)
{
    log_fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(log_fd >= 0);
    /* As a file that a shell opened; a bare memfd does not lock its position between writers. */
    assert_int_equal(fcntl(log_fd, F_SETFL, O_APPEND), 0);
    psd_log_init(&(struct psd_log_options){.level = level, .format = format, .fd = log_fd});
}

/* What has been logged since log_to_memory, which is over. */
static char *take_log(void)
{
    ssize_t length = pread(log_fd, logged, sizeof logged - 1, 0);

    assert_true(length >= 0);
    logged[length] = '\0';
    close(log_fd);
    return logged;
}

/* The one line there is, without its time and newline. */
static const char *take_line(void)
{
    char *text = take_log();
    size_t length = strlen(text);

    assert_true(length > TIME_LENGTH);
    assert_ptr_equal(strchr(text, '\n'), text + length - 1);
    text[length - 1] = '\0';
    assert_int_equal(text[TIME_LENGTH - 1], 'Z');
    return text + TIME_LENGTH;
}

/* The one line there is as an object, the caller's to free. */
static json_object *take_json(void)
{
    char *text = take_log();
    json_tokener *tokener = json_tokener_new_ex(4);
    json_object *object;

    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    object = json_tokener_parse_ex(tokener, text, (int)strlen(text));
    assert_int_equal(json_tokener_get_error(tokener), json_tokener_success);
    json_tokener_free(tokener);
    return object;
}

static const char *json_text(json_object *object, const char *key)
{
    return json_object_get_string(json_object_object_get(object, key));
}

/* -- text -------------------------------------------------------------------------------------- */

static void a_text_line_reads_time_level_event_fields(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_INFO, "listening", PSD_TEXT("address", "127.0.0.1:50051"));
    assert_string_equal(take_line(), " info  listening address=127.0.0.1:50051");
}

static void an_event_needs_no_fields(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_ERROR, "lost");
    assert_string_equal(take_line(), " error lost");
}

static void numbers_are_written_and_missing_texts_are_not(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_WARNING, "counted", PSD_NUMBER("calls", -3), PSD_TEXT("store", NULL),
            PSD_REAL("seconds", 1.5), PSD_NUMBER("bytes", INT64_MAX));
    assert_string_equal(take_line(),
                        " warning counted calls=-3 seconds=1.500 bytes=9223372036854775807");
}

static void values_that_need_quotes_get_them(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", ""), PSD_TEXT("b", "x y"), PSD_TEXT("c", "k=v"),
            PSD_TEXT("d", "\"\\"), PSD_TEXT("e", "\xc3\xa9"));
    assert_string_equal(take_line(),
                        " info  e a=\"\" b=\"x y\" c=\"k=v\" d=\"\\\"\\\\\" e=\xc3\xa9");
}

static void a_text_value_cannot_forge_a_line(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", "x\n2026 info started\r\t\x1b[2J\x7f"),
            PSD_TEXT("b", "\xc2\x85\xe2\x80\xa8\xe2\x80\xae"),
            PSD_TEXT("c", "\xff\xc0\xaf\xed\xa0\x80"), PSD_TEXT("d", "\xf0\x9f\x98"));
    assert_string_equal(take_line(), " info  e a=\"x\\n2026 info started\\r\\t\\x1b[2J\\x7f\""
                                     " b=\\xc2\\x85\\xe2\\x80\\xa8\\xe2\\x80\\xae"
                                     " c=\\xff\\xc0\\xaf\\xed\\xa0\\x80 d=\\xf0\\x9f\\x98");
}

static void less_important_events_are_left_out(void **state)
{
    (void)state;
    log_to_memory(PSD_LOG_WARNING, PSD_LOG_FORMAT_TEXT);
    assert_false(psd_log_enabled(PSD_LOG_INFO));
    assert_true(psd_log_enabled(PSD_LOG_WARNING));
    psd_log(PSD_LOG_DEBUG, "a");
    psd_log(PSD_LOG_INFO, "b");
    psd_log(PSD_LOG_WARNING, "c");
    assert_string_equal(take_line(), " warning c");
}

static void long_values_are_cut_between_characters(void **state)
{
    char value[2 * PSD_LOG_VALUE_MAX + 1];
    const char *line;

    (void)state;
    value[0] = 'x';
    for (size_t i = 1; i + 1 < sizeof value; i += 2) {
        memcpy(value + i, "\xc3\xa9", 2);
    }
    value[sizeof value - 1] = '\0';
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", value), PSD_TEXT("b", "there"));
    line = take_line();
    assert_int_equal(strlen(line), strlen(" info  e a= b=there") + PSD_LOG_VALUE_MAX - 1);
    assert_non_null(strstr(line, "\xc3\xa9 b=there"));
}

static void a_line_of_many_long_values_ends_all_the_same(void **state)
{
    char value[PSD_LOG_VALUE_MAX + 1];

    (void)state;
    memset(value, '\x01', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", value), PSD_TEXT("b", value), PSD_TEXT("c", value));
    assert_true(strlen(take_line()) < 4096);
}

/* -- JSON -------------------------------------------------------------------------------------- */

static void a_json_line_is_an_object_with_the_same_in_it(void **state)
{
    json_object *object;

    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_JSON);
    psd_log(PSD_LOG_INFO, "listening", PSD_TEXT("address", "unix:/run/p"), PSD_NUMBER("pid", 12),
            PSD_REAL("seconds", 0.25), PSD_TEXT("store", NULL));
    object = take_json();
    assert_int_equal(strlen(json_text(object, "time")), TIME_LENGTH);
    assert_string_equal(json_text(object, "level"), "info");
    assert_string_equal(json_text(object, "event"), "listening");
    assert_string_equal(json_text(object, "address"), "unix:/run/p");
    assert_int_equal(json_object_get_int64(json_object_object_get(object, "pid")), 12);
    assert_string_equal(json_text(object, "seconds"), "0.250");
    assert_int_equal(json_object_object_length(object), 6);
    assert_non_null(strstr(logged, "\"unix:/run/p\"")); /* slashes stay as they are */
    json_object_put(object);
}

static void a_json_value_cannot_forge_a_line_or_break_the_object(void **state)
{
    json_object *object;

    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_JSON);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", "\n\"},{\x01\\"), PSD_TEXT("b", "\xff\xc2\x9b!"));
    object = take_json();
    assert_string_equal(json_text(object, "a"), "\n\"},{\x01\\");
    assert_string_equal(json_text(object, "b"), "\xef\xbf\xbd\xef\xbf\xbd!");
    json_object_put(object);
}

static void a_json_line_of_many_long_values_stays_an_object(void **state)
{
    char value[2 * PSD_LOG_VALUE_MAX];
    json_object *object;

    (void)state;
    memset(value, '\x01', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_JSON);
    psd_log(PSD_LOG_INFO, "e", PSD_TEXT("a", value), PSD_TEXT("b", value));
    object = take_json();
    assert_int_equal(strlen(json_text(object, "b")), PSD_LOG_VALUE_MAX);
    json_object_put(object);
}

/* -- threads ----------------------------------------------------------------------------------- */

#define THREADS 8
#define LINES   500

static void *log_lines(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        psd_log(PSD_LOG_INFO, "line", PSD_NUMBER("thread", (intptr_t)arg), PSD_NUMBER("i", i));
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    pthread_t threads[THREADS];
    size_t lines = 0;
    char *rest;

    (void)state;
    log_to_memory(PSD_LOG_INFO, PSD_LOG_FORMAT_TEXT);
    for (intptr_t i = 0; i < THREADS; i++) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, (void *)i), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (char *line = strtok_r(take_log(), "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        int thread;
        int i;
        char after;

        // NOLINTNEXTLINE(cert-err34-c): the counts are our own
        assert_int_equal(
            sscanf(line + TIME_LENGTH, " info  line thread=%d i=%d%c", &thread, &i, &after), 2);
        lines++;
    }
    assert_int_equal(lines, THREADS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_line_reads_time_level_event_fields),
        cmocka_unit_test(an_event_needs_no_fields),
        cmocka_unit_test(numbers_are_written_and_missing_texts_are_not),
        cmocka_unit_test(values_that_need_quotes_get_them),
        cmocka_unit_test(a_text_value_cannot_forge_a_line),
        cmocka_unit_test(less_important_events_are_left_out),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(a_line_of_many_long_values_ends_all_the_same),
        cmocka_unit_test(a_json_line_is_an_object_with_the_same_in_it),
        cmocka_unit_test(a_json_value_cannot_forge_a_line_or_break_the_object),
        cmocka_unit_test(a_json_line_of_many_long_values_stays_an_object),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
