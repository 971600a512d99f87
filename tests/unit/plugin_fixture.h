/* Runs the plugin's parts in the test's own process, on requests made of plugin_shapes.proto. */
#ifndef TESTS_UNIT_PLUGIN_FIXTURE_H
#define TESTS_UNIT_PLUGIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "grpc-c/plugin/plugin.h"

typedef Google__Protobuf__Compiler__CodeGeneratorResponse gen_response_message;
typedef Google__Protobuf__FileDescriptorSet gen_file_set;

/* What protoc says about plugin_shapes.proto and its imports. */
struct fixture {
    gen_file_set *set;
    gen_request_message request; /* for plugin_shapes.proto; points into `set` */
    uint8_t *packed;
    size_t packed_length;
};

void fixture_init(struct fixture *fixture);
void fixture_fini(struct fixture *fixture);

/* Packs `fixture->request` again, after a test has changed it. */
void fixture_pack(struct fixture *fixture);

/* What becomes of a request's bytes. */
struct outcome {
    int refused;                    /* 1: no request, see `why`; 2: no memory for the answer */
    struct gen_text why;            /* what main.c would print */
    gen_response_message *response; /* NULL where refused */
};

/*
 * Runs the plugin. `armed`, where not NULL, is set to 1 while the plugin's own code runs.
 */
void run_plugin(struct outcome *outcome, const void *bytes, size_t length, int *armed);
void outcome_fini(struct outcome *outcome);

/* Runs the plugin on `fixture->request`, and fails unless its answer's error contains `text`. */
void assert_error(struct fixture *fixture, const char *text);

#endif
