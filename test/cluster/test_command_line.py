"""What lists verbs and flags lists all of them: help, completion, the documents."""

import os
import re
import subprocess

import pytest

import harness


def verbs():
    """As the code declares them."""
    with open(os.path.join(harness.ROOT, "src", "cmd", "cmd.h"), encoding="utf-8") as f:
        found = re.findall(r"^int hf_cmd_(\w+)\(int argc, char \*\*argv\);", f.read(), re.M)
    assert len(found) > 15
    return sorted(found)


def holdfast(*args):
    return subprocess.run([harness.BINARY, *args], capture_output=True, text=True, timeout=20, check=True).stdout


def complete(*words, env=None):
    """What bash offers for the last word."""
    script = ('eval "$("$1" completion bash)" && complete -p holdfast >/dev/null || exit 1; COMP_WORDS=("$@");'
              ' COMP_CWORD=$(($# - 1)); _holdfast "$1"; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", harness.BINARY, *words], capture_output=True, text=True,
                          timeout=60, check=True, env={**os.environ, **(env or {})})
    assert not done.stderr
    return sorted(done.stdout.split())


def test_every_verb_is_in_help_completion_and_docs():
    assert sorted(re.findall(r"^  ([a-z]+) +\S", holdfast("help"), re.M)) == verbs()
    assert holdfast("--help") == holdfast("-h") == holdfast("help")
    assert complete("") == complete("help", "") == verbs()
    with open(os.path.join(harness.ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        table = f.read().split("## The verbs\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([a-z]+)`", " ".join(rows))) == verbs()


@pytest.mark.parametrize("verb", verbs())
def test_help_and_completion_of_a_verb(verb):
    text = holdfast(verb, "--help")
    assert text == holdfast("help", verb)
    if verb != "help":
        assert text.startswith(f"usage: holdfast {verb} ")
    assert complete(verb[:-1]) == [v for v in verbs() if v.startswith(verb[:-1])]
    flags = re.findall(r"^  (?:-\w, |    )(--[a-z-]+)", text, re.M)
    assert complete(verb, "-") == sorted(flags)
    assert len(flags) == len(set(flags))
    if flags:
        assert flags[0] in complete(verb, flags[0][:-1])


def test_completion_of_values(cluster):
    here = {"HOLDFAST_DIR": cluster.dir}
    assert complete("kill", "", env=here) == complete("switchover", "--to", "", env=here) == cluster.names()
    assert complete("kill", "demo-1", env=here) == ["demo-1"]
    assert complete("kill", "demo-0", "--signal", "S") == ["STOP"]
    assert complete("completion", "") == ["bash"]
    assert complete("doctor", "--fail-on", "") == ["error", "never", "note", "warning"]
    assert "HF001" in complete("doctor", "--ignore", "HF0")
    assert complete("up", "--dir", cluster.dir[:-1]) == [cluster.dir]
