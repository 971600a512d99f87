/* A .proto with its C names worked out. */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of the fields that lead to services and methods, as paths of source_code_info have them.
 */
enum { FILE_SERVICE = 6, SERVICE_METHOD = 2 };

static int fail_method(struct gen_text *error, const gen_file_proto *file,
                       const struct gen_service *service, const gen_method_proto *method,
                       const char *cause)
{
    gen_text_printf(error, "%s: rpc %s of service %s %s", file->name,
                    method->name != NULL ? method->name : "?", service->name, cause);
    return -1;
}

static int init_method(struct gen_method *method, const struct gen_service *service,
                       struct gen_pool *pool, const gen_file_proto *file,
                       const gen_method_proto *proto, const struct gen_types *types,
                       struct gen_text *error)
{
    if (!gen_name_valid(proto->name, false)) {
        return fail_method(error, file, service, proto, "has no proper name");
    }
    method->name = proto->name;
    method->c_name = gen_name_lower(pool, proto->name);
    method->symbol = gen_pool_printf(pool, "%s__%s", service->symbol, method->c_name);
    method->request = gen_types_find(types, proto->input_type);
    method->response = gen_types_find(types, proto->output_type);
    method->client_streams = proto->has_client_streaming && proto->client_streaming;
    method->server_streams = proto->has_server_streaming && proto->server_streaming;
    if (method->request == NULL || method->response == NULL) {
        return fail_method(error, file, service, proto,
                           "refers to a message that is not described");
    }
    return 0;
}

static int init_service(struct gen_service *service, struct gen_pool *pool,
                        const gen_file_proto *file, const gen_service_proto *proto,
                        const struct gen_types *types, struct gen_text *error)
{
    const char *package = file->package != NULL ? file->package : "";
    size_t i;

    if (!gen_name_valid(proto->name, false)) {
        gen_text_printf(error, "%s: a service has no proper name", file->name);
        return -1;
    }
    service->name = proto->name;
    service->full_name =
        gen_pool_printf(pool, "%s%s%s", package, *package != '\0' ? "." : "", proto->name);
    service->symbol = gen_name_full_lower(pool, gen_name_override(pool, file, service->full_name));
    service->methods = calloc(proto->n_method + 1, sizeof(*service->methods));
    if (service->methods == NULL) {
        gen_text_printf(error, "out of memory");
        return -1;
    }
    service->n_methods = proto->n_method;
    for (i = 0; i < proto->n_method; i++) {
        if (init_method(&service->methods[i], service, pool, file, proto->method[i], types,
                        error) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Hands the comment of one location to the service or method that its path leads to. */
static void place_comment(struct gen_file *file,
                          const Google__Protobuf__SourceCodeInfo__Location *location)
{
    const int32_t *path = location->path;
    struct gen_service *service;

    if (location->leading_comments == NULL || location->n_path < 2 || path[0] != FILE_SERVICE ||
        path[1] < 0 || (size_t)path[1] >= file->n_services) {
        return;
    }
    service = &file->services[path[1]];
    if (location->n_path == 2) {
        service->comment = location->leading_comments;
    } else if (location->n_path == 4 && path[2] == SERVICE_METHOD && path[3] >= 0 &&
               (size_t)path[3] < service->n_methods) {
        service->methods[path[3]].comment = location->leading_comments;
    }
}

/* A name that cannot stand in an #include; protoc-gen-c would write it there as it is. */
static bool includable(const char *name)
{
    for (; *name != '\0'; name++) {
        if ((unsigned char)*name < ' ' || *name == '"' || *name == '\\') {
            return false;
        }
    }
    return true;
}

int gen_file_init(struct gen_file *file, struct gen_pool *pool, const gen_file_proto *proto,
                  const struct gen_types *types, struct gen_text *error)
{
    size_t i;

    *file = (struct gen_file){.name = proto->name};
    if (!includable(proto->name)) {
        gen_text_printf(error, "%s: the file's name cannot stand in an #include", proto->name);
        return -1;
    }
    file->base = gen_name_base(pool, proto->name);
    file->guard = gen_name_guard(pool, file->base);
    file->services = calloc(proto->n_service + 1, sizeof(*file->services));
    if (file->services == NULL) {
        gen_text_printf(error, "out of memory");
        return -1;
    }
    file->n_services = proto->n_service;
    for (i = 0; i < proto->n_service; i++) {
        if (init_service(&file->services[i], pool, proto, proto->service[i], types, error) != 0) {
            return -1;
        }
    }
    for (i = 0; proto->source_code_info != NULL && i < proto->source_code_info->n_location; i++) {
        place_comment(file, proto->source_code_info->location[i]);
    }
    if (pool->failed) {
        gen_text_printf(error, "out of memory");
        return -1;
    }
    return 0;
}

void gen_file_fini(struct gen_file *file)
{
    size_t i;

    for (i = 0; i < file->n_services; i++) {
        free(file->services[i].methods);
    }
    free(file->services);
    *file = (struct gen_file){0};
}
