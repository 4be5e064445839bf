/*
 * Lets one system call of a forked child fail, kills the child at it, or stops it before it (SIGSTOP); loaded by
 * LD_PRELOAD into the parent.
 *
 * Only calls on what lies in one folder count, by name or by descriptor.  A child sets its plan itself, after the fork;
 * the counts lie in memory that it shares with its parent, so that they outlive the kill.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define CALLS 32
enum act { PASS, FAIL, BEFORE, AFTER, HALF, SHORT, PART };

static const char *const names[CALLS] = {
    "open",  "read",  "pread", "write", "pwrite",  "writev", "ftruncate", "fallocate", "flock",   "fsync", "fdatasync",
    "close", "fstat", "stat",  "lstat", "opendir", "rename", "link",      "unlink",    "mkdir",   "rmdir", "chmod",
    "chown", "renameat2", "utimensat", NULL};

static struct { /* what the parent reads */
    long counts[CALLS];
    long fired;
    long all; /* calls of every kind */
    long held; /* the process that stops itself */
    char where[512];
} *page, *pages; /* two that meet have one each */

static struct {
    char folder[4096];
    int call, error, for_good;
    enum act act;
    long at;
} plan;
static int refused = -1, refusal; /* a scenario's own fault, no injection */
static int rest_fails;
static long hold_at; /* before which call, of any kind, of us and our children, we stop; 0 for none */
static int traced = -1; /* where each call is told */

static int number_of(const char *name) {
    for (int i = 0; name != NULL && names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Called once in each process that has children of its own to count. */
void shim_share(void) {
    pages = page = mmap(NULL, 2 * sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void shim_begin(const char *folder, const char *call, int act, long at, int error, int for_good) {
    memset(page, 0, sizeof *page);
    snprintf(plan.folder, sizeof plan.folder, "%s", folder);
    plan.call = number_of(call);
    plan.act = act, plan.at = at, plan.error = error, plan.for_good = for_good;
    refused = -1, rest_fails = 0, hold_at = 0;
}

/* Of two that meet, which one we are; where each of our calls is told, if anywhere. */
void shim_hold(const char *folder, long at, int who, const char *trace) {
    page = pages + who;
    shim_begin(folder, NULL, 0, 0, 0, 0);
    hold_at = at;
    traced = trace == NULL ? -1 : openat(AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

void shim_heal(void) {
    plan.call = -1;
    rest_fails = 0;
}

void shim_refuse(const char *call, int error) {
    refused = number_of(call);
    refusal = error;
}

void shim_stop(void) { plan.folder[0] = '\0'; }
long shim_count(const char *call) { return page->counts[number_of(call)]; }
long shim_fired(void) { return page->fired; }
long shim_held(int who) { return pages[who].held; }
const char *shim_held_at(int who) { return pages[who].where; }
void shim_forget(void) { memset(pages, 0, 2 * sizeof *pages); }
const char *shim_where(void) { return page->where; }

/* Counts the call if it is ours, and says what is to be done with it. */
static enum act look(int call, int descriptor, const char *path) {
    char link[64], found[4096];
    int saved = errno;
    long count;

    if (plan.folder[0] == '\0')
        return PASS;
    if (path == NULL) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, found, sizeof found - 1);
        errno = saved;
        if (length < 0)
            return PASS;
        found[length] = '\0';
        path = found;
    }
    if (strncmp(path, plan.folder, strlen(plan.folder)) != 0)
        return PASS;
    count = __sync_add_and_fetch(&page->counts[call], 1);
    if (traced >= 0)
        dprintf(traced, "%s %s\n", names[call], path + strlen(plan.folder));
    if (hold_at && __sync_add_and_fetch(&page->all, 1) == hold_at) {
        snprintf(page->where, sizeof page->where, "%s %s", names[call], path + strlen(plan.folder));
        page->held = getpid();
        kill(getpid(), SIGSTOP);
    }
    errno = saved;
    if (call == refused) {
        errno = refusal;
        return FAIL;
    }
    if (call != plan.call)
        return PASS;
    if (__sync_bool_compare_and_swap(&rest_fails, 1, 0)) {
        errno = plan.error;
        return FAIL;
    }
    if (count != plan.at && !(plan.for_good && count > plan.at))
        return PASS;
    if (__sync_add_and_fetch(&page->fired, 1) == 1)
        snprintf(page->where, sizeof page->where, "%s %s", names[call], path + strlen(plan.folder));
    if (plan.act == BEFORE)
        kill(getpid(), SIGKILL);
    errno = plan.error;
    return plan.act;
}

static void die_if(int is_time) {
    if (is_time)
        kill(getpid(), SIGKILL);
}

#define WRAP(number, result, bad, symbol, parameters, arguments, descriptor, path)                                     \
    result symbol parameters {                                                                                         \
        static result(*real) parameters;                                                                               \
        if (real == NULL)                                                                                              \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #symbol);                                                    \
        enum act act = look(number, descriptor, path);                                                                 \
        if (act == FAIL)                                                                                               \
            return bad;                                                                                                \
        result done = real arguments;                                                                                  \
        die_if(act == AFTER);                                                                                          \
        return done;                                                                                                   \
    }

#define OPEN(symbol)                                                                                                   \
    int symbol(const char *path, int flags, ...) {                                                                     \
        static int (*real)(const char *, int, ...);                                                                    \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        int mode = va_arg(rest, int);                                                                                  \
        va_end(rest);                                                                                                  \
        if (real == NULL)                                                                                              \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #symbol);                                         \
        enum act act = look(0, -1, path);                                                                              \
        if (act == FAIL)                                                                                               \
            return -1;                                                                                                 \
        int done = real(path, flags, mode);                                                                            \
        die_if(act == AFTER);                                                                                          \
        return done;                                                                                                   \
    }

/* One that can also stop half-way: HALF kills there, SHORT says so, PART lets the next one fail as well. */
#define WRITE(number, symbol, parameters, whole, half)                                                                 \
    ssize_t symbol parameters {                                                                                        \
        static ssize_t(*real) parameters;                                                                              \
        if (real == NULL)                                                                                              \
            real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #symbol);                                                   \
        enum act act = look(number, descriptor, NULL);                                                                 \
        if (act == FAIL)                                                                                               \
            return -1;                                                                                                 \
        rest_fails |= act == PART;                                                                                     \
        ssize_t done = act == HALF || act == SHORT || act == PART ? real half : real whole;                            \
        die_if(act == AFTER || act == HALF);                                                                           \
        return done;                                                                                                   \
    }

OPEN(open)
OPEN(open64)
WRAP(1, ssize_t, -1, read, (int d, void *b, size_t n), (d, b, n), d, NULL)
WRAP(2, ssize_t, -1, pread, (int d, void *b, size_t n, off_t o), (d, b, n, o), d, NULL)
WRAP(2, ssize_t, -1, pread64, (int d, void *b, size_t n, off64_t o), (d, b, n, o), d, NULL)
WRITE(3, write, (int descriptor, const void *b, size_t n), (descriptor, b, n), (descriptor, b, n / 2))
WRITE(4, pwrite, (int descriptor, const void *b, size_t n, off_t o), (descriptor, b, n, o), (descriptor, b, n / 2, o))
WRITE(4, pwrite64, (int descriptor, const void *b, size_t n, off64_t o), (descriptor, b, n, o),
      (descriptor, b, n / 2, o))
WRAP(5, ssize_t, -1, writev, (int d, const struct iovec *v, int n), (d, v, n), d, NULL)
WRAP(6, int, -1, ftruncate, (int d, off_t n), (d, n), d, NULL)
WRAP(6, int, -1, ftruncate64, (int d, off64_t n), (d, n), d, NULL)
WRAP(7, int, errno, posix_fallocate, (int d, off_t o, off_t n), (d, o, n), d, NULL)
WRAP(7, int, errno, posix_fallocate64, (int d, off64_t o, off64_t n), (d, o, n), d, NULL)
WRAP(8, int, -1, flock, (int d, int what), (d, what), d, NULL)
WRAP(9, int, -1, fsync, (int d), (d), d, NULL)
WRAP(10, int, -1, fdatasync, (int d), (d), d, NULL)
WRAP(12, int, -1, fstat, (int d, struct stat *s), (d, s), d, NULL)
WRAP(12, int, -1, fstat64, (int d, struct stat64 *s), (d, s), d, NULL)
WRAP(13, int, -1, stat, (const char *p, struct stat *s), (p, s), -1, p)
WRAP(13, int, -1, stat64, (const char *p, struct stat64 *s), (p, s), -1, p)
WRAP(14, int, -1, lstat, (const char *p, struct stat *s), (p, s), -1, p)
WRAP(14, int, -1, lstat64, (const char *p, struct stat64 *s), (p, s), -1, p)
WRAP(15, DIR *, NULL, opendir, (const char *p), (p), -1, p)
WRAP(16, int, -1, rename, (const char *p, const char *to), (p, to), -1, p)
WRAP(17, int, -1, link, (const char *p, const char *to), (p, to), -1, p)
WRAP(18, int, -1, unlink, (const char *p), (p), -1, p)
WRAP(19, int, -1, mkdir, (const char *p, mode_t m), (p, m), -1, p)
WRAP(20, int, -1, rmdir, (const char *p), (p), -1, p)
WRAP(21, int, -1, chmod, (const char *p, mode_t m), (p, m), -1, p)
WRAP(21, int, -1, fchmod, (int d, mode_t m), (d, m), d, NULL)
WRAP(22, int, -1, chown, (const char *p, uid_t u, gid_t g), (p, u, g), -1, p)
WRAP(22, int, -1, lchown, (const char *p, uid_t u, gid_t g), (p, u, g), -1, p)
WRAP(22, int, -1, fchown, (int d, uid_t u, gid_t g), (d, u, g), d, NULL)

WRAP(23, int, -1, renameat2, (int d, const char *p, int e, const char *to, unsigned f), (d, p, e, to, f), -1, p)
WRAP(24, int, -1, utimensat, (int d, const char *p, const struct timespec t[2], int f), (d, p, t, f), -1, p)

/* Linux has closed the descriptor also where close(2) tells an error. */
int close(int descriptor) {
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    enum act act = look(11, descriptor, NULL);
    int error = errno, done = real(descriptor);
    die_if(act == AFTER);
    if (act != FAIL)
        return done;
    errno = error;
    return -1;
}
