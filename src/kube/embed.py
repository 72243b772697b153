#!/usr/bin/env python3
"""Writes a C file that holds the templates given: `embed.py OUT TEMPLATE...`, in that order."""

import os
import sys


def literal(line):
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


def main():
    out, files = sys.argv[1], sys.argv[2:]
    text = ["/* Made of src/kube/templates by src/kube/embed.py. */", '#include "kube/template.h"', "",
            "const struct hf_template hf_templates[] = {"]
    for file in files:
        name = os.path.splitext(os.path.basename(file))[0]
        with open(file, encoding="utf-8") as f:
            lines = f.read().splitlines()
        text.append(f'    {{"{name}",')
        text += ["     " + literal(line) for line in lines]
        text.append("    },")
    text += ["    {NULL, NULL},", "};", ""]
    with open(out, "w", encoding="utf-8") as f:
        f.write("\n".join(text))


main()
