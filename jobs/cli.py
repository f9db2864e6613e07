"""The console script. Parse, call one pipeline, print one JSON object, exit code.

Progress and people's words go to stderr; the last line of stdout is the result, which a terminal that shows the words
is spared unless --json asks for it. Exit codes: 0 done; 2 the user mends config, input or model reference; 3 a
threshold refused; 130 and 143 after Ctrl-C and SIGTERM; 1 anything else.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import os
import signal
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import ConfigError, DefectError, FieldwiseError, known_error
from fieldwise.features.interrupt import SIGNALS, Interrupted, Interruptible
from fieldwise.features.process import FAILURES
from fieldwise.features.redact import redacted_tree
from fieldwise.features.terminal import LOG, TerminalStream, alive, last_words, say, set_style
from fieldwise.jobs import commands


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["spark-submit"] and given[1:2] not in (["--help"], ["-h"]):
        given, passed_on = given[:1], given[1:]  # options of Spark's
    else:
        passed_on = []
    stderr = TerminalStream(sys.stderr)
    with redirect_stderr(stderr):  # argparse repeats what it does not understand
        options = parser().parse_args(given, argparse.Namespace(passed_on=passed_on))
    chosen = [word for word in ("quiet", "verbose") if getattr(options, word)] + ["json"] * options.log_json
    set_style(*chosen, *(["bars"] if sys.stderr.isatty() else []))
    os.umask(os.umask(0o077) | 0o007)  # what a workspace holds is for its user and group
    gc.set_threshold(50_000)  # imports make a million objects that stay: a look at them every 700 takes a second in all

    def say_interrupted(number: int) -> None:
        if os.environ.get("RANK", "0") == "0" and FAILURES not in os.environ:  # else whoever started us speaks
            told = f"interrupted by {signal.Signals(number).name}; nothing half-written is left, run it again to go on"
            last_words(f"fieldwise {options.called}: {told}", stderr)

    ended: list[int] = []
    if argv is None:  # a process of our own: registered first, so it runs last
        atexit.register(_leave, ended)
        if "RANK" not in os.environ:
            say(f"fieldwise {options.called} ...")  # imports take seconds
    with redirect_stderr(stderr), Interruptible(say_interrupted) as signals:
        try:
            with alive(f"fieldwise {options.called}", stderr):
                code = _run(options)
        except Interrupted as interrupted:
            signals.leave(interrupted.number)
            raise
    if argv is None:  # what comes while it shuts down changes nothing of what was said
        sys.stderr = stderr
        for number in SIGNALS:
            signal.signal(number, lambda *_: os._exit(code))
        ended.append(code)
    return code


def _leave(ended: list[int]) -> None:
    """The end of a process whose command has ended, after all that others registered: Python would take a second of
    CPU to tear down its modules, and could hang."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended[0])


def door(command: str, script: str) -> None:
    """Run a command as a script of this folder, whose names shall hide no others."""
    folder = str(Path(script).resolve().parent)
    sys.path[:] = [place for place in sys.path if place != folder]
    sys.exit(main([command, *sys.argv[1:]]))


def _run(options: argparse.Namespace) -> int:
    """One command; returns the exit code. Interrupted for what broke because a signal was ending it."""
    try:
        with redirect_stdout(sys.stderr):  # what libraries tell people
            commands.look_first(options)
            result = options.command(options)
    except Exception as error:
        if Interruptible.active is not None and Interruptible.active.came is not None:
            raise Interrupted(Interruptible.active.came) from error
        known = known_error(error)
        if known is None:
            known = DefectError("a defect", expected="none", found=repr(error), fix=f"\n{traceback.format_exc()}")
        report_failure(known)
        LOG.error(f"fieldwise {options.called}: {known}", extra={"facts": known.facts})
        return known.exit_code
    if result is not None and (not _words_were_read(options) or options.json):
        sys.stdout.flush()
        print(json.dumps(redacted_tree(result), sort_keys=True), flush=True)
    return 0


def _words_were_read(options: argparse.Namespace) -> bool:
    """Whether a person at a terminal has had the result in words."""
    return sys.stdout.isatty() and sys.stderr.isatty() and not options.quiet


def report_failure(error: FieldwiseError) -> None:
    """Inside a rank: leave the error for the launching process, and for what torchrun prints last."""
    if not os.environ.keys() & {FAILURES, "TORCHELASTIC_ERROR_FILE"}:
        return  # else every mistake would wait for torch
    from fieldwise.pipelines.ranks.launch import write_failure

    write_failure(error)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fieldwise", description="Raw click logs to ranked recommendations.")
    subcommands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, help: str, example: str, config: str | None = None, *, configured: bool = True
    ) -> argparse.ArgumentParser:
        command = subcommands.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=getattr(commands, name.replace("-", "_")), called=name)
        if configured:
            given = {"required": True} if config is None else {"default": config}
            told = "the pipeline's YAML file, or its URL" if config is None else f"default: {config or 'none'}"
            command.add_argument("--config", metavar="FILE", help=told, **given)
            command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides",
                                 help="override one config key")  # fmt: skip
        words = command.add_argument_group("words on stderr")
        loud = words.add_mutually_exclusive_group()
        loud.add_argument("-q", "--quiet", action="store_true", help="warnings and errors alone")
        loud.add_argument("-v", "--verbose", action="store_true", help="with seconds and module")
        words.add_argument("--log-json", action="store_true", help="a JSON object a line")
        command.add_argument("--json", action="store_true",
                             help="print the result as one JSON object, also on a terminal")  # fmt: skip
        return command

    init = add("init", "Look at a log and write a commented config that runs; ask nothing, overwrite nothing.",
               "fieldwise init clicks.csv --items products.csv", configured=False)  # fmt: skip
    init.add_argument("log", metavar="LOG", help="csv, tsv, JSON lines or Parquet: a file, directory, pattern or URL")
    init.add_argument("--items", metavar="FILE", help="what may be recommended, a row each")
    init.add_argument("--users", metavar="FILE", help="who gets a list, a row each")
    init.add_argument("--label", metavar="EXPRESSION", help="what a positive is, such as 'rating >= 4'; `true` for "
                      "a log of positives alone (default: guessed)")  # fmt: skip
    init.add_argument("--context", metavar="COLUMN", help="of the log: who gets a list (default: guessed by names)")
    init.add_argument("--item", metavar="COLUMN", help="of the log: what may be in it (default: guessed by names)")
    init.add_argument("--out", metavar="FILE", default="config.yaml", help="the config to write (default: config.yaml)")

    demo = add("demo", "Make a shop's click log, train all four models, rank its catalog.",
               "fieldwise demo --rows 300000", config=commands.DEMO)  # fmt: skip
    demo.add_argument("--rows", type=_count, default=None, help="rows of the log (default: see pipelines/demo/demo.py)")
    demo.add_argument("--seed", type=_seed, default=42, help="another shop")
    demo.add_argument("--models", default="lr,poly2,fm,ffm", help="comma-separated kinds to train")
    demo.add_argument(
        "--ranks", type=_count, default=1, help="training processes (default: this one, with a thread per core)"
    )

    features = add("features", "Encode raw logs into a published snapshot.",
                   "fieldwise features --config configs/movielens.yaml")  # fmt: skip
    features.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="one day's snapshot instead of `all`")
    features.add_argument("--spec", metavar="PLACE", help="encode with the frozen spec of this snapshot or model")
    features.add_argument("--against", metavar="DIR",
                          help="measure drift against this snapshot (default: the spec's own rows)")  # fmt: skip
    features.add_argument("--refit", action="store_true",
                          help="fit the next spec on the training window (the days before --date, else the whole "
                               "source), encode the window with it, and say what moved since --spec "
                               "(default: the champion's)")  # fmt: skip
    features.add_argument("--replace", action="store_true", help="replace a published snapshot")

    train = add("train", "Train a model on snapshots, or choose it of its family; log it, register it as challenger.",
                "fieldwise train --config configs/movielens.yaml --ranks 2 --set model.kind=auto")  # fmt: skip
    train.add_argument("--train", metavar="DIR", action="append", default=[],
                       help="snapshots to train on (default: the workspace's `all`, by its own splits)")  # fmt: skip
    train.add_argument("--valid", metavar="DIR", action="append", default=[], help="snapshots to validate on")
    train.add_argument("--test", metavar="DIR", action="append", default=[], help="snapshots to test on")
    train.add_argument("--ranks", type=_count, default=1, help="training processes on this machine, or on each node")
    train.add_argument(
        "--nnodes", type=_count, metavar="N", help="machines that train together, each with this command"
    )
    train.add_argument("--rdzv", metavar="HOST:PORT", help="where they meet: node 0, and a free port there")
    train.add_argument("--node-rank", type=_seed, metavar="K",
                       help="of this machine, from 0 (default: 0 where HOST is, else any that is free)")  # fmt: skip
    train.add_argument("--on", choices=["spark"], help="ranks are tasks of Spark's executors (see SPARK_MASTER)")
    train.add_argument("--init", metavar="MODEL", help="start from this model's weights")
    train.add_argument(
        "--name",
        help="of the run (default: the model's kind); what was trained under a name is returned, not trained again",
    )
    train.add_argument("--no-register", action="store_true", help="log the run, leave the registry alone")
    train.add_argument("--force", action="store_true",
                       help="register even a model no better than the rate of positives, as challenger; one that was "
                            "refused for it is not trained again")  # fmt: skip

    add(
        "send",
        "Send what trainings reported while MLflow was away.",
        "fieldwise send --config configs/demo.yaml",
    )

    sweep = add("sweep", "Search learning rate, L2, dim, optimizer and initial scale; choose on valid.",
                "fieldwise sweep --config configs/movielens.yaml --trials 32 --kinds fm,ffm")  # fmt: skip
    sweep.add_argument("--trials", type=_count, default=32, help="of every kind (default: 32)")
    sweep.add_argument("--seed", type=_seed, default=1, help="another seed draws other trials")
    sweep.add_argument("--kinds", metavar="KIND,...", help="default: the config's model.kind")
    sweep.add_argument("--name", help="an earlier sweep of this name goes on (default: seed-<seed>)")

    evaluate = add("evaluate", "Metrics of a model on snapshots.",
                   "fieldwise evaluate --config configs/movielens.yaml --role test")  # fmt: skip
    evaluate.add_argument("--snapshot", metavar="DIR", action="append", help="default: <workspace>/snapshots/all")
    _model(evaluate)
    evaluate.add_argument("--role", default="test", choices=["train", "valid", "test"], help="default: test")

    compare = add("compare", "Models side by side on the same rows, with intervals of what they differ by.",
                  "fieldwise compare models:/demo/1 models:/demo@challenger --config configs/demo.yaml")  # fmt: skip
    compare.add_argument(
        "models", metavar="MODEL", nargs="+", help="bundle directory, its URL, or models:/NAME@alias, two or more"
    )
    compare.add_argument("--snapshot", metavar="DIR", action="append", help="default: <workspace>/snapshots/all")
    compare.add_argument("--role", default="test", choices=["train", "valid", "test"], help="default: test")

    rows = add("score-rows", "Probabilities for raw rows in the source's own format.",
               "fieldwise score-rows --config configs/criteo.yaml --out scores")  # fmt: skip
    _model(rows)
    rows.add_argument("--input", metavar="PATH", action="append", help="rows to score (default: the config's source)")
    rows.add_argument("--columns", metavar="NAME,...", help="source columns to write (default: all)")
    rows.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="the source's day")
    rows.add_argument("--out", metavar="DIR", help="default: <workspace>/scores/rows")

    catalog = add("score-catalog", "The exact top-K items of the catalog for every context.",
                  "fieldwise score-catalog --config configs/demo.yaml --date 2026-01-07")  # fmt: skip
    _model(catalog)
    catalog.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="replaces {date} in the catalog's paths")
    catalog.add_argument("--out", metavar="DIR", help="default: <workspace>/scores/catalog")

    factors = add("export-factors", "Vectors of contexts and items for an inner-product index.",
                  "fieldwise export-factors --config configs/demo.yaml --date 2026-01-07")  # fmt: skip
    _model(factors)
    factors.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="replaces {date} in the catalog's paths")
    factors.add_argument("--out", metavar="DIR", help="local; default: <workspace>/factors")

    lists = add("evaluate-lists", "Published lists against what happened afterwards, and beside popularity.",
                "fieldwise evaluate-lists --config configs/demo.yaml --date 2026-01-07 --from 2026-01-07")  # fmt: skip
    lists.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="the day of the lists")
    lists.add_argument("--from", type=_day, metavar="YYYY-MM-DD", dest="first",
                       help="first day they are measured on (default: the one after --date)")  # fmt: skip
    lists.add_argument("--to", type=_day, metavar="YYYY-MM-DD", dest="last", help="last day (default: the first)")
    lists.add_argument("--lists", metavar="DIR", help="default: <workspace>/scores/catalog/date=<date or all>")
    lists.add_argument("--out", metavar="DIR", help="default: <workspace>/evaluations/lists")

    for side in ("items", "contexts"):
        similar = add(f"similar-{side}", f"Nearest neighbours of the catalog's {side} by the model's vectors.",
                      f"fieldwise similar-{side} --config configs/demo.yaml --date 2026-01-07 --k 20")  # fmt: skip
        _model(similar)
        similar.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="replaces {date} in the catalog's paths")
        similar.add_argument("--k", type=_count, default=10, help="how many neighbours (default: 10)")
        similar.add_argument("--by", choices=["cosine", "inner"], default="cosine", help="default: cosine")
        similar.add_argument("--out", metavar="DIR", help=f"default: <workspace>/similar/{side}")

    explain = add("explain", "Why rows score as they do: each field's and each pair's share of the logit.",
                  "fieldwise explain --config configs/movielens.yaml --rows 1")  # fmt: skip
    _model(explain)
    explain.add_argument("--rows", type=_count, default=1, help="how many rows from the start of the source")
    explain.add_argument("--context", metavar="ID", help="a pair of the catalog instead: its context")
    explain.add_argument("--item", metavar="ID", help="and its item")
    explain.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="of the pair: {date} in the catalog")
    explain.add_argument("--importance", action="store_true",
                         help="the whole model instead: shares of the logits' variance")  # fmt: skip
    explain.add_argument("--snapshot", metavar="DIR", action="append",
                         help="of --importance: default <workspace>/snapshots/all")  # fmt: skip
    explain.add_argument("--role", default="test", choices=["train", "valid", "test"], help="of --importance's rows")
    explain.add_argument("--top", type=_count, default=10, help="terms to show per row")
    explain.add_argument("--plot", metavar="FILE", help="draw it: an .html page, or one .svg picture")

    promote = add("promote", "Make a version the champion.", "fieldwise promote --config configs/demo.yaml")
    promote.add_argument("--version", help="default: the challenger")
    promote.add_argument("--reason", metavar="TEXT", help="why, for the record")
    promote.add_argument("--force", action="store_true", help="the challenger even if it was rolled back")
    rollback = add("rollback", "Give the champion alias back to the former champion.",
                   "fieldwise rollback --config configs/demo.yaml --rescore")  # fmt: skip
    rollback.add_argument("--reason", metavar="TEXT", help="why, for the record")
    rollback.add_argument("--rescore", action="store_true", help="score the catalog again with the restored champion")
    rollback.add_argument("--date", type=_day, metavar="YYYY-MM-DD", help="the day to score again (default: the last)")
    history = add("history", "Every decision on a champion: when, on which day, by whom, on what evidence.",
                  "fieldwise history --config configs/demo.yaml --last 20")  # fmt: skip
    history.add_argument("--last", type=_count, metavar="N", help="only the last N decisions")

    daily = add("daily", "One day's features, challenger, comparison, promotion and catalog scores.",
                "fieldwise daily --config configs/demo.yaml --date 2026-01-07")  # fmt: skip
    daily.add_argument("--date", type=_day, required=True, metavar="YYYY-MM-DD")
    daily.add_argument("--refit", action="store_true", help="train under a spec fitted anew on the days before")
    daily.add_argument("--ranks", type=_count, default=1, help="training processes on this machine")
    daily.add_argument("--trust", action="store_true", help="the day is healthy, whatever was found against it")
    daily.add_argument("--hold", action="store_true", help="the champion stays, whatever the gate says")
    daily.add_argument("--force", action="store_true", help="the challenger is promoted, whatever the gate says")
    daily.add_argument("--reason", metavar="TEXT", help="why, for the record")
    daily.add_argument("--dry-run", action="store_true",
                       help="only say what would be built, trained, decided and scored")  # fmt: skip

    first = add("bootstrap", "The first model from a range of days: spec, snapshots, training, registry.",
                "fieldwise bootstrap --config configs/demo.yaml --from 2026-01-01 --to 2026-01-06")  # fmt: skip
    back = add("backfill", "The daily cycle over a range of dates; what is done is not done again.",
               "fieldwise backfill --config configs/demo.yaml --from 2026-01-07 --to 2026-01-31")  # fmt: skip
    fresh = add("freshness", "How a model ages: trained once, measured on each later day.",
                "fieldwise freshness --config configs/demo.yaml --from 2026-01-01 --to 2026-01-07")  # fmt: skip
    fresh.add_argument("--days", type=_count, help="how many days of the range train (default: the first half)")
    fresh.add_argument("--loss", type=float, default=0.01, help="relative loss that is put up with (default: 0.01)")
    for command in (first, back, fresh):
        command.add_argument("--from", type=_day, required=True, metavar="YYYY-MM-DD", dest="first")
        command.add_argument("--to", type=_day, required=True, metavar="YYYY-MM-DD", dest="last")
        command.add_argument("--ranks", type=_count, default=1, help="training processes on this machine")

    prune = add("prune", "Remove days' snapshots and model versions past their retention that nothing uses.",
                "fieldwise prune --config configs/demo.yaml --keep 30d --dry-run")  # fmt: skip
    prune.add_argument("--keep", metavar="DURATION", help="in place of the config's `retention`, such as 30d")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    pack = add("pack", "Pack fieldwise, its packages and compiled kernels for Spark's executors.",
               "fieldwise pack env.tar.gz && export FIELDWISE_ARCHIVE=$PWD/env.tar.gz", configured=False)  # fmt: skip
    pack.add_argument("out", metavar="OUT.tar.gz", help="the archive to write (see docs/deploy.md)")
    add("spark-submit", "Start a job by spark-submit, with pip's Java and what FIELDWISE_ARCHIVE names.",
        "fieldwise spark-submit --master yarn build_features.py --config configs/demo.yaml",
        configured=False)  # fmt: skip

    doctor = add("doctor", "Check Java, Spark, kernels and gloo; with --config also its data, fields, cost and stores.",
                 "fieldwise doctor --config configs/demo.yaml", config="")  # fmt: skip
    doctor.add_argument("--quick", action="store_true", help="leave out what starts processes")
    return top


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", metavar="MODEL", help="bundle directory, its URL, or models:/NAME@alias (default: the champion)"
    )


def _count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number at least 1 and below 10^18, found {text[:40]!r}")
    return int(text)


def _seed(text: str) -> int:
    """A whole number that generators take, also where it is multiplied by a million."""
    if not text.isdecimal() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"expected a whole number below 10^12, found {text[:40]!r}")
    return int(text)


def _day(text: str) -> str:
    """A day, in no other form of ISO 8601 than YYYY-MM-DD."""
    try:
        return str(day_of(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"expected {error.expected}, found {error.found[:40]}") from None


if __name__ == "__main__":
    sys.exit(main())
