/* Turns a request into protoc's answer: the files, or one message about why there are none. */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

typedef Google__Protobuf__Compiler__CodeGeneratorResponse response_message;
typedef Google__Protobuf__Compiler__CodeGeneratorResponse__File output_file;

struct output {
    struct gen_text name;
    struct gen_text content;
};

/* What lives until the answer has been packed. */
struct generation {
    struct gen_pool pool;
    struct gen_types types;
    struct gen_text error;
    struct output *outputs; /* two for each file to generate */
    size_t n_outputs;
};

static int check_parameter(const gen_request_message *request, struct gen_text *error)
{
    const char *at = request->parameter != NULL ? request->parameter : "";

    at += strspn(at, ", ");
    if (*at == '\0') {
        return 0;
    }
    gen_text_printf(error, "unknown parameter \"%.*s\": protoc-gen-grpc-c takes none",
                    (int)strcspn(at, ",="), at);
    return -1;
}

static const gen_file_proto *find_file(const gen_request_message *request, const char *name)
{
    size_t i;

    for (i = 0; i < request->n_proto_file; i++) {
        if (strcmp(request->proto_file[i]->name, name) == 0) {
            return request->proto_file[i];
        }
    }
    return NULL;
}

static int generate_file(struct generation *generation, const gen_request_message *request,
                         const char *name)
{
    const gen_file_proto *proto = find_file(request, name);
    struct output *header = &generation->outputs[generation->n_outputs];
    struct output *source = header + 1;
    struct gen_file file = {0};
    int rc = -1;

    if (proto == NULL) {
        gen_text_printf(&generation->error, "%s: the request does not describe this file", name);
        return -1;
    }
    if (gen_file_init(&file, &generation->pool, proto, &generation->types, &generation->error) !=
            0 ||
        gen_file_check(&file, &generation->pool, &generation->types, &generation->error) != 0) {
        goto out;
    }
    gen_text_printf(&header->name, "%s.grpc-c.h", file.base);
    gen_text_printf(&source->name, "%s.grpc-c.c", file.base);
    gen_emit_header(&header->content, &file);
    gen_emit_source(&source->content, &file);
    generation->n_outputs += 2;
    if (header->name.failed || source->name.failed || header->content.failed ||
        source->content.failed) {
        gen_text_printf(&generation->error, "out of memory");
        goto out;
    }
    rc = 0;
out:
    gen_file_fini(&file);
    return rc;
}

static int generate_files(struct generation *generation, const gen_request_message *request)
{
    size_t i;

    if (check_parameter(request, &generation->error) != 0) {
        return -1;
    }
    if (request->n_file_to_generate == 0) {
        gen_text_printf(&generation->error, "the request names no file to generate code for");
        return -1;
    }
    generation->outputs = calloc(request->n_file_to_generate, 2 * sizeof(*generation->outputs));
    if (generation->outputs == NULL) {
        gen_text_printf(&generation->error, "out of memory");
        return -1;
    }
    if (gen_types_collect(&generation->types, &generation->pool, request, &generation->error) !=
        0) {
        return -1;
    }
    for (i = 0; i < request->n_file_to_generate; i++) {
        if (generate_file(generation, request, request->file_to_generate[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* -- the answer ------------------------------------------------------------------------------ */

static int pack(struct gen_text *answer, const response_message *response)
{
    size_t size = google__protobuf__compiler__code_generator_response__get_packed_size(response);

    answer->data = malloc(size + 1);
    if (answer->data == NULL) {
        return -1;
    }
    answer->capacity = size + 1;
    answer->length = google__protobuf__compiler__code_generator_response__pack(
        response, (uint8_t *)answer->data);
    return 0;
}

static int pack_files(struct gen_text *answer, const struct generation *generation,
                      response_message *response)
{
    output_file *files = calloc(generation->n_outputs, sizeof(*files));
    output_file **pointers = calloc(generation->n_outputs, sizeof(output_file *));
    int rc = -1;
    size_t i;

    if (files == NULL || pointers == NULL) {
        goto out;
    }
    for (i = 0; i < generation->n_outputs; i++) {
        google__protobuf__compiler__code_generator_response__file__init(&files[i]);
        files[i].name = generation->outputs[i].name.data;
        files[i].content = generation->outputs[i].content.data;
        pointers[i] = &files[i];
    }
    response->n_file = generation->n_outputs;
    response->file = pointers;
    rc = pack(answer, response);
out:
    free(pointers);
    free(files);
    return rc;
}

static void generation_fini(struct generation *generation, size_t n_files)
{
    size_t i;

    for (i = 0; generation->outputs != NULL && i < 2 * n_files; i++) {
        gen_text_fini(&generation->outputs[i].name);
        gen_text_fini(&generation->outputs[i].content);
    }
    free(generation->outputs);
    gen_text_fini(&generation->error);
    gen_types_fini(&generation->types);
    gen_pool_fini(&generation->pool);
}

int gen_generate(struct gen_text *answer, const gen_request_message *request)
{
    response_message response = GOOGLE__PROTOBUF__COMPILER__CODE_GENERATOR_RESPONSE__INIT;
    struct generation generation = {0};
    int rc;

    /* No features: protoc itself then tells the caller that proto3 `optional` does not work. */
    response.has_supported_features = true;
    response.supported_features = 0;
    if (generate_files(&generation, request) == 0) {
        rc = pack_files(answer, &generation, &response);
    } else if (generation.error.failed) {
        rc = -1;
    } else {
        response.error = generation.error.data;
        rc = pack(answer, &response);
    }
    generation_fini(&generation, request->n_file_to_generate);
    return rc;
}
