"""``lintransformer run``: train what figures need, draw them, and leave everything in a results folder."""
from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

from lintransformer.checks import InputError, check_finite_positive, check_positive_integer
from lintransformer.cli_arguments import path
from lintransformer.cli_output import printable, problem, reader_may_leave

JOBS_FOR_EACH_CORE, JOBS_ANYWHERE = 4, 32      # what -j may be at most: more is a slip, and fills the memory
LONGEST_TIMEOUT = 1e8                          # seconds, three years


def add_run(commands):
    """Add the command ``run``."""
    parser = commands.add_parser(
        "run", help="train and draw figures; what is finished is kept", allow_abbrev=False,
        description="Train, then draw. What is finished is kept: the same command resumes.")
    add = parser.add_argument
    add("figures", nargs="+", metavar="FIGURE", help="ids that `lintransformer list` shows, such as fig2, or all")
    add("--preset", default="laptop", help="smoke, laptop (default) or paper")
    add("--seeds", metavar="LIST", help="such as 0-5 or 0,2,4; the preset's by default")
    add("--settings", metavar="NAMES", help="only these settings of the figures, such as S1,S2")
    add("--sgdm-rate", type=float, metavar="X", help="learning rate of SGDM in place of the setting's own")
    add("--adam-rate", type=float, metavar="X", help="learning rate of Adam in place of the setting's own")
    add("--steps", type=int, metavar="N", help="training iterations; the preset's by default")
    add("-j", "--jobs", type=int, metavar="N", help="worker processes (default: 2); same numbers for any")
    add("--out", type=path, metavar="FOLDER", help="results folder (default: results/PRESET...)")
    add("--force", action="store_true",
        help="run finished cells again; take over a folder of another configuration, removing its figures")
    add("--dry-run", action="store_true", help="list the cells, why each would run, the minutes")
    add("--formats", default="png,pdf", metavar="LIST", help="of pictures: png, pdf, svg (default: png,pdf)")
    add("--timeout", type=float, metavar="SECONDS", help="for each cell; what it has then is kept, marked")
    add("-q", "--quiet", action="store_true", help="print nothing but problems")
    parser.set_defaults(execute=execute)


def execute(args) -> int:
    """Run the command and return its exit code."""
    from lintransformer.paper.environment import available_cores
    from lintransformer.paper.figures import check_formats, find_figures, ready_to_draw
    from lintransformer.paper.store import Store
    figures, options = find_figures(args.figures), read_options(args)
    formats = check_formats(args.formats.split(","))
    jobs = check_positive_integer("-j", min(2, available_cores()) if args.jobs is None else args.jobs)
    if jobs > (most := max(JOBS_FOR_EACH_CORE * available_cores(), JOBS_ANYWHERE)):
        raise InputError(f"-j must be at most {most} here, not {jobs}")
    if args.timeout is not None and check_finite_positive("--timeout", args.timeout) > LONGEST_TIMEOUT:
        raise InputError(f"--timeout must be at most {LONGEST_TIMEOUT:g} seconds, not {args.timeout:g}")
    ready_to_draw()
    store = Store(Path("results") / options.folder_name if args.out is None else args.out)
    cells = [cell for figure in figures for cell in figure.cells(options)]
    if args.dry_run:
        return dry_run(store, cells, options, jobs, args.force)
    try:
        with terminate_as_interrupt(), store.locked():
            return run(store, figures, cells, options, formats, jobs, args)
    except KeyboardInterrupt:
        problem(f"interrupted; what was finished is stored; resume with: {resume_command()}")
        return 130


def read_options(args):
    """Return the `Options` of the arguments."""
    from lintransformer.paper.options import Options, parse_seeds
    rates = {"sgdm": args.sgdm_rate, "adam": args.adam_rate}
    return Options(preset=args.preset, seeds=None if args.seeds is None else parse_seeds(args.seeds),
                   settings=None if args.settings is None else tuple(dict.fromkeys(args.settings.split(","))),
                   rates={name: rate for name, rate in rates.items() if rate is not None}, steps=args.steps)


def run(store, figures, cells, options, formats, jobs, args) -> int:
    """Compute, draw, and keep the manifest; return the exit code."""
    from lintransformer.paper.figures import draw_figure, write_drawing
    from lintransformer.paper.manifest import Manifest
    from lintransformer.paper.runs import plan, run_cells
    start = time.perf_counter()
    manifest = Manifest(store, options, [figure.id for figure in figures], jobs, args.force)
    planned = plan(store, cells, args.force)
    for item in planned:
        if item.state.status == "damaged":
            problem(f"{item.cell.label} ({store.folder(item.cell)}): {item.state.reason}: run again")
    if manifest.problem is not None:
        problem(f"{store.root}: {manifest.problem}: written anew")
    manifest.begin(sum(item.run for item in planned))
    with progress_bar(planned, quiet=args.quiet) as progress:
        states = run_cells(store, planned, jobs=jobs, timeout=args.timeout, progress=progress)
    drawn = {}
    for figure in figures:
        try:
            drawing = draw_figure(figure, store.load, options)
            drawn[figure.id] = write_drawing(store.root / "figures", figure, drawing, formats)
        except InputError:                       # a disk that is full
            raise
        except Exception as error:               # one figure's failure does not end the others
            problem(f"{figure.id}: cannot be drawn: {type(error).__name__}: {error}")
    written = [path for paths in drawn.values() for path in paths]
    unfinished = [item.cell for item in planned if states[item.cell.key].status != "done"]
    for cell in unfinished:
        state = states[cell.key]
        problem(f"{cell.label} ({store.folder(cell)}): {state.status}"
                + (f": {state.reason}" if state.reason != state.status else ""))
    code = 3 if unfinished or len(drawn) < len(figures) else 0
    manifest.end(code, {key: state.status for key, state in states.items()}, drawn,
                 [path.relative_to(store.root).as_posix() for path in written])
    if not args.quiet:
        ran = sum(item.run for item in planned)
        with reader_may_leave():
            print(f"{len(planned)} cells: {ran} run, {len(planned) - ran} kept, {len(unfinished)} not done; "
                  f"{time.perf_counter() - start:.1f} s")
            print("\n".join(map(printable, written)))
    return code


def dry_run(store, cells, options, jobs, force) -> int:
    """Print what `run` would do; touch nothing."""
    from lintransformer.cli_list import print_table
    from lintransformer.paper.manifest import Manifest
    from lintransformer.paper.runs import plan
    store.check_usable()
    Manifest(store, options, [], jobs, force)
    planned = plan(store, cells, force)
    print_table([(item.cell.key, item.cell.label, "run" if item.run else "keep", item.state.reason,
                  f"{item.cell.seconds / 60:.1f} min") for item in planned])
    seconds = [item.cell.seconds for item in planned if item.run]
    minutes = max(sum(seconds) / min(jobs, len(seconds)), max(seconds)) / 60 if seconds else 0.0
    print(f"{printable(store.root)}: {len(seconds)} of {len(planned)} cells would run, "
          f"about {minutes:.1f} minutes with -j {jobs}")
    return 0


@contextlib.contextmanager
def progress_bar(planned, quiet):
    """Yield ``progress(cell, fraction)``: a bar of estimated work on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda cell, fraction: None
        return
    from tqdm import tqdm
    done = {item.cell.key: 0.0 for item in planned if item.run}
    total = sum(item.cell.seconds for item in planned if item.run)
    layout = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}  {postfix}"
    with tqdm(total=total or 1.0, file=sys.stderr, bar_format=layout, leave=False) as bar:
        def progress(cell, fraction):
            bar.update(max(fraction - done[cell.key], 0.0) * cell.seconds)
            done[cell.key] = max(fraction, done[cell.key])
            finished = sum(value == 1.0 for value in done.values())
            bar.set_postfix_str(f"{finished}/{len(done)} cells, {cell.label}", refresh=False)
        yield progress


@contextlib.contextmanager
def terminate_as_interrupt():
    """Let SIGTERM end the run as Ctrl-C does: workers stopped, the resuming command printed."""
    if threading.current_thread() is not threading.main_thread():
        yield                                      # only the main thread may set handlers
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def resume_command() -> str:
    """Return the command as it was typed: with --force it starts again, as what is stored may be older."""
    from lintransformer.paper.report_text import shell_word
    program, *arguments = sys.argv
    called = [sys.executable, "-m", "lintransformer"] if Path(program).name == "__main__.py" else [program]
    return " ".join(map(shell_word, [*called, *arguments]))
