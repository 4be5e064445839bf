/*
 * Makes write(2) fail in one process, for real: loaded by LD_PRELOAD, it hands part of the bytes to the kernel
 * and then does what the test asks for.  strace cannot do this: its injected results write nothing.
 *
 * SHIM_FILE   the file's name, the end of its path; writes to all others pass untouched
 * SHIM_PLAN   one letter for each write to that file, the last one for all that follow:
 *               .  pass
 *               s  short: write half, and say so
 *               h  half: write half and say so; the next write gets ENOSPC
 *               e  fail with EIO, nothing written
 *               w  wait 200 ms, then pass
 *               k  write half, then SIGKILL this process
 * SHIM_SWITCH a file: while it is there and not empty, each write to that file fails with the error whose number it holds
 * SHIM_COUNT  a file that gets one byte for each fault played, so that a test can tell that it fired
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*write_function)(int, const void *, size_t);

static write_function real_write;
static int counter = -1;
static size_t step;
static int no_space_next;

static int is_ours(int descriptor) {
    const char *name = getenv("SHIM_FILE");
    char link[64], path[4096];
    ssize_t length;

    if (name == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(name))
        return 0;
    path[length] = '\0';
    return strcmp(path + length - strlen(name), name) == 0;
}

static void count_one(void) {
    const char *path = getenv("SHIM_COUNT");

    if (counter < 0 && path != NULL)
        counter = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (counter >= 0)
        real_write(counter, "x", 1);
}

static char next_act(void) {
    const char *plan = getenv("SHIM_PLAN");

    if (no_space_next) {
        no_space_next = 0;
        return 'n';
    }
    if (plan == NULL || *plan == '\0')
        return '.';
    if (step + 1 < strlen(plan))
        return plan[step++];
    return plan[strlen(plan) - 1];
}

static int switched_on(void) {
    const char *path = getenv("SHIM_SWITCH");
    char number[16] = "";
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    if (file >= 0) {
        if (read(file, number, sizeof number - 1) < 0)
            number[0] = '\0';
        close(file);
    }
    return atoi(number);
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    ssize_t written;
    int refusal;
    char act;

    if (real_write == NULL)
        real_write = (write_function)dlsym(RTLD_NEXT, "write");
    if (!is_ours(descriptor))
        return real_write(descriptor, bytes, size);
    if ((refusal = switched_on()) != 0) {
        count_one();
        errno = refusal;
        return -1;
    }
    act = next_act();
    if (act == '.')
        return real_write(descriptor, bytes, size);
    count_one();
    if (act == 'w') {
        usleep(200 * 1000);
        return real_write(descriptor, bytes, size);
    }
    if (act == 'e' || act == 'n') {
        errno = act == 'e' ? EIO : ENOSPC;
        return -1;
    }
    written = real_write(descriptor, bytes, size > 1 ? size / 2 : size);
    if (act == 'k')
        kill(getpid(), SIGKILL);
    no_space_next = act == 'h';
    return written;
}
