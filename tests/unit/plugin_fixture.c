#include "plugin_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef PLUGIN_SHAPES_SET
#define PLUGIN_SHAPES_SET "" /* the build says where it is */
#endif

static char *shapes[] = {"plugin_shapes.proto"};

static uint8_t *read_set(size_t *length)
{
    FILE *file = fopen(PLUGIN_SHAPES_SET, "rb");
    size_t size = (size_t)1 << 20;
    uint8_t *bytes = malloc(size);

    assert_non_null(file);
    assert_non_null(bytes);
    *length = fread(bytes, 1, size, file);
    assert_in_range(*length, 1, size - 1);
    (void)fclose(file);
    return bytes;
}

void fixture_init(struct fixture *fixture)
{
    size_t length;
    uint8_t *bytes = read_set(&length);

    *fixture = (struct fixture){0};
    fixture->set = google__protobuf__file_descriptor_set__unpack(NULL, length, bytes);
    assert_non_null(fixture->set);
    free(bytes);
    google__protobuf__compiler__code_generator_request__init(&fixture->request);
    fixture->request.n_file_to_generate = 1;
    fixture->request.file_to_generate = shapes;
    fixture->request.n_proto_file = fixture->set->n_file;
    fixture->request.proto_file = fixture->set->file;
    fixture_pack(fixture);
}

void fixture_pack(struct fixture *fixture)
{
    free(fixture->packed);
    fixture->packed_length =
        google__protobuf__compiler__code_generator_request__get_packed_size(&fixture->request);
    fixture->packed = malloc(fixture->packed_length + 1);
    assert_non_null(fixture->packed);
    google__protobuf__compiler__code_generator_request__pack(&fixture->request, fixture->packed);
}

void fixture_fini(struct fixture *fixture)
{
    google__protobuf__file_descriptor_set__free_unpacked(fixture->set, NULL);
    free(fixture->packed);
    *fixture = (struct fixture){0};
}

static int file_of(const void *bytes, size_t length)
{
    int fd = memfd_create("request", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void arm(int *armed, int value)
{
    if (armed != NULL) {
        *armed = value;
    }
}

void run_plugin(struct outcome *outcome, const void *bytes, size_t length, int *armed)
{
    int fd = file_of(bytes, length);
    struct gen_text answer = {0};
    struct gen_request request;

    *outcome = (struct outcome){0};
    arm(armed, 1);
    if (gen_request_read(&request, fd, &outcome->why) != 0) {
        outcome->refused = 1;
    } else if (gen_generate(&answer, request.message) != 0) {
        outcome->refused = 2;
    }
    arm(armed, 0);
    if (outcome->refused == 0) {
        outcome->response = google__protobuf__compiler__code_generator_response__unpack(
            NULL, answer.length, (const uint8_t *)answer.data);
        assert_non_null(outcome->response);
        assert_true((outcome->response->error != NULL) != (outcome->response->n_file != 0));
    }
    gen_text_fini(&answer);
    gen_request_fini(&request);
    close(fd);
}

void outcome_fini(struct outcome *outcome)
{
    google__protobuf__compiler__code_generator_response__free_unpacked(outcome->response, NULL);
    gen_text_fini(&outcome->why);
    *outcome = (struct outcome){0};
}

void assert_error(struct fixture *fixture, const char *text)
{
    struct outcome outcome;

    fixture_pack(fixture);
    run_plugin(&outcome, fixture->packed, fixture->packed_length, NULL);
    assert_int_equal(outcome.refused, 0);
    assert_non_null(outcome.response->error);
    if (strstr(outcome.response->error, text) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", outcome.response->error, text);
    }
    outcome_fini(&outcome);
}
