#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    char name[64];
    enum hf_log_level least;
} logger = {.least = HF_LOG_INFO};

void hf_log_init(const char *name, enum hf_log_level least)
{
    (void)snprintf(logger.name, sizeof logger.name, "%s%s", name != NULL ? name : "",
                   name != NULL ? " " : "");
    logger.least = least;
}

void hf_log(enum hf_log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
    char line[1024];
    struct timespec ts;
    struct tm tm;
    size_t n;
    int m;
    va_list ap;

    if (level < logger.least)
        return;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    m = snprintf(line + n, sizeof line - n, ".%06ldZ %s%s ", ts.tv_nsec / 1000, logger.name,
                 names[level]);
    n += (size_t)m;
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    if (m > 0)
        n += (size_t)m < sizeof line - n - 1 ? (size_t)m : sizeof line - n - 2;
    line[n++] = '\n';
    /* A log line that cannot be written must not stop the node. */
    if (write(STDERR_FILENO, line, n) < 0)
        return;
}
