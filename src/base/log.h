/* The logger: the project's only global. One line per record to stderr:
 *   2026-01-31T12:00:00.123456Z demo-0 INFO  leader: gate open epoch=7
 * Thread safe; a line is one write(2). */
#ifndef HF_BASE_LOG_H
#define HF_BASE_LOG_H

enum hf_log_level { HF_LOG_DEBUG, HF_LOG_INFO, HF_LOG_WARN, HF_LOG_ERROR };

/* `name`: the node's, or NULL. Copied. Call before any thread starts. */
void hf_log_init(const char *name, enum hf_log_level least);
void hf_log(enum hf_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define hf_debug(...) hf_log(HF_LOG_DEBUG, __VA_ARGS__)
#define hf_info(...)  hf_log(HF_LOG_INFO, __VA_ARGS__)
#define hf_warn(...)  hf_log(HF_LOG_WARN, __VA_ARGS__)
#define hf_err(...)   hf_log(HF_LOG_ERROR, __VA_ARGS__)

#endif
