/*
 * Makes fsync(2) and fdatasync(2) fail in one process: loaded by LD_PRELOAD.  strace can do so by number only, not by
 * file, once threads share them.
 *
 * SYNC_FILE   a pattern as for fnmatch(3); syncs of all other files pass untouched
 * SYNC_PLAN   one letter for each sync of such a file, the last one for all that follow:
 *               .  pass
 *               e  fail with EIO, without a sync
 *               n  fail with ENOSPC, the same
 *               k  SIGKILL this process instead
 * SYNC_NOTES  a file that gets a line for each sync, of any file: what it was asked, the file's number, its name
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t step;

static char next_act(const char *path) {
    const char *plan = getenv("SYNC_PLAN"), *pattern = getenv("SYNC_FILE");
    size_t last, now;

    if (plan == NULL || *plan == '\0' || pattern == NULL || fnmatch(pattern, path, 0) != 0)
        return '.';
    last = strlen(plan) - 1;
    now = __atomic_fetch_add(&step, 1, __ATOMIC_SEQ_CST);
    return plan[now < last ? now : last];
}

static int play(int descriptor, const char *name) {
    char link[64], path[4096], line[4400];
    const char *notes = getenv("SYNC_NOTES");
    int (*really)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct stat status;
    ssize_t length;
    char act;
    int file;

    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    act = next_act(path);
    if (notes != NULL && fstat(descriptor, &status) == 0) {
        file = open(notes, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        length = snprintf(line, sizeof line, "%c %lu %s\n", act, (unsigned long)status.st_ino, path);
        if (file >= 0 && write(file, line, length) != length)
            abort();
        close(file);
    }
    if (act == 'k')
        kill(getpid(), SIGKILL);
    if (act == 'e' || act == 'n') {
        errno = act == 'e' ? EIO : ENOSPC;
        return -1;
    }
    return really(descriptor);
}

int fsync(int descriptor) { return play(descriptor, "fsync"); }

int fdatasync(int descriptor) { return play(descriptor, "fdatasync"); }
