#include "reflection.h"

#include <assert.h>
#include <stdlib.h>

#include <grpc-c/service.h>

#include "descriptors.h"
#include "grpc/reflection/v1/reflection.grpc-c.h"
#include "payloadstore_descriptor_set.h"

#define QUESTION(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define ANSWER(name)   GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

struct psd_reflection {
    struct grpc__reflection__v1__server_reflection_handlers handlers;
    struct psd_descriptors *descriptors;
    Grpc__Reflection__V1__ServiceResponse *services;
    Grpc__Reflection__V1__ServiceResponse **service_pointers;
    size_t n_services;
    /* v1alpha is v1 under another name, and the same on the wire: one codec serves both. */
    struct grpc_c_method alpha_method;
    struct grpc_c_service alpha_service;
};

/* An answer, with room for the parts that it points to. */
struct answer {
    reflection_response response;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    Grpc__Reflection__V1__ExtensionNumberResponse numbers;
    Grpc__Reflection__V1__ListServiceResponse list;
    Grpc__Reflection__V1__ErrorResponse error;
    ProtobufCBinaryData file;
};

/* -- answers ----------------------------------------------------------------------------------- */

static void answer_error(struct answer *answer, enum grpc_c_code code, const char *message)
{
    answer->error.error_code = (int32_t)code;
    answer->error.error_message = (char *)message;
    answer->response.error_response = &answer->error;
    answer->response.message_response_case = ANSWER(ERROR_RESPONSE);
}

static void answer_file(struct answer *answer, bool found, const struct psd_file *file)
{
    if (!found) {
        answer_error(answer, GRPC_C_NOT_FOUND, "there is no such file or symbol");
        return;
    }
    answer->file.data = (uint8_t *)file->data;
    answer->file.len = file->length;
    answer->files.n_file_descriptor_proto = 1;
    answer->files.file_descriptor_proto = &answer->file;
    answer->response.file_descriptor_response = &answer->files;
    answer->response.message_response_case = ANSWER(FILE_DESCRIPTOR_RESPONSE);
}

static void answer_numbers(struct answer *answer, const struct psd_reflection *reflection,
                           char *type)
{
    if (!psd_descriptors_has_message(reflection->descriptors, type)) {
        answer_error(answer, GRPC_C_NOT_FOUND, "there is no such message type");
        return;
    }
    answer->numbers.base_type_name = type;
    answer->response.all_extension_numbers_response = &answer->numbers;
    answer->response.message_response_case = ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE);
}

static void answer_list(struct answer *answer, const struct psd_reflection *reflection)
{
    answer->list.n_service = reflection->n_services;
    answer->list.service = reflection->service_pointers;
    answer->response.list_services_response = &answer->list;
    answer->response.message_response_case = ANSWER(LIST_SERVICES_RESPONSE);
}

static void answer_init(struct answer *answer, const reflection_request *request)
{
    grpc__reflection__v1__server_reflection_response__init(&answer->response);
    grpc__reflection__v1__file_descriptor_response__init(&answer->files);
    grpc__reflection__v1__extension_number_response__init(&answer->numbers);
    grpc__reflection__v1__list_service_response__init(&answer->list);
    grpc__reflection__v1__error_response__init(&answer->error);
    answer->response.valid_host = request->host;
    answer->response.original_request = (reflection_request *)request;
}

static void answer_question(struct answer *answer, const struct psd_reflection *reflection,
                            const reflection_request *request)
{
    struct psd_file file;
    bool found;

    switch (request->message_request_case) {
    case QUESTION(FILE_BY_FILENAME):
        found = psd_descriptors_file(reflection->descriptors, request->file_by_filename, &file);
        answer_file(answer, found, &file);
        break;
    case QUESTION(FILE_CONTAINING_SYMBOL):
        found =
            psd_descriptors_symbol(reflection->descriptors, request->file_containing_symbol, &file);
        answer_file(answer, found, &file);
        break;
    case QUESTION(FILE_CONTAINING_EXTENSION):
        answer_error(answer, GRPC_C_NOT_FOUND, "there is no such extension");
        break;
    case QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_numbers(answer, reflection, request->all_extension_numbers_of_type);
        break;
    case QUESTION(LIST_SERVICES):
        answer_list(answer, reflection);
        break;
    default:
        answer_error(answer, GRPC_C_INVALID_ARGUMENT, "the request holds no question");
        break;
    }
}

/* -- the stream: a question is read once the answer to the one before has gone out --------------
 */

static void read_next(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_read(call);
}

static void on_cancel(grpc_c_call *call, void *arg)
{
    (void)arg;
    grpc_c_call_fail(call, GRPC_C_CANCELLED, "the caller left");
}

static void begin(grpc_c_call *call, void *user)
{
    (void)user;
    grpc_c_call_on_cancel(call, on_cancel, NULL);
    grpc_c_call_read(call);
}

static void message(grpc_c_call *call, const reflection_request *request, void *user)
{
    struct answer answer;

    if (request == NULL) {
        grpc_c_call_finish(call, &(struct grpc_c_status){.code = GRPC_C_OK});
        return;
    }
    answer_init(&answer, request);
    answer_question(&answer, user, request);
    grpc__reflection__v1__server_reflection__server_reflection_info__send(call, &answer.response,
                                                                          read_next, NULL);
}

/* -- life -------------------------------------------------------------------------------------- */

static bool set_services(struct psd_reflection *reflection, const char *const *names, size_t n)
{
    reflection->services = calloc(n + 1, sizeof *reflection->services);
    reflection->service_pointers = calloc(n + 1, sizeof(void *));
    if (reflection->services == NULL || reflection->service_pointers == NULL) {
        return false;
    }
    reflection->n_services = n;
    for (size_t i = 0; i < n; i++) {
        grpc__reflection__v1__service_response__init(&reflection->services[i]);
        reflection->services[i].name = (char *)names[i];
        reflection->service_pointers[i] = &reflection->services[i];
    }
    return true;
}

static void set_handlers(struct psd_reflection *reflection)
{
    const struct grpc_c_service *service = &grpc__reflection__v1__server_reflection__service;

    assert(service->n_methods == 1);
    reflection->handlers.server_reflection_info = begin;
    reflection->handlers.server_reflection_info__message = message;
    reflection->handlers.user = reflection;
    reflection->alpha_method = service->methods[0];
    reflection->alpha_method.path =
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    reflection->alpha_service = (struct grpc_c_service){
        .name = "grpc.reflection.v1alpha.ServerReflection",
        .methods = &reflection->alpha_method,
        .n_methods = 1,
    };
}

struct psd_reflection *psd_reflection_create(const char *const *services, size_t n_services)
{
    struct psd_reflection *reflection = calloc(1, sizeof *reflection);

    if (reflection == NULL) {
        return NULL;
    }
    set_handlers(reflection);
    reflection->descriptors =
        psd_descriptors_create(payloadstore_descriptor_set, payloadstore_descriptor_set_size);
    if (reflection->descriptors == NULL || !set_services(reflection, services, n_services)) {
        psd_reflection_destroy(reflection);
        return NULL;
    }
    return reflection;
}

void psd_reflection_destroy(struct psd_reflection *reflection)
{
    if (reflection != NULL) {
        psd_descriptors_destroy(reflection->descriptors);
        free(reflection->services);
        free(reflection->service_pointers);
        free(reflection);
    }
}

int psd_reflection_register(struct psd_reflection *reflection, grpc_c_server *server)
{
    if (grpc__reflection__v1__server_reflection__service_init(server, &reflection->handlers) != 0) {
        return -1;
    }
    return grpc_c_server_add_service(server, &reflection->alpha_service, &reflection->handlers);
}
