/* A disk that fails when it is told to: preloaded into a server, it refuses what the files in the folder FAULTS name. And one that
 * remembers: its file "synced" tells of each file that was synced its inode and how long it was then. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int told(const char *fault) {
    const char *folder = getenv("FAULTS");
    char path[4096];
    if (folder == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, fault);
    return access(path, F_OK) == 0;
}

static int is_file(int fd) {
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

static int refuse(int error) {
    errno = error;
    return -1;
}

/* What was written before the sync began, and no more, is what it promises. */
static int synced(int fd, long call) {
    const char *folder = getenv("FAULTS");
    struct stat about;
    if (told("sync")) return refuse(EIO);
    int known = folder != NULL && fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
    int done = (int)syscall(call, fd);
    if (done == 0 && known) {
        char path[4096], line[64];
        snprintf(path, sizeof path, "%s/synced", folder);
        int length = snprintf(line, sizeof line, "%llu %lld\n", (unsigned long long)about.st_ino, (long long)about.st_size);
        int record = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (record >= 0) {
            syscall(SYS_write, record, line, length);
            close(record);
        }
    }
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int refused_write(int fd) {
    if (!is_file(fd)) return 0;
    if (told("full")) return ENOSPC;
    return told("readonly") ? EROFS : 0;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    int error = refused_write(fd);
    return error ? refuse(error) : syscall(SYS_write, fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    int error = refused_write(fd);
    return error ? refuse(error) : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    int error = refused_write(fd);
    return error ? refuse(error) : syscall(SYS_pwrite64, fd, bytes, count, at);
}

static int opened(const char *path, int flags, int mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (writes && strncmp(path, "/dev/", 5) != 0 && told("readonly")) return refuse(EROFS);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    return told("readonly") ? refuse(EROFS) : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to) {
    return told("readonly") ? refuse(EROFS) : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
