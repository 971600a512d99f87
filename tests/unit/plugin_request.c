/* Requests that protoc would not send: the plugin refuses them, and survives them. */
#include "plugin_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int setup(void **state)
{
    struct fixture *fixture = malloc(sizeof(*fixture));

    assert_non_null(fixture);
    fixture_init(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    free(*state);
    return 0;
}

static void assert_refused(const void *bytes, size_t length, const char *why)
{
    struct outcome outcome;

    run_plugin(&outcome, bytes, length, NULL);
    assert_int_equal(outcome.refused, 1);
    if (strstr(outcome.why.data, why) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", outcome.why.data, why);
    }
    outcome_fini(&outcome);
}

/* -- bytes ------------------------------------------------------------------------------------ */

static void good_request_gives_header_and_source(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;

    run_plugin(&outcome, fixture->packed, fixture->packed_length, NULL);
    assert_int_equal(outcome.refused, 0);
    assert_null(outcome.response->error);
    assert_int_equal(outcome.response->n_file, 2);
    assert_string_equal(outcome.response->file[0]->name, "plugin_shapes.grpc-c.h");
    assert_string_equal(outcome.response->file[1]->name, "plugin_shapes.grpc-c.c");
    outcome_fini(&outcome);
}

static void empty_input_is_refused(void **state)
{
    (void)state;
    assert_refused("", 0, "empty");
}

static void garbage_is_refused(void **state)
{
    uint8_t garbage[4096];
    uint32_t random = 1;
    unsigned round;
    size_t i;

    (void)state;
    for (round = 0; round < 200; round++) {
        struct outcome outcome;

        for (i = 0; i < sizeof(garbage); i++) {
            random = random * 1664525 + 1013904223;
            garbage[i] = (uint8_t)(random >> 24);
        }
        run_plugin(&outcome, garbage, sizeof(garbage), NULL);
        assert_true(outcome.refused == 1 || outcome.response->error != NULL);
        outcome_fini(&outcome);
    }
    assert_refused("GET / HTTP/1.1\r\n\r\n", 18, "cannot be parsed");
}

static void request_cut_anywhere_gives_no_code(void **state)
{
    struct fixture *fixture = *state;
    size_t length;

    for (length = 0; length < fixture->packed_length; length++) {
        struct outcome outcome;

        run_plugin(&outcome, fixture->packed, length, NULL);
        assert_true(outcome.refused == 1 || outcome.response->error != NULL);
        outcome_fini(&outcome);
    }
}

static void flipped_bits_are_survived(void **state)
{
    struct fixture *fixture = *state;
    size_t i;

    for (i = 0; i < fixture->packed_length * 8; i += 11) {
        uint8_t bit = (uint8_t)(1U << (i % 8));
        struct outcome outcome;

        fixture->packed[i / 8] ^= bit;
        run_plugin(&outcome, fixture->packed, fixture->packed_length, NULL);
        outcome_fini(&outcome);
        fixture->packed[i / 8] ^= bit;
    }
}

/* -- sizes ------------------------------------------------------------------------------------ */

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);

    assert_non_null(memory);
    return memory;
}

/* Adds a message nested `depth` levels deep to plugin_shapes.proto; owned by the fixture. */
static void nest(struct fixture *fixture, unsigned depth)
{
    gen_file_proto *file = fixture->set->file[fixture->set->n_file - 1];
    gen_message_proto **slot = file->message_type;

    while (depth-- > 0) {
        gen_message_proto *message = allocate(sizeof(*message));

        google__protobuf__descriptor_proto__init(message);
        message->name = strdup("M");
        message->nested_type = allocate(sizeof(gen_message_proto *));
        message->n_nested_type = 1;
        message->nested_type[0] = *slot;
        *slot = message;
    }
    fixture_pack(fixture);
}

static void request_nested_too_deeply_is_refused(void **state)
{
    struct fixture *fixture = *state;

    nest(fixture, 100);
    assert_refused(fixture->packed, fixture->packed_length, "nested too deeply");
}

static void request_nested_as_deeply_as_protoc_goes_is_taken(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;

    nest(fixture, 90);
    run_plugin(&outcome, fixture->packed, fixture->packed_length, NULL);
    assert_int_equal(outcome.refused, 0);
    outcome_fini(&outcome);
}

/* Made by hand, from the innermost message outwards: packing it would overflow the stack as well.
 */
static void request_nested_12000_deep_is_refused(void **state)
{
    enum { DEPTH = 12000, ROOM = 8 * DEPTH };
    uint8_t *bytes = allocate(ROOM);
    size_t at = ROOM;
    unsigned depth;

    (void)state;
    for (depth = 0; depth < DEPTH; depth++) {
        size_t length = ROOM - at;
        uint8_t prefix[8];
        size_t used = 0;

        /* proto_file, message_type, and then nested_type all the way down */
        prefix[used++] = (uint8_t)((depth == DEPTH - 1 ? 15 : depth == DEPTH - 2 ? 4 : 3) << 3 | 2);
        while (length >= 0x80) {
            prefix[used++] = (uint8_t)((length & 0x7f) | 0x80);
            length >>= 7;
        }
        prefix[used++] = (uint8_t)length;
        at -= used;
        memcpy(bytes + at, prefix, used);
    }
    assert_refused(bytes + at, ROOM - at, "nested too deeply");
    free(bytes);
}

static void request_that_blows_up_is_refused(void **state)
{
    enum { LENGTH = 2 << 20 };
    uint8_t *bytes = allocate(LENGTH);
    size_t i;

    (void)state;
    for (i = 0; i < LENGTH; i += 2) {
        bytes[i] = 15 << 3 | 2; /* an empty FileDescriptorProto, 200 bytes of heap */
    }
    assert_refused(bytes, LENGTH, "too much memory");
    free(bytes);
}

static void endless_request_is_refused(void **state)
{
    int fd = memfd_create("request", MFD_CLOEXEC);
    struct gen_request request;
    struct gen_text why = {0};

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)300 << 20), 0);
    assert_int_equal(gen_request_read(&request, fd, &why), -1);
    assert_non_null(strstr(why.data, "larger than 256 MiB"));
    gen_request_fini(&request);
    gen_text_fini(&why);
    close(fd);
}

static void unreadable_input_is_refused(void **state)
{
    struct gen_request request;
    struct gen_text why = {0};

    (void)state;
    assert_int_equal(gen_request_read(&request, -1, &why), -1);
    assert_non_null(strstr(why.data, "Bad file descriptor"));
    gen_request_fini(&request);
    gen_text_fini(&why);
}

/* -- contents --------------------------------------------------------------------------------- */

static gen_file_proto *shapes(struct fixture *fixture)
{
    return fixture->set->file[fixture->set->n_file - 1];
}

/* Fails unless both `text` and nothing at all are errors in the place of *slot. */
static void assert_wrong(struct fixture *fixture, char **slot, const char *text, const char *error)
{
    char *kept = *slot;
    char *other = strdup(text);

    assert_non_null(other);
    *slot = other;
    assert_error(fixture, error);
    *slot = NULL;
    assert_error(fixture, "");
    *slot = kept;
    free(other);
}

static void request_without_a_file_is_an_error(void **state)
{
    struct fixture *fixture = *state;

    fixture->request.n_file_to_generate = 0;
    assert_error(fixture, "names no file");
}

static void file_that_is_not_described_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    char *files[] = {"elsewhere.proto"};

    fixture->request.file_to_generate = files;
    assert_error(fixture, "elsewhere.proto: the request does not describe this file");
}

static void unknown_parameter_is_an_error(void **state)
{
    struct fixture *fixture = *state;

    fixture->request.parameter = "dllexport_decl=X,lite";
    assert_error(fixture, "unknown parameter \"dllexport_decl\"");
}

static void names_that_are_missing_or_no_names_are_errors(void **state)
{
    struct fixture *fixture = *state;
    gen_file_proto *file = shapes(fixture);

    assert_wrong(fixture, &file->service[0]->name, "A*/", "a service has no proper name");
    assert_wrong(fixture, &file->service[0]->method[1]->name, "9",
                 "rpc 9 of service Shapes has no proper");
    assert_wrong(fixture, &file->service[0]->method[1]->input_type, ".no.Such",
                 "rpc Collect of service Shapes refers to a message that is not described");
    assert_wrong(fixture, &file->service[0]->method[1]->output_type, "plugin.other.Sum",
                 "refers to a message that is not described");
    assert_wrong(fixture, &file->message_type[0]->name, "", "a message has no proper name");
}

static void file_without_a_name_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    char *kept = fixture->set->file[0]->name;

    fixture->set->file[0]->name = NULL;
    assert_error(fixture, "a file of the request has no name");
    fixture->set->file[0]->name = kept;
}

static void package_that_is_no_name_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    gen_file_proto *file = shapes(fixture);
    char *kept = file->package;
    char package[] = "a.;system(0)";

    file->package = package;
    assert_error(fixture, "no proper package");
    file->package = kept;
}

static void file_name_that_breaks_an_include_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    gen_file_proto *file = shapes(fixture);
    char *kept = file->name;
    char name[] = "a\"\n#error.proto";
    char *files[] = {name};

    file->name = name;
    fixture->request.file_to_generate = files;
    assert_error(fixture, "cannot stand in an #include");
    file->name = kept;
}

static void comments_of_places_that_do_not_exist_are_left_out(void **state)
{
    struct fixture *fixture = *state;
    Google__Protobuf__SourceCodeInfo *info = shapes(fixture)->source_code_info;
    struct outcome outcome;
    size_t i;

    assert_non_null(info);
    for (i = 0; i < info->n_location; i++) {
        size_t j;

        for (j = 1; j < info->location[i]->n_path; j += 2) {
            info->location[i]->path[j] = i % 2 != 0 ? 1 << 30 : -1;
        }
    }
    fixture_pack(fixture);
    run_plugin(&outcome, fixture->packed, fixture->packed_length, NULL);
    assert_int_equal(outcome.refused, 0);
    assert_null(strstr(outcome.response->file[0]->content, "One method of each shape"));
    outcome_fini(&outcome);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(good_request_gives_header_and_source),
        TEST(empty_input_is_refused),
        TEST(garbage_is_refused),
        TEST(request_cut_anywhere_gives_no_code),
        TEST(flipped_bits_are_survived),
        TEST(request_nested_too_deeply_is_refused),
        TEST(request_nested_as_deeply_as_protoc_goes_is_taken),
        TEST(request_nested_12000_deep_is_refused),
        TEST(request_that_blows_up_is_refused),
        TEST(endless_request_is_refused),
        TEST(unreadable_input_is_refused),
        TEST(request_without_a_file_is_an_error),
        TEST(file_that_is_not_described_is_an_error),
        TEST(unknown_parameter_is_an_error),
        TEST(names_that_are_missing_or_no_names_are_errors),
        TEST(file_without_a_name_is_an_error),
        TEST(package_that_is_no_name_is_an_error),
        TEST(file_name_that_breaks_an_include_is_an_error),
        TEST(comments_of_places_that_do_not_exist_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
