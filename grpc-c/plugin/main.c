/*
 * protoc-gen-grpc-c: the code generator of grpc-c, a plugin of protoc.
 *
 * protoc writes a CodeGeneratorRequest to standard input and reads a CodeGeneratorResponse from
 * standard output. What is wrong with a .proto is said in the response; what protoc would not
 * understand is said on standard error, with exit status 1.
 */
#include "plugin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef GRPC_C_VERSION
#define GRPC_C_VERSION "unknown"
#endif

static const char usage[] =
    "protoc-gen-grpc-c " GRPC_C_VERSION " writes gRPC servers and clients in C for protobuf-c.\n"
    "It is run by protoc, beside protoc-gen-c, which writes the messages:\n"
    "  protoc -I<dir> --c_out=<out> --grpc-c_out=<out> <file>.proto\n"
    "  (with --plugin=protoc-gen-grpc-c=<path> where it is not in $PATH)\n"
    "From CMake: grpc_c_generate(<target> PROTOS <file>... IMPORT_DIRS <dir>...)\n";

static int fail(const char *cause)
{
    (void)fprintf(stderr, "protoc-gen-grpc-c: %s\n", cause);
    return EXIT_FAILURE;
}

static int write_all(const struct gen_text *text)
{
    size_t done = 0;

    while (done < text->length) {
        ssize_t n = write(STDOUT_FILENO, text->data + done, text->length - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static int answer_protoc(void)
{
    struct gen_request request;
    struct gen_text answer = {0};
    struct gen_text error = {0};
    int status;

    if (gen_request_read(&request, STDIN_FILENO, &error) != 0) {
        status = fail(error.failed ? "out of memory" : error.data);
        goto out;
    }
    if (gen_generate(&answer, request.message) != 0) {
        status = fail("out of memory");
        goto out;
    }
    if (write_all(&answer) != 0) {
        status = fail(strerror(errno));
        goto out;
    }
    status = EXIT_SUCCESS;
out:
    gen_text_fini(&answer);
    gen_text_fini(&error);
    gen_request_fini(&request);
    return status;
}

/* By hand: protoc gives its plugins no arguments. */
static int answer_person(int argc, char **argv)
{
    bool asked = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("protoc-gen-grpc-c " GRPC_C_VERSION);
        return EXIT_SUCCESS;
    }
    (void)fputs(usage, asked ? stdout : stderr);
    return asked ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc > 1 || isatty(STDIN_FILENO)) {
        return answer_person(argc, argv);
    }
    return answer_protoc();
}
