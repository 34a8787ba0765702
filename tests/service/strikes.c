/* A disk whose n-th call fails: preloaded into a server before faults.c, it reads its orders from the file "strikes" in the folder FAULTS, a
 * line each:
 *
 *   ID KIND N HOW PATTERN
 *
 * Of the calls of a kind on paths that have the pattern in them the N-th of a process fails, and a file "struck-ID" tells of it. Kinds are
 * write, sync, read, open (of what is there), make (a file or folder), rename, link, unlink and truncate; of the two paths of a call either
 * counts. One more is thread, the start of one, which counts as of "/threads/" and fails for want of them. HOW it fails:
 *
 *   eio      nothing is done
 *   half     of a write the first half is done, then the disk is full
 *   short    of a read or write the first half is done, which is no error
 *   after    all is done, and it is an error all the same
 *   lose     of a sync nothing is done, and the system takes for written what was to be: only what is written again can still get to the disk
 *   kill     the process ends there
 *   wait     it is done once the order is taken back
 *
 * What of a file is lost so stands in "lost-INODE", and is taken off what faults.c tells of its syncs. With a file "skip-syncs" no sync is
 * done that does not fail: where no power is cut they only take time. */
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

#define BLOCK 4096
#define ORDERS 64
#define PATH 4096

enum how { NO, EIO_, HALF, SHORT, AFTER, LOSE, KILL, WAIT };
static const char *const hows[] = {"no", "eio", "half", "short", "after", "lose", "kill", "wait"};

struct order {
    long id, left;
    char kind[16], pattern[256];
    enum how how;
};

static pthread_mutex_t ordering = PTHREAD_MUTEX_INITIALIZER;
static struct order orders[ORDERS];
static int ordered;

static void path_of(char path[PATH], const char *name) {
    const char *folder = getenv("FAULTS");
    snprintf(path, PATH, "%s/%s", folder == NULL ? "/nowhere" : folder, name);
}

static long read_file(const char *name, char *text, long most) {
    char path[PATH];
    path_of(path, name);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return -1;
    long length = 0, got;
    while ((got = syscall(SYS_read, file, text + length, most - 1 - length)) > 0) length += got;
    close(file);
    text[length] = 0;
    return length;
}

static void write_file(const char *name, int flags, const char *text) {
    char path[PATH];
    path_of(path, name);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (file < 0 || syscall(SYS_write, file, text, strlen(text)) < 0) abort();
    close(file);
}

/* An order that stays one goes on counting. */
static void read_orders(void) {
    static char last[1 << 14], text[1 << 14];
    static struct order before[ORDERS];
    if (read_file("strikes", text, sizeof text) < 0) text[0] = 0;
    if (strcmp(text, last) == 0) return;
    strcpy(last, text);
    int were = ordered;
    memcpy(before, orders, sizeof orders);
    ordered = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        struct order *order = &orders[ordered];
        char how[16];
        if (ordered == ORDERS) abort();
        if (sscanf(line, "%ld %15s %ld %15s %255s", &order->id, order->kind, &order->left, how, order->pattern) != 5) abort();
        order->how = NO;
        for (int at = EIO_; at <= WAIT; at++)
            if (strcmp(how, hows[at]) == 0) order->how = at;
        if (order->how == NO) abort();
        for (int at = 0; at < were; at++)
            if (before[at].id == order->id) order->left = before[at].left;
        ordered++;
    }
}

/* Until it is taken back. */
static void wait_for(long id) {
    struct timespec pause = {.tv_nsec = 2000000};
    int stands;
    do {
        nanosleep(&pause, NULL);
        stands = 0;
        pthread_mutex_lock(&ordering);
        read_orders();
        for (int at = 0; at < ordered; at++) stands |= orders[at].id == id;
        pthread_mutex_unlock(&ordering);
    } while (stands);
}

/* How a call fails, if it does. */
static enum how strike(const char *kind, const char *path, const char *other) {
    enum how how = NO;
    long id = 0;
    int error = errno;
    pthread_mutex_lock(&ordering);
    read_orders();
    for (int at = 0; at < ordered; at++) {
        struct order *order = &orders[at];
        int is_meant = strstr(path, order->pattern) != NULL || (other != NULL && strstr(other, order->pattern) != NULL);
        if (strcmp(kind, order->kind) != 0 || !is_meant || order->left <= 0 || --order->left > 0) continue;
        char name[64];
        snprintf(name, sizeof name, "struck-%ld", order->id);
        write_file(name, 0, "");
        how = order->how;
        id = order->id;
    }
    pthread_mutex_unlock(&ordering);
    if (how == KILL) raise(SIGKILL);
    if (how == WAIT) wait_for(id);
    errno = error;
    return how == WAIT ? NO : how;
}

static int is_ordered(const char *kind) {
    int is = 0, error = errno;
    pthread_mutex_lock(&ordering);
    read_orders();
    for (int at = 0; at < ordered; at++) is |= orders[at].left > 0 && strcmp(kind, orders[at].kind) == 0;
    pthread_mutex_unlock(&ordering);
    errno = error;
    return is;
}

static enum how strike_open(const char *kind, int fd) {
    char link[64], path[PATH];
    if (!is_ordered(kind)) return NO;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int error = errno;
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = error;
    if (length <= 0 || path[0] != '/') return NO;
    path[length] = 0;
    return strike(kind, path, NULL);
}

static enum how strike_in(const char *kind, int folder, const char *path) {
    char link[64], whole[2 * PATH];
    if (folder == AT_FDCWD || path[0] == '/') return strike(kind, path, NULL);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, whole, PATH - 1);
    if (length <= 0) return NO;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return strike(kind, whole, NULL);
}

/* For faults.c, which the kernel tells of links: 0, -1 if it is to be refused, 1 if it is to be done and refused. */
int strike_link(const char *from, const char *to) {
    enum how how = strike("link", from, to);
    return how == NO ? 0 : how == AFTER ? 1 : -1;
}

static int refuse(int error) {
    errno = error;
    return -1;
}

#define NEXT(name)                                             \
    static __typeof__(&name) next;                             \
    if (next == NULL) next = dlsym(RTLD_NEXT, #name);          \
    if (next == NULL) abort()

/* --- what a failed sync loses ------------------------------------------------------------------------------------------------ */

static int lost(ino_t inode, long long *from, long long *to) {
    char name[64], text[64];
    snprintf(name, sizeof name, "lost-%llu", (unsigned long long)inode);
    return read_file(name, text, sizeof text) > 0 && sscanf(text, "%lld %lld", from, to) == 2;
}

static void tell_lost(ino_t inode, long long from, long long to) {
    char name[64], text[64], path[PATH];
    snprintf(name, sizeof name, "lost-%llu", (unsigned long long)inode);
    snprintf(text, sizeof text, "%lld %lld\n", from, to);
    path_of(path, name);
    if (from < to) write_file(name, O_TRUNC, text);
    else syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* All of a file that no sync has confirmed. */
static void lose(int fd) {
    static char text[1 << 20];
    struct stat about;
    long long from = 0, inode, length;
    if (fstat(fd, &about) != 0) abort();
    pthread_mutex_lock(&ordering);
    if (read_file("synced", text, sizeof text) > 0)
        for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
            if (sscanf(line, "%lld %lld", &inode, &length) == 2 && (ino_t)inode == about.st_ino) from = length;
    tell_lost(about.st_ino, from, about.st_size);
    pthread_mutex_unlock(&ordering);
}

/* What is written again gets to the disk with the next sync. */
static void found(int fd, long long at, long long length) {
    struct stat about;
    long long from, to;
    int error = errno;
    pthread_mutex_lock(&ordering);
    if (fstat(fd, &about) == 0 && lost(about.st_ino, &from, &to) && at <= from && at + length > from)
        tell_lost(about.st_ino, at + length, to);
    pthread_mutex_unlock(&ordering);
    errno = error;
}

static void confirm(int fd) {
    struct stat about;
    long long from, to;
    char line[96];
    int error = errno;
    pthread_mutex_lock(&ordering);
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && lost(about.st_ino, &from, &to)) {
        snprintf(line, sizeof line, "%llu %lld 0\n", (unsigned long long)about.st_ino, from);
        write_file("synced", O_APPEND, line);
    }
    pthread_mutex_unlock(&ordering);
    errno = error;
}

/* --- the calls --------------------------------------------------------------------------------------------------------------- */

/* How much of a write is the first half: of one past the page cache whole blocks. */
static size_t half_of(int fd, size_t count) {
    return fcntl(fd, F_GETFL) & O_DIRECT ? count / 2 / BLOCK * BLOCK : count / 2;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    NEXT(write);
    enum how how = strike_open("write", fd);
    if (how == NO) return next(fd, bytes, count);
    if (how == SHORT) return next(fd, bytes, half_of(fd, count) > 0 ? half_of(fd, count) : count);
    if (how == HALF) return next(fd, bytes, half_of(fd, count)) < 0 ? -1 : refuse(ENOSPC);
    return how == AFTER && next(fd, bytes, count) < 0 ? -1 : refuse(EIO);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    return strike_open("write", fd) == NO ? next(fd, parts, count) : refuse(EIO);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    NEXT(pwrite64);
    enum how how = strike_open("write", fd);
    if (how == SHORT && half_of(fd, count) > 0) count = half_of(fd, count);
    if (how == NO || how == SHORT) {
        ssize_t done = next(fd, bytes, count, at);
        if (done > 0) found(fd, at, done);
        return done;
    }
    if (how == HALF) return next(fd, bytes, half_of(fd, count), at) < 0 ? -1 : refuse(ENOSPC);
    return how == AFTER && next(fd, bytes, count, at) < 0 ? -1 : refuse(EIO);
}

ssize_t read(int fd, void *bytes, size_t count) {
    NEXT(read);
    enum how how = strike_open("read", fd);
    if (how == NO) return next(fd, bytes, count);
    return how == SHORT ? next(fd, bytes, (count + 1) / 2) : refuse(EIO);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    NEXT(pread64);
    enum how how = strike_open("read", fd);
    if (how == NO) return next(fd, bytes, count, at);
    return how == SHORT ? next(fd, bytes, (count + 1) / 2, at) : refuse(EIO);
}

static int are_skipped(void) {
    char path[PATH];
    path_of(path, "skip-syncs");
    return access(path, F_OK) == 0;
}

static int synced(int fd, int (*next)(int)) {
    enum how how = strike_open("sync", fd);
    if (how == LOSE) lose(fd);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = are_skipped() ? 0 : next(fd);
    if (done == 0) confirm(fd);
    return how == AFTER ? refuse(EIO) : done;
}

int fsync(int fd) {
    NEXT(fsync);
    return synced(fd, next);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    return synced(fd, next);
}

int ftruncate64(int fd, off64_t length) {
    NEXT(ftruncate64);
    enum how how = strike_open("truncate", fd);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(fd, length);
    return how == AFTER ? refuse(EIO) : done;
}

/* Of the flags that say what a mode is for, O_TMPFILE has several bits. */
static int makes(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

static int opened(int (*next)(const char *, int, ...), const char *path, int flags, int mode) {
    enum how how = strike(makes(flags) ? "make" : "open", path, NULL);
    if (how != NO && how != AFTER) return refuse(EIO);
    int file = next(path, flags, mode);
    if (how == NO || file < 0) return file;
    close(file);
    return refuse(EIO);
}

int open(const char *path, int flags, ...) {
    NEXT(open);
    va_list rest;
    va_start(rest, flags);
    int mode = makes(flags) ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(next, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    NEXT(open64);
    va_list rest;
    va_start(rest, flags);
    int mode = makes(flags) ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(next, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    enum how how = strike("make", path, NULL);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(path, mode);
    return how == AFTER ? refuse(EIO) : done;
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    enum how how = strike("rename", from, to);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(from, to);
    return how == AFTER ? refuse(EIO) : done;
}

int unlink(const char *path) {
    NEXT(unlink);
    enum how how = strike("unlink", path, NULL);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(path);
    return how == AFTER ? refuse(EIO) : done;
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    enum how how = strike_in("unlink", folder, path);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(folder, path, flags);
    return how == AFTER ? refuse(EIO) : done;
}

int rmdir(const char *path) {
    NEXT(rmdir);
    enum how how = strike("unlink", path, NULL);
    if (how != NO && how != AFTER) return refuse(EIO);
    int done = next(path);
    return how == AFTER ? refuse(EIO) : done;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *with, void *(*work)(void *), void *of) {
    NEXT(pthread_create);
    return strike("thread", "/threads/", NULL) == NO ? next(thread, with, work, of) : EAGAIN;
}
