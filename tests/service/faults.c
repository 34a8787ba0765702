/* A disk that fails when it is told to: preloaded into a server, it refuses what the files in the folder FAULTS name. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

int fsync(int fd) { return told("sync") ? refuse(EIO) : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return told("sync") ? refuse(EIO) : (int)syscall(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *bytes, size_t count) {
    return is_file(fd) && told("full") ? refuse(ENOSPC) : syscall(SYS_write, fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_file(fd) && told("full") ? refuse(ENOSPC) : syscall(SYS_writev, fd, parts, count);
}
