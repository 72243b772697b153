/* Under valgrind /proc/self/exe is valgrind, for whoever executes it. HOLDFAST_EXE says what it should be. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGS_MAX = 256 };

static const char *meant(const char *path)
{
    const char *exe = getenv("HOLDFAST_EXE");

    return exe != NULL && strcmp(path, "/proc/self/exe") == 0 ? exe : path;
}

int execve(const char *path, char *const argv[], char *const envp[])
{
    int (*next)(const char *, char *const[], char *const[]);

    *(void **)&next = dlsym(RTLD_NEXT, "execve");
    return next(meant(path), argv, envp);
}

int execvp(const char *path, char *const argv[])
{
    int (*next)(const char *, char *const[]);

    *(void **)&next = dlsym(RTLD_NEXT, "execvp");
    return next(meant(path), argv);
}

int execl(const char *path, const char *arg, ...)
{
    char *argv[ARGS_MAX] = {(char *)(size_t)arg};
    va_list list;

    va_start(list, arg);
    for (int i = 1; i < ARGS_MAX - 1 && argv[i - 1] != NULL; i++)
        argv[i] = va_arg(list, char *);
    va_end(list);
    return execve(path, argv, environ);
}
