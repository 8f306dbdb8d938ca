/* Makes one file operation of a process fail, or the process end at it: a library for LD_PRELOAD.

   faults_arm(n, error, stays) lets the n-th operation on a file below FAULTS_ROOT, counted from now, return that errno, or
   kills the process in front of it where the errno is 0; with `stays` all operations that need room fail from there on.
   faults_count() says how many there have been, and faults_names() what they were, "CALL PATH" a line.  Calls that name no
   file below that folder are let through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long at = 0, seen = 0;
static int armed = 0, fault = 0, sticky = 0, hit = 0;
static const char *root = NULL;
static __thread char named[PATH_MAX]; /* by the call that is looked at */
static char *names = NULL;
static size_t length = 0, room_of_names = 0;

void faults_arm(long n, int error, int stays) {
    root = getenv("FAULTS_ROOT");
    at = n, fault = error, sticky = stays, seen = 0, hit = 0, length = 0, armed = root != NULL;
}
long faults_count(void) { return seen; }
const char *faults_names(void) { return names == NULL ? "" : names; }
void faults_disarm(void) { armed = 0; }

static int below(const char *path) {
    size_t n = strlen(root);
    snprintf(named, sizeof named, "%s", path);
    return strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static int of_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static int of_path(int folder, const char *path) {
    if (path == NULL) return 0;
    if (path[0] == '/') return below(path);
    if (folder != AT_FDCWD) return of_fd(folder);
    char here[PATH_MAX];
    int counts = getcwd(here, sizeof here) != NULL && below(here);
    snprintf(named, sizeof named, "%s", path);
    return counts;
}

static void note(const char *call) {
    size_t n = strlen(call) + strlen(named) + 3;
    if (length + n > room_of_names) {
        char *more = realloc(names, 2 * room_of_names + n);
        if (more == NULL) return;
        names = more, room_of_names = 2 * room_of_names + n;
    }
    length += (size_t)snprintf(names + length, n, "%s %s\n", call, named);
}

/* Does this operation fail? */
static int fails(int watched, int needs_room, const char *call) {
    if (!armed || !watched) return 0;
    seen++;
    if (at == 0) note(call);
    if (seen == at) {
        hit = 1;
        if (fault == 0) kill(getpid(), SIGKILL);
    } else if (!(hit && sticky && needs_room)) {
        return 0;
    }
    errno = fault;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FD(type, name, parameters, arguments, room) \
    type name parameters { return fails(armed && of_fd(fd), room, #name) ? -1 : REAL(name) arguments; }
#define PATH(type, name, parameters, arguments, folder, room) \
    type name parameters { return fails(armed && of_path(folder, path), room, #name) ? -1 : REAL(name) arguments; }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return fails(armed && of_path(AT_FDCWD, path), flags & O_CREAT, #name) ? -1 : REAL(name)(path, flags, mode); }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return fails(armed && of_path(folder, path), flags & O_CREAT, #name) ? -1 : REAL(name)(folder, path, flags, mode); }
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        return fails(armed && of_path(AT_FDCWD, path), mode[0] != 'r', #name) ? NULL : REAL(name)(path, mode); }

OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
FD(ssize_t, read, (int fd, void *data, size_t n), (fd, data, n), 0)
FD(ssize_t, pread64, (int fd, void *data, size_t n, off64_t from), (fd, data, n, from), 0)
FD(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n), 1)
FD(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t from), (fd, data, n, from), 1)
FD(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t from), (fd, data, n, from), 1)
FD(ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), 1)
FD(ssize_t, sendfile, (int fd, int source, off_t *from, size_t n), (fd, source, from, n), 1)
FD(ssize_t, sendfile64, (int fd, int source, off64_t *from, size_t n), (fd, source, from, n), 1)
FD(int, ftruncate, (int fd, off_t n), (fd, n), 1)
FD(int, ftruncate64, (int fd, off64_t n), (fd, n), 1)
FD(int, fsync, (int fd), (fd), 1)
FD(int, fdatasync, (int fd), (fd), 1)
FD(int, flock, (int fd, int how), (fd, how), 0)
PATH(int, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, 1)
PATH(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), folder, 1)
PATH(int, unlink, (const char *path), (path), AT_FDCWD, 0)
PATH(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), folder, 0)
PATH(int, rmdir, (const char *path), (path), AT_FDCWD, 0)
PATH(int, chmod, (const char *path, mode_t mode), (path, mode), AT_FDCWD, 0)
PATH(int, link, (const char *path, const char *to), (path, to), AT_FDCWD, 1)
PATH(int, rename, (const char *path, const char *to), (path, to), AT_FDCWD, 0)
PATH(int, renameat, (int folder, const char *path, int other, const char *to), (folder, path, other, to), folder, 0)
PATH(int, renameat2, (int folder, const char *path, int other, const char *to, unsigned how), (folder, path, other, to, how), folder, 0)
