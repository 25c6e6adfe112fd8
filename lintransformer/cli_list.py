"""``lintransformer list`` and ``lintransformer info``."""
from __future__ import annotations


def add_list(commands):
    """Add the command ``list``."""
    parser = commands.add_parser("list", help="figures, presets and settings to run", allow_abbrev=False)
    parser.set_defaults(execute=execute_list)


def add_info(commands):
    """Add the command ``info``."""
    parser = commands.add_parser("info", help="versions, machine and BLAS kernel", allow_abbrev=False)
    parser.set_defaults(execute=execute_info)


def execute_list(args) -> int:
    """Print what can be run."""
    from lintransformer.paper.figures import FIGURES
    from lintransformer.paper.settings import PRESETS, SETTINGS
    print("Figures: lintransformer run ID")
    print_table([(figure.id, figure.title, f"settings {', '.join(figure.settings)}")
                 for figure in FIGURES.values()])
    print("\nPresets: --preset NAME")
    print_table([(name, f"{preset.steps} iterations", f"seeds {', '.join(map(str, preset.seeds))}")
                 for name, preset in PRESETS.items()])
    print("\nSettings: --settings NAME,NAME")
    print_table([(name, setting.title, rates(setting))
                 for name, setting in SETTINGS.items()])
    return 0


def execute_info(args) -> int:
    """Print versions, machine and BLAS."""
    from lintransformer.paper.environment import machine, versions
    found = machine()
    kernels = [("blas", kernel) for kernel in found.pop("blas")]
    print_table([*((name, version or "not installed") for name, version in versions().items()),
                 *((name, str(value)) for name, value in found.items()), *kernels])
    return 0


def rates(setting) -> str:
    """Return a setting's learning rates in one line."""
    return "rates: " + ", ".join(f"{name} {rate:g}" for name, rate in setting.learning_rates.items())


def print_table(rows):
    """Print rows of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
