/*
 * The code generator, on what is to be a CodeGeneratorRequest. It refuses it, or answers with files
 * or with an error; and nothing in the request breaks out of its place in the C that is written.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "grpc-c/plugin/plugin.h"

typedef Google__Protobuf__Compiler__CodeGeneratorResponse response_message;

static int file_of(const uint8_t *data, size_t size)
{
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("request", MFD_CLOEXEC);
    }
    insist(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    insist(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

/* -- a little of C's lexer ------------------------------------------------------------------- */

static const char *after_comment(const char *at)
{
    const char *end = strstr(at, "*/");

    insist(end != NULL);
    for (const char *i = at; i < end; i++) {
        insist(i[0] != '/' || i[1] != '*'); /* which compilers warn of */
    }
    return end + 2;
}

static const char *after_string(const char *at)
{
    while (*at != '"') {
        insist(*at != '\0' && *at != '\n');
        at += *at == '\\' ? 2 : 1;
    }
    return at + 1;
}

/* Outside of comments and strings there is only what our templates and C's names are made of. */
static void check_code(const char *at)
{
    static const char legal[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ \n#{}()[]<>=*&,.;:!+-?|/";
    char open[64];
    size_t depth = 0;

    while (*at != '\0') {
        if (at[0] == '/' && at[1] == '*') {
            at = after_comment(at + 2);
            continue;
        }
        if (*at == '"') {
            at = after_string(at + 1);
            continue;
        }
        insist(strchr(legal, *at) != NULL);
        insist(at[0] != '/' || at[1] != '/');
        if (strchr("({[", *at) != NULL) {
            insist(depth < sizeof(open));
            open[depth++] = *at;
        } else if (strchr(")}]", *at) != NULL) {
            insist(depth > 0);
            depth--;
            insist(strchr("() {} []", open[depth])[1] == *at);
        }
        at++;
    }
    insist(depth == 0);
}

/* -- the answer ------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);

    return n >= strlen(end) && strcmp(text + n - strlen(end), end) == 0;
}

static void check_answer(const struct gen_text *answer, const gen_request_message *request)
{
    response_message *response = google__protobuf__compiler__code_generator_response__unpack(
        NULL, answer->length, (const uint8_t *)answer->data);

    insist(response != NULL);
    insist(response->error == NULL || response->n_file == 0);
    insist(response->error == NULL || response->error[0] != '\0');
    insist(response->error != NULL || response->n_file == 2 * request->n_file_to_generate);
    for (size_t i = 0; i < request->n_file_to_generate; i++) {
        insist(response->error != NULL || request->file_to_generate[i][0] != '\0');
    }
    for (size_t i = 0; i < response->n_file; i++) {
        const char *name = response->file[i]->name;
        insist(ends_with(name, i % 2 == 0 ? ".grpc-c.h" : ".grpc-c.c"));
        check_code(response->file[i]->content);
    }
    google__protobuf__compiler__code_generator_response__free_unpacked(response, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gen_request request;
    struct gen_text answer = {0};
    struct gen_text again = {0};
    struct gen_text error = {0};

    if (gen_request_read(&request, file_of(data, size), &error) != 0) {
        insist(!error.failed && error.length > 0);
    } else {
        insist(error.length == 0);
        insist(gen_generate(&answer, request.message) == 0);
        insist(gen_generate(&again, request.message) == 0);
        insist(answer.length == again.length &&
               memcmp(answer.data, again.data, answer.length) == 0);
        check_answer(&answer, request.message);
    }
    gen_text_fini(&answer);
    gen_text_fini(&again);
    gen_text_fini(&error);
    gen_request_fini(&request);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    return mutate_message(data, size, max, 0, seed);
}
