#include "server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work_dir.h"

#define ARGS_MAX 32

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

void server_process_init(struct server_process *server)
{
    static unsigned made; /* a program may have several */
    *server = (struct server_process){0};
    work_dir_create(server->dir);
    snprintf(server->socket, sizeof server->socket, "/tmp/payloadstored-test-%ld-%u",
             (long)getpid(), made++);
    snprintf(server->address, sizeof server->address, "unix:%s", server->socket);
}

/* ctest names it; by hand it is named in the environment. */
static const char *program_of(const struct server_process *server)
{
    const char *program = server->program != NULL ? server->program : getenv("PAYLOADSTORED");
    if (program == NULL) {
        fputs("PAYLOADSTORED is not set to the server's program\n", stderr);
        abort();
    }
    return program;
}

static void run_server(const struct server_process *server, const char *program,
                       const char *const *flags)
{
    char data[PATH_MAX + 8], log[PATH_MAX + 8];
    snprintf(data, sizeof data, "%s/data", server->dir);
    snprintf(log, sizeof log, "%s/log", server->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    must(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0, log);

    const char *args[ARGS_MAX] = {program, "--data-dir", data, "--listen", server->address};
    for (size_t n = 5; flags != NULL && *flags != NULL && n < ARGS_MAX - 1; n++, flags++) {
        args[n] = *flags;
    }
    execv(args[0], (char *const *)args);
    must(0, args[0]);
}

void server_process_start(struct server_process *server, const char *const *flags)
{
    const char *program = program_of(server);
    char log[PATH_MAX + 8];
    struct stat st;
    snprintf(log, sizeof log, "%s/log", server->dir);
    server->log_start = stat(log, &st) == 0 ? st.st_size : 0;
    server->pid = fork();
    must(server->pid >= 0, "fork");
    if (server->pid == 0) {
        run_server(server, program, flags);
    }
    const struct grpc_c_channel_options options = {.max_receive_bytes = 128u << 20};
    server->channel = grpc_c_channel_create(server->address, &options);
    must(server->channel != NULL, "grpc_c_channel_create");
}

static bool find_target(FILE *log, off_t start, char target[SERVER_TARGET_SIZE])
{
    static const char key[] = "listening address=127.0.0.1:";
    char line[1024];
    bool found = false;

    must(fseeko(log, start, SEEK_SET) == 0, "fseeko");
    while (!found && fgets(line, sizeof line, log) != NULL) {
        const char *at = strstr(line, key);
        if (at != NULL && strchr(line, '\n') != NULL) {
            at = strchr(at, '=') + 1;
            snprintf(target, SERVER_TARGET_SIZE, "%.*s", (int)strcspn(at, " \n"), at);
            found = true;
        }
    }
    return found;
}

void server_process_target(const struct server_process *server, char target[SERVER_TARGET_SIZE])
{
    char path[PATH_MAX + 8];
    const struct timespec moment = {.tv_nsec = 10000000};
    time_t deadline = time(NULL) + 60;

    snprintf(path, sizeof path, "%s/log", server->dir);
    FILE *log = fopen(path, "re");
    must(log != NULL, path);
    while (!find_target(log, server->log_start, target)) {
        must(time(NULL) < deadline, "the server listens on no port");
        nanosleep(&moment, NULL);
    }
    fclose(log);
}

int server_process_stop(struct server_process *server, int signal)
{
    int status = 0;
    grpc_c_channel_destroy(server->channel);
    server->channel = NULL;
    must(kill(server->pid, signal) == 0, "kill");
    must(kill(server->pid, SIGCONT) == 0, "kill"); /* one that a test has stopped hears it too */
    must(waitpid(server->pid, &status, 0) == server->pid, "waitpid");
    server->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void server_process_fini(struct server_process *server)
{
    if (server->pid > 0) {
        server_process_stop(server, SIGKILL);
    }
    unlink(server->socket);
    work_dir_remove(server->dir);
}
