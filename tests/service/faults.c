/* A disk that fails when it is told to: preloaded into a server, it refuses what the files in the folder FAULTS name.
 *
 *   sync             syncs fail
 *   folder           syncs of folders fail that have the name that it holds
 *   full             writes and links fail: no space is left
 *   half             as many writes at an offset as it has bytes are done, the next by half; then the disk is full; a log's mark, which
 *                    is written behind each sync, is left out
 *   readonly         nothing can be written, made or named
 *   links            a file that has no name gets none
 *   full-at-link     the disk is full from the next link on; so with readonly-at-link
 *   reads            of a bank's files, and those of its checkpoints, nothing can be read from a byte on, until it is gone: it holds the
 *                    bank's name and the byte
 *
 * And one that remembers what a power cut leaves: its file "synced" tells of each file that was synced its inode, how long it was then, and
 * how many nanoseconds the sync took; "names-INODE" tells what a folder held when it was last synced, and
 * "content-INODE" what a small file did, which may be written anew in its place. If FAULTS has a folder "kept", files
 * that lose a name get one there, their inode, so that they can come back and nobody gets that inode. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define BLOCK 4096
/* Where linkat has no argument: by this the filter knows a call of ours. */
#define OURS 0x6e656762

static void path_of(char path[4096], const char *name) {
    const char *folder = getenv("FAULTS");
    snprintf(path, 4096, "%s/%s", folder == NULL ? "/nowhere" : folder, name);
}

static int told(const char *fault) {
    char path[4096];
    path_of(path, fault);
    return access(path, F_OK) == 0;
}

static int becomes(const char *fault, const char *next) {
    char from[4096], to[4096];
    path_of(from, fault);
    path_of(to, next);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int is_file(int fd) {
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

static int refuse(int error) {
    errno = error;
    return -1;
}

static pthread_mutex_t listing = PTHREAD_MUTEX_INITIALIZER;

/* A folder's names, as they are now, into the file `path`. */
static void list(int fd, const char *path) {
    int record = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    DIR *names = fdopendir((int)syscall(SYS_openat, fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    if (record < 0 || names == NULL) abort();
    for (struct dirent *name; (name = readdir(names)) != NULL;) {
        if (strcmp(name->d_name, ".") != 0 && strcmp(name->d_name, "..") != 0)
            dprintf(record, "%llu %s%s\n", (unsigned long long)name->d_ino, name->d_name, name->d_type == DT_DIR ? "/" : "");
    }
    closedir(names);
    close(record);
}

/* The names that were there before the sync began are what it promises. */
static int sync_folder(int fd, ino_t inode) {
    char name[64], next[64], path[4096];
    snprintf(name, sizeof name, "names-%llu", (unsigned long long)inode);
    snprintf(next, sizeof next, "next-names-%llu", (unsigned long long)inode);
    path_of(path, next);
    pthread_mutex_lock(&listing);
    list(fd, path);
    int done = (int)syscall(SYS_fsync, fd);
    int error = errno;
    if (done == 0) becomes(next, name);
    pthread_mutex_unlock(&listing);
    errno = error;
    return done;
}

static void tell(const char *name, const char *line) {
    char path[4096];
    path_of(path, name);
    int record = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) abort();
    syscall(SYS_write, record, line, strlen(line));
    close(record);
}

static int is_told_folder(int fd) {
    char path[4096], link[64], folder[4096], name[64];
    path_of(path, "folder");
    int told_of = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
    if (told_of < 0) return 0;
    long length = syscall(SYS_read, told_of, name, sizeof name - 1);
    close(told_of);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long end = syscall(SYS_readlinkat, AT_FDCWD, link, folder, sizeof folder - 1);
    if (length <= 0 || end <= length || folder[end - length - 1] != '/') return 0;
    return memcmp(folder + end - length, name, length) == 0;
}

/* The content of a small file, as it is now, into another that becomes "content-INODE" once the sync is done. */
static void copy(int fd, const struct stat *about, const char *next) {
    char link[64], path[4096], content[BLOCK];
    if (!S_ISREG(about->st_mode) || about->st_size > BLOCK) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    path_of(path, next);
    int from = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    int to = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) abort();
    /* A file that nobody may read has no name any more. */
    long length = from < 0 ? 0 : syscall(SYS_pread64, from, content, sizeof content, (off_t)0);
    if (length > 0 && syscall(SYS_write, to, content, length) != length) abort();
    if (from >= 0) close(from);
    close(to);
}

/* From then on what a file was before the sync is on disk. */
static void copied(const struct stat *about, const char *next) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "content-%llu", (unsigned long long)about->st_ino);
    if (S_ISREG(about->st_mode) && about->st_size <= BLOCK) {
        becomes(next, name);
    } else {
        path_of(path, name);
        syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    }
}

/* What was written before the sync began, and no more, is what it promises. */
static int synced(int fd, long call) {
    char line[96], syncing[64], next[64], path[4096];
    struct stat about;
    struct timespec from, to;
    if (told("sync")) return refuse(EIO);
    if (getenv("FAULTS") == NULL || fstat(fd, &about) != 0) return (int)syscall(call, fd);
    if (S_ISDIR(about.st_mode) && is_told_folder(fd)) return refuse(EIO);
    snprintf(syncing, sizeof syncing, "syncing-%ld", syscall(SYS_gettid));
    snprintf(next, sizeof next, "next-content-%ld", syscall(SYS_gettid));
    tell(syncing, "");
    copy(fd, &about, next);
    clock_gettime(CLOCK_MONOTONIC, &from);
    int done = S_ISDIR(about.st_mode) ? sync_folder(fd, about.st_ino) : (int)syscall(call, fd);
    int error = errno;
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (done == 0) {
        long long took = (to.tv_sec - from.tv_sec) * 1000000000LL + (to.tv_nsec - from.tv_nsec);
        snprintf(line, sizeof line, "%llu %lld %lld\n", (unsigned long long)about.st_ino, (long long)about.st_size, took);
        tell("synced", line);
        copied(&about, next);
    }
    path_of(path, syncing);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    errno = error;
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* Bytes that may be read of it now, from where it stands; 0: the read is to wait. */
/* Of `count` bytes from `at` on. */
static size_t readable(int fd, size_t count, long long at) {
    char path[4096], link[64], folder[80], kept[80], told_of[80], name[64];
    long long from;
    if (!told("reads") || !is_file(fd)) return count;
    path_of(path, "reads");
    int record = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (record < 0) return count;
    long length = syscall(SYS_read, record, told_of, sizeof told_of - 1);
    close(record);
    if (length <= 0) return count;
    told_of[length] = 0;
    if (sscanf(told_of, "%63s %lld", name, &from) != 2) abort();
    snprintf(folder, sizeof folder, "/%s@", name);
    snprintf(kept, sizeof kept, "/%s/", name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return count;
    path[length] = 0;
    if (strstr(path, folder) == NULL && strstr(path, kept) == NULL) return count;
    long long left = from - at;
    if (left <= 0) return 0;
    return (long long)count < left ? count : (size_t)left;
}

ssize_t read(int fd, void *bytes, size_t count) {
    struct timespec pause = {.tv_nsec = 2000000};
    size_t now;
    while ((now = readable(fd, count, syscall(SYS_lseek, fd, 0, SEEK_CUR))) == 0 && count > 0) nanosleep(&pause, NULL);
    return syscall(SYS_read, fd, bytes, now);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    struct timespec pause = {.tv_nsec = 2000000};
    size_t now;
    while ((now = readable(fd, count, at)) == 0 && count > 0) nanosleep(&pause, NULL);
    return syscall(SYS_pread64, fd, bytes, now, at);
}

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

/* Whether it is the file `synced` of a bank. */
static int is_mark(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path);
    return length > 7 && memcmp(path + length - 7, "/synced", 7) == 0;
}

/* How much of a write is done. */
static size_t done_of(int fd, size_t count) {
    char path[4096];
    struct stat about;
    if (is_mark(fd)) return count;
    path_of(path, "half");
    if (stat(path, &about) != 0) return count;
    if (about.st_size > 0) {
        if (truncate(path, about.st_size - 1) != 0) abort();
        return count;
    }
    becomes("half", "full");
    return fcntl(fd, F_GETFL) & O_DIRECT ? count / 2 / BLOCK * BLOCK : count / 2;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    int error = refused_write(fd);
    return error ? refuse(error) : syscall(SYS_pwrite64, fd, bytes, done_of(fd, count), at);
}

/* What stands for it: a file "boot" for the system's boot id, which changes when the power comes back. */
static const char *stand_in(const char *path, char boot[4096]) {
    if (strcmp(path, "/proc/sys/kernel/random/boot_id") != 0 || !told("boot")) return path;
    path_of(boot, "boot");
    return boot;
}

static int opened(const char *path, int flags, int mode) {
    char boot[4096];
    path = stand_in(path, boot);
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (writes && strncmp(path, "/dev/", 5) != 0 && told("readonly")) return refuse(EROFS);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* Of the flags that say what a mode is for, O_TMPFILE has several bits. */
static int wants_mode(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = wants_mode(flags) ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = wants_mode(flags) ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(path, flags, mode);
}

/* A name is about to go: what it names is kept. */
static void keep(int folder, const char *path) {
    char name[64], kept[4096];
    struct stat about;
    if (!told("kept") || fstatat(folder, path, &about, AT_SYMLINK_NOFOLLOW) != 0) return;
    snprintf(name, sizeof name, "kept/%llu", (unsigned long long)about.st_ino);
    path_of(kept, name);
    if (S_ISREG(about.st_mode)) syscall(SYS_linkat, folder, path, AT_FDCWD, kept, 0, OURS);
    /* Held open until the process ends, so that its inode is no other folder's. */
    if (S_ISDIR(about.st_mode)) syscall(SYS_openat, folder, path, O_PATH | O_CLOEXEC, 0);
}

static int removed(int folder, const char *path, int flags) {
    if (told("readonly")) return refuse(EROFS);
    keep(folder, path);
    return (int)syscall(SYS_unlinkat, folder, path, flags);
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }

int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }

int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    return told("readonly") ? refuse(EROFS) : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to) {
    if (told("readonly")) return refuse(EROFS);
    keep(AT_FDCWD, to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* In strikes.c, where that is preloaded too: 0, -1 if a link is to be refused, 1 if it is to be done and refused. */
extern int strike_link(const char *from, const char *to) __attribute__((weak));

static long linked(long from_folder, long from, long to_folder, long to, long flags) {
    int strike = strike_link == NULL ? 0 : strike_link((const char *)from, (const char *)to);
    if (strike < 0) return -EIO;
    becomes("full-at-link", "full");
    becomes("readonly-at-link", "readonly");
    if (told("links")) return -EOPNOTSUPP;
    if (told("full")) return -ENOSPC;
    if (told("readonly")) return -EROFS;
    long done = syscall(SYS_linkat, from_folder, from, to_folder, to, flags, OURS) == 0 ? 0 : -errno;
    return strike > 0 && done == 0 ? -EIO : done;
}

/* linkat is called past the C library, too: the kernel hands each call of it to us. */
static void trapped(int signal, siginfo_t *about, void *context) {
    int error = errno;
    (void)signal, (void)about;
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    greg_t *of = machine->gregs;
    of[REG_RAX] = linked(of[REG_RDI], of[REG_RSI], of[REG_RDX], of[REG_R10], of[REG_R8]);
#elif defined(__aarch64__)
    unsigned long long *of = machine->regs;
    of[0] = (unsigned long long)linked(of[0], of[1], of[2], of[3], of[4]);
#else
#error "where are a system call's arguments?"
#endif
    errno = error;
}

__attribute__((constructor)) static void trap_links(void) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_linkat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("faults.c");
        abort();
    }
}
