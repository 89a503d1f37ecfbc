#!/usr/bin/env python3
"""Runs a verifier of attestation documents over the corpus, and prints what it misses.

    run.py --verifier 'attest verify {document} --root {root} --time {time} --policy {policy}'

The command is run once for each case, without a shell, and answers with its exit code:
0 is accepted, 1 is refused, anything else is an error. README.md beside this file has the
placeholders. It needs Python 3.8 and nothing else.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

CORPUS = pathlib.Path(__file__).resolve().parent
AWS_ROOT = "roots/aws.pem"
CATEGORIES = ["must", "should", "policy"]
EVERYTHING = {
    "root", "time", "nonce", "public_key", "user_data", "module_id", "purpose", "profile",
    "age", "skew", "debug", "roots",
} | {f"pcr{index}" for index in range(32)}
# What a verifier is able to judge if its command has the placeholder.
ABILITIES = {
    "root": {"root"},
    "time": {"time"},
    "time_ms": {"time"},
    "time_s": {"time"},
    "nonce": {"nonce"},
    "public_key": {"public_key"},
    "user_data_prefix": {"user_data"},
    "module_id": {"module_id"},
    "policy": EVERYTHING - {"root", "time"},
    **{f"pcr{index}": {f"pcr{index}"} for index in range(32)},
}
PLACEHOLDERS = {"document", "case", "expectations", *ABILITIES}
# How a case ended, the worst first.
OUTCOMES = ["missed", "crash", "timeout", "good refused", "error", "right"]


def read_cases(corpus, wanted):
    """The cases, each with its own file's path, in the order of their paths."""
    cases = []
    for path in sorted([*corpus.glob("cases/**/*.json"), *corpus.glob("aws/*.json")]):
        case = json.loads(path.read_text())
        case["case"] = str(path.relative_to(corpus))
        if not wanted or any(word in case["case"] or word in case["name"] for word in wanted):
            cases.append(case)
    return cases


def parse_command(text):
    """The command's words; a list in it is left out where one of its values is absent."""
    words, optional = [], None
    for word in shlex.split(text):
        if word.startswith("[") and optional is None:
            optional, word = [], word[1:]
        ends = optional is not None and word.endswith("]")
        (words if optional is None else optional).append(word[:-1] if ends else word)
        if ends:
            words.append(optional)
            optional = None
    if optional is not None or not words or isinstance(words[0], list):
        raise ValueError("a verifier is a command, and each [ in it has its ]")
    return words


def check_placeholders(words):
    flat = [word for entry in words for word in (entry if isinstance(entry, list) else [entry])]
    found = {name for word in flat for name in re.findall(r"\{(\w+)\}", word)}
    unknown = found - PLACEHOLDERS
    if unknown:
        raise ValueError(f"there is no placeholder {{{sorted(unknown)[0]}}}")


def values(case, corpus):
    """What the placeholders stand for, as text; None where the case expects nothing."""
    expectations = json.loads((corpus / case["expectations"]).read_text())
    moment = datetime.datetime.fromtimestamp(case["time_ms"] // 1000, datetime.timezone.utc)
    pcrs = expectations["pcrs"]
    return {
        "document": str(corpus / case["document"]),
        "root": str(corpus / case["root"]),
        "case": str(corpus / case["case"]),
        "policy": str(corpus / case["policy"]),
        "expectations": str(corpus / case["expectations"]),
        "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{case['time_ms'] % 1000:03}Z",
        "time_ms": str(case["time_ms"]),
        "time_s": str(case["time_ms"] // 1000),
        "nonce": expectations["nonce"],
        "public_key": expectations["public_key"],
        "user_data_prefix": expectations["user_data_prefix"],
        "module_id": expectations["module_id"],
        **{f"pcr{index}": pcrs.get(str(index)) for index in range(32)},
    }


def fill(words, known):
    """The command with its values, and the placeholders that are in it."""
    used = set()

    def one(word):
        names = re.findall(r"\{(\w+)\}", word)
        if any(known[name] is None for name in names):
            return None
        used.update(names)
        return re.sub(r"\{(\w+)\}", lambda match: known[match[1]], word)

    command = []
    for entry in words:
        if isinstance(entry, list):
            names = {name for word in entry for name in re.findall(r"\{(\w+)\}", word)}
            if all(known[name] is not None for name in names):
                command.extend(one(word) for word in entry)
        else:
            command.append(one(entry))
    return command, used


def prepare(case, words, options):
    """The command for the case, or None if it is not told what it takes to judge it."""
    command, used = fill(words, values(case, options.corpus))
    able = options.able.union(*(ABILITIES.get(name, set()) for name in used))
    judged = (
        None not in command
        and "time" in able
        and ("root" in able or case["root"] == AWS_ROOT)
        and (not case["needs"] or any(need in able for need in case["needs"]))
    )
    return command if judged else None


def environment(case, clock):
    """The program's clock stands at the case's time, rounded up to a second."""
    if clock is None:
        return None
    seconds = -(-case["time_ms"] // 1000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return {
        **os.environ,
        "LD_PRELOAD": clock,
        "TZ": "UTC",
        "FAKETIME": f"{moment:%Y-%m-%d %H:%M:%S}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def run_case(case, command, options):
    result = {key: case[key] for key in ("case", "name", "rule", "category", "expected")}
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=options.timeout,
            env=environment(case, options.clock),
            check=False,
        )
        code = child.returncode
    except subprocess.TimeoutExpired:
        return {**result, "outcome": "timeout", "answer": f"none in {options.timeout} s"}
    answers = {0: "accepted", 1: "refused"}
    if code < 0:
        try:
            answer = signal.Signals(-code).name
        except ValueError:
            answer = f"signal {-code}"
        return {**result, "outcome": "crash", "answer": answer}
    if code not in answers:
        outcome = "right" if case["may_be_declined"] else "error"
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        last = "".join(filter(str.isprintable, lines[-1]))[:120] if lines else ""
        return {**result, "outcome": outcome, "answer": f"exit code {code}: {last}"}
    outcome = "right"
    if answers[code] != case["expected"]:
        outcome = "missed" if case["expected"] == "refused" else "good refused"
        if outcome == "good refused" and case["may_be_declined"]:
            outcome = "right"
    return {**result, "outcome": outcome, "answer": answers[code]}


def count(results):
    """How the cases of each rule ended."""
    rows = {}
    for result in results:
        rule = re.sub(r"\.\d+$", "", result["rule"] or "accepted")
        row = rows.setdefault((result["category"], rule), dict.fromkeys(OUTCOMES, 0))
        row[result["outcome"]] += 1
    return rows


def print_table(rows):
    head = ["category", "rule", "cases", *OUTCOMES[:-1]]
    order = sorted(rows, key=lambda key: (CATEGORIES.index(key[0]), key[1]))
    # What is accepted and must not be comes first.
    order.sort(key=lambda key: [-rows[key][outcome] for outcome in OUTCOMES[:-1]])
    table = [head]
    for key in order:
        counts = [rows[key][outcome] for outcome in OUTCOMES[:-1]]
        table.append([*key, str(sum(rows[key].values())), *(str(n) if n else "" for n in counts)])
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def print_findings(results, limit):
    titles = {
        "missed": "ACCEPTED, AND MUST BE REFUSED",
        "crash": "CRASHED",
        "timeout": "NO ANSWER IN TIME",
        "good refused": "REFUSED, AND IS GOOD",
        "error": "NEITHER ACCEPTED NOR REFUSED",
    }
    for outcome, title in titles.items():
        found = [result for result in results if result["outcome"] == outcome]
        found.sort(key=lambda result: (CATEGORIES.index(result["category"]), result["case"]))
        if not found:
            continue
        print(f"\n{title}: {len(found)}")
        for result in found[:limit]:
            rule = result["rule"] or "accepted"
            answer = "" if outcome in ("missed", "good refused") else f" ({result['answer']})"
            print(f"  {result['category']:6}  {rule:26}  {result['name']}{answer}")
        if len(found) > limit:
            print(f"  … and {len(found) - limit} more: --names {len(found)}")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Runs a verifier over the corpus, and prints what it misses.",
        epilog="Exit code: 0 if nothing is missed, 1 if something is, 2 for a wrong command line.",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only cases with this in their name or path")
    parser.add_argument("--verifier", required=True, metavar="COMMAND", help="with placeholders such as {document}")
    parser.add_argument("--can", default="", metavar="WORDS", help="what else it judges, as in `age,skew`; `all` is everything")
    parser.add_argument("--clock", metavar="LIBRARY", help="libfaketime, for verifiers that take no time")
    parser.add_argument("--category", action="append", choices=CATEGORIES, help="only cases of this category")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many run at once")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for each case")
    parser.add_argument("--names", type=int, default=20, help="how many cases are named, of each kind")
    parser.add_argument("--json", metavar="FILE", help="write the results to this file, or `-`")
    parser.add_argument("--corpus", type=pathlib.Path, default=CORPUS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        words = parse_command(options.verifier)
        check_placeholders(words)
    except ValueError as error:
        parser.error(str(error))
    options.able = {"time"} if options.clock else set()
    for word in filter(None, options.can.split(",")):
        if word != "all" and word not in EVERYTHING:
            parser.error(f"--can: {word} is not among {', '.join(sorted(EVERYTHING))}")
        options.able |= EVERYTHING if word == "all" else {word}
    return options, words


def main():
    options, words = parse_arguments()
    started = time.monotonic()
    cases = read_cases(options.corpus, options.cases)
    if options.category:
        cases = [case for case in cases if case["category"] in options.category]
    commands = [(case, prepare(case, words, options)) for case in cases]
    asked = [(case, command) for case, command in commands if command is not None]
    if not asked:
        print("no case can be judged: give the verifier {time}, or use --clock", file=sys.stderr)
        return 2
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda pair: run_case(*pair, options), asked))
    except OSError as error:
        print(f"cannot run the verifier: {error}", file=sys.stderr)
        return 2
    rows = count(results)
    right = sum(row["right"] for row in rows.values())
    summary = {
        "verifier": options.verifier,
        "cases": len(cases),
        "judged": len(results),
        "right": right,
        "results": results,
    }
    if options.json == "-":
        json.dump(summary, sys.stdout, indent=1)
        print()
        return int(right < len(results))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(summary, indent=1) + "\n")
    print_table(rows)
    print_findings(results, options.names)
    seconds = time.monotonic() - started
    print(f"\n{right} of {len(results)} right, in {seconds:.0f} s")
    if len(cases) > len(results):
        unjudged = len(cases) - len(results)
        print(f"{unjudged} not judged, because the command is not told the values that they need")
    return int(right < len(results))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
