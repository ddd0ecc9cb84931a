// What a kernel may answer: a full disk, an input or output error, a clock that jumps. Preloaded by the harness alone.
// Armed through `arm` and `jump`; only files below one folder are concerned.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static volatile int left = 0, answer = 0, sticky = 0;
static volatile long ahead = 0;

// After `count` more writes into `below` one fails with `error`, or, if `stays`, all from then on.
void arm(const char *below, int count, int error, int stays) {
  strncpy(folder, below, sizeof folder - 1);
  left = count, sticky = stays, answer = error;
}

// The clock of the day is so many seconds ahead from now on.
void jump(long seconds) { ahead = seconds; }

static int fails_at(const char *path) {
  if (!answer || strncmp(path, folder, strlen(folder))) return 0;
  if (__sync_fetch_and_sub(&left, 1) > 0) return 0;
  errno = answer;
  if (!sticky) answer = 0;
  return 1;
}

static int fails(int file) {
  if (!answer) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return fails_at(path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t n) { REAL(write); return fails(file) ? -1 : real(file, data, n); }
ssize_t pwrite(int file, const void *data, size_t n, off_t at) { REAL(pwrite); return fails(file) ? -1 : real(file, data, n, at); }
ssize_t pwrite64(int file, const void *data, size_t n, off64_t at) { REAL(pwrite64); return fails(file) ? -1 : real(file, data, n, at); }
ssize_t writev(int file, const struct iovec *v, int n) { REAL(writev); return fails(file) ? -1 : real(file, v, n); }
int fsync(int file) { REAL(fsync); return fails(file) ? -1 : real(file); }
int ftruncate(int file, off_t n) { REAL(ftruncate); return fails(file) ? -1 : real(file, n); }
int ftruncate64(int file, off64_t n) { REAL(ftruncate64); return fails(file) ? -1 : real(file, n); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return fails_at(path) ? -1 : real(path, mode); }
int rename(const char *from, const char *to) { REAL(rename); return fails_at(to) ? -1 : real(from, to); }

int clock_gettime(clockid_t id, struct timespec *t) {
  REAL(clock_gettime);
  int found = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += ahead;
  return found;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  REAL(gettimeofday);
  int found = real(t, zone);
  t->tv_sec += ahead;
  return found;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
