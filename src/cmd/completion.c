/* holdfast completion: what a shell needs to complete verbs, flags and nodes. */
#include "cmd/cmd.h"

#include <string.h>

static const char script[] =
    "# bash completion for holdfast: eval \"$(holdfast completion bash)\"\n"
    "_holdfast() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
    "    COMPREPLY=()\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
    "        COMPREPLY=($(compgen -W \"$(\"$1\" help | sed -n 's/^  \\([a-z]*\\) .*/\\1/p')\" -- \"$cur\"))\n"
    "        return\n"
    "    fi\n"
    "    case $prev in\n"
    "        --dir|--pg-bindir|--tls-dir|--split) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n"
    "        -f) if [ \"$verb\" = doctor ]; then COMPREPLY=($(compgen -f -- \"$cur\")); return; fi ;;\n"
    "        --file|--kubeconfig) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
    "        --fail-on) COMPREPLY=($(compgen -W 'note warning error never' -- \"$cur\")); return ;;\n"
    "        --ignore) COMPREPLY=($(compgen -W \"$(\"$1\" doctor --rules | cut -c1-5)\" -- \"$cur\")); return ;;\n"
    "        --signal) COMPREPLY=($(compgen -W 'KILL TERM STOP CONT' -- \"$cur\")); return ;;\n"
    "        help) COMPREPLY=($(compgen -W \"$(\"$1\" help | sed -n 's/^  \\([a-z]*\\) .*/\\1/p')\" -- "
    "\"$cur\")); return ;;\n"
    "    esac\n"
    "    if [[ $cur == -* ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$(\"$1\" \"$verb\" --help | sed -n 's/^  ....\\(--[a-z-]*\\) .*/\\1/p')\" -- "
    "\"$cur\"))\n"
    "    elif [[ $verb =~ ^(kill|start|logs)$ || $prev == --to || $prev == --node ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$(\"$1\" status --json 2>/dev/null | sed -n 's/.*\"name\": "
    "\"\\(.*\\)\".*/\\1/p')\" -- \"$cur\"))\n"
    "    elif [ \"$verb\" = completion ]; then\n"
    "        COMPREPLY=($(compgen -W bash -- \"$cur\"))\n"
    "    fi\n"
    "}\n"
    "complete -F _holdfast holdfast\n";

int hf_cmd_completion(int argc, char **argv)
{
    struct hf_operands shells = {.max = 1};
    const struct hf_usage u = {"bash",
                               "Prints the completion script of a shell; bash is the one there is. In "
                               "~/.bashrc:\n\n  eval \"$(holdfast completion bash)\"\n",
                               NULL, 0};
    int status;

    if (!hf_cmd_parse(argc, argv, &u, &shells, &status))
        return status;
    if (shells.n != 1 || strcmp(shells.items[0], "bash") != 0)
        return hf_cmd_wrong_usage("completion", "which shell? bash is the one there is");
    fputs(script, stdout);
    return 0;
}
