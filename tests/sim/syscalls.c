/* Preloaded into a program under test: numbers the calls that change its files, and ends the program, fails the call or holds
 * the program up at a chosen number. Settings: SYSCALLS_LOG (file that gets one line a call), SYSCALLS_AT (number, from 1),
 * SYSCALLS_DO ("kill", the number of an error, or a directory), SYSCALLS_FOR_GOOD (every later call fails as well).
 * With a directory, the file "reached" is made in it and the call waits until the file "go" is there, at most 20 seconds.
 * Writing counts only where a regular file is written to. The settings are taken out of the environment, so that children of
 * the program are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1, error, for_good;
static long at, count;
static char reached[512], go[512];

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SYSCALLS_LOG"), *number = getenv("SYSCALLS_AT"), *what = getenv("SYSCALLS_DO");
    if (path)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    at = number ? atol(number) : 0;
    error = what && strcmp(what, "kill") && *what != '/' ? atoi(what) : 0;
    if (what && *what == '/') {
        snprintf(reached, sizeof reached, "%s/reached", what);
        snprintf(go, sizeof go, "%s/go", what);
    }
    for_good = getenv("SYSCALLS_FOR_GOOD") != NULL;
    unsetenv("LD_PRELOAD");
    unsetenv("SYSCALLS_LOG");
    unsetenv("SYSCALLS_AT");
    unsetenv("SYSCALLS_DO");
    unsetenv("SYSCALLS_FOR_GOOD");
}

static void hold_up(void)
{
    struct timespec moment = {0, 500000};
    close((int)syscall(SYS_openat, AT_FDCWD, reached, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    for (int n = 0; n < 40000 && syscall(SYS_faccessat, AT_FDCWD, go, F_OK) != 0; n++)
        nanosleep(&moment, NULL);
}

/* The error for this call, or 0. */
static int met(const char *name)
{
    int now = 0;
    pthread_mutex_lock(&lock);
    count++;
    if (log_fd >= 0) {
        char line[64];
        int length = snprintf(line, sizeof line, "%s\n", name);
        syscall(SYS_write, log_fd, line, length);
    }
    if (at && (count == at || (for_good && count > at))) {
        if (*reached)
            hold_up();
        else if (!error)
            kill(getpid(), SIGKILL);
        now = error;
    }
    pthread_mutex_unlock(&lock);
    return now;
}

static int is_file(int fd)
{
    struct stat status;
    return syscall(SYS_fstat, fd, &status) == 0 && S_ISREG(status.st_mode);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL_AT(name) do { int e = met(name); if (e) { errno = e; return -1; } } while (0)
#define ALWAYS(type, name, parameters, arguments) \
    type name parameters { REAL(name); FAIL_AT(#name); return real arguments; }
#define ON_FILES(type, name, parameters, arguments) \
    type name parameters { REAL(name); if (is_file(fd)) FAIL_AT(#name); return real arguments; }

ON_FILES(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FILES(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to))
ON_FILES(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to))
ON_FILES(ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number))
ON_FILES(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FILES(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FILES(int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_FILES(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group))
ALWAYS(int, fsync, (int fd), (fd))
ALWAYS(int, fdatasync, (int fd), (fd))
ALWAYS(int, rename, (const char *from, const char *to), (from, to))
ALWAYS(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
ALWAYS(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags))
ALWAYS(int, link, (const char *from, const char *to), (from, to))
ALWAYS(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
ALWAYS(int, symlink, (const char *to, const char *name), (to, name))
ALWAYS(int, symlinkat, (const char *to, int a, const char *name), (to, a, name))
ALWAYS(int, unlink, (const char *name), (name))
ALWAYS(int, unlinkat, (int a, const char *name, int flags), (a, name, flags))
ALWAYS(int, mkdir, (const char *name, mode_t mode), (name, mode))
ALWAYS(int, mkdirat, (int a, const char *name, mode_t mode), (a, name, mode))
ALWAYS(int, rmdir, (const char *name), (name))
ALWAYS(int, chmod, (const char *name, mode_t mode), (name, mode))

#define OPENS(name, before, first) \
    int name(before const char *path, int flags, ...) \
    { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (flags & O_CREAT) \
            FAIL_AT(#name); \
        return (int)syscall(SYS_openat, first, path, flags | O_LARGEFILE, mode); \
    }
#define NOTHING
#define DIRECTORY int directory,
OPENS(open, NOTHING, AT_FDCWD)
OPENS(open64, NOTHING, AT_FDCWD)
OPENS(openat, DIRECTORY, directory)
OPENS(openat64, DIRECTORY, directory)
