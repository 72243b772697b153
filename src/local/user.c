#include "local/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER_NAME "postgres"

static const struct passwd *find_user(struct hf_error *err)
{
    const struct passwd *pw = getpwnam(USER_NAME);

    if (pw == NULL)
        (void)hf_fail(err, HF_EPERM,
                      "started as root, and there is no user " USER_NAME " to become (hint: install "
                      "PostgreSQL, or start as another user)");
    return pw;
}

int hf_user_drop(struct hf_error *err)
{
    const struct passwd *pw;

    if (geteuid() != 0)
        return 0;
    pw = find_user(err);
    if (pw == NULL)
        return HF_EPERM;
    if (initgroups(pw->pw_name, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 ||
        setuid(pw->pw_uid) != 0 || setuid(0) == 0)
        return hf_fail(err, HF_EPERM, "cannot become user " USER_NAME ": %s", strerror(errno));
    /* libpq looks for certificates there, and gives TLS up if it may not look. */
    if (setenv("HOME", pw->pw_dir, 1) != 0)
        return hf_fail(err, HF_ENOMEM, "out of memory");
    return 0;
}

int hf_user_own(int fd, const char *path, struct hf_error *err)
{
    const struct passwd *pw;

    if (geteuid() != 0)
        return 0;
    pw = find_user(err);
    if (pw == NULL)
        return HF_EPERM;
    if (fchown(fd, pw->pw_uid, pw->pw_gid) != 0)
        return hf_fail(err, HF_EPERM, "%s: cannot give it to " USER_NAME ": %s", path,
                       strerror(errno));
    return 0;
}

bool hf_user_trusts(uid_t owner)
{
    const struct passwd *pw = geteuid() == 0 ? find_user(NULL) : NULL;

    return geteuid() != 0 || owner == 0 || (pw != NULL && owner == pw->pw_uid);
}

bool hf_user_can_enter(const char *path)
{
    int status;
    pid_t pid;

    if (geteuid() != 0)
        return access(path, X_OK) == 0;
    pid = fork();
    if (pid < 0)
        return false;
    if (pid == 0)
        _exit(hf_user_drop(NULL) == 0 && access(path, X_OK) == 0 ? 0 : 1);
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
