"""What a reader may choose for a run, and how a results folder is named after it."""
from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from lintransformer.checks import InputError, check_choice, check_finite_positive, check_positive_integer
from lintransformer.paper.cells import canonical
from lintransformer.paper.settings import PRESETS, SETTINGS, Preset

OPTIMIZERS = {"sgdm": "SGDM", "adam": "Adam"}        # name in options and configurations -> name in figures
LONGEST_NAME = 60                                     # of a results folder; longer ones end in a hash
# Of a run; our choice. The paper's rates lie between 0.005 and 5; beyond these, losses leave what can be drawn.
SMALLEST_RATE, LARGEST_RATE = 1e-12, 1e4
# A run holds in memory two numbers of every iteration, and its parameters at every 250th: 1.2 GB with the largest
# setting (6,400 parameters), 0.3 GB with the others. (Our choice; the paper makes 10,000.)
LARGEST_STEPS = 10_000_000
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Options:
    """Preset and deviations from it: everything that decides the numbers of a figure.

    Parameters
    ----------
    preset : str
        A name in `PRESETS`.
    seeds : tuple of int, optional
        Seeds of the training runs; the preset's if None.
    settings : tuple of str, optional
        Show only these of a figure's settings; all if None.
    rates : dict
        Learning rate by optimizer ("sgdm", "adam") in place of the setting's own.
    steps : int, optional
        Training iterations; the preset's if None.

    Raises
    ------
    InputError
        If a value is unknown or out of range.
    """
    preset: str = "laptop"
    seeds: tuple[int, ...] | None = None
    settings: tuple[str, ...] | None = None
    rates: dict = field(default_factory=dict)
    steps: int | None = None

    def __post_init__(self):
        check_choice("preset", self.preset, PRESETS)
        for name in self.settings or ():
            check_choice("setting", name, SETTINGS)
        for name, rate in self.rates.items():
            what = f"learning rate of {check_choice('optimizer', name, OPTIMIZERS)}"
            if not SMALLEST_RATE <= check_finite_positive(what, rate) <= LARGEST_RATE:
                raise InputError(f"{what} must lie in [{SMALLEST_RATE:g}, {LARGEST_RATE:g}], not {rate!r}")
        if self.steps is not None and check_positive_integer("steps", self.steps) > LARGEST_STEPS:
            raise InputError(f"steps must be at most {LARGEST_STEPS}, as a run is held in memory, not {self.steps}")

    @property
    def numbers(self) -> Preset:
        """The preset's numbers."""
        return PRESETS[self.preset]

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """The seeds that are run."""
        return tuple(self.numbers.seeds if self.seeds is None else self.seeds)

    def seeds_of(self, setting: str) -> tuple[int, ...]:
        """The seeds that are run of one setting: fewer where a run is long."""
        return self.training_seeds[:math.ceil(len(self.training_seeds) / SETTINGS[setting].one_seed_in)]

    @property
    def training_steps(self) -> int:
        """The iterations of a training run."""
        return self.numbers.steps if self.steps is None else self.steps

    def chosen(self, figure: str, settings) -> tuple[str, ...]:
        """Return those of a figure's settings that are asked for.

        Raises
        ------
        InputError
            If none is left.
        """
        chosen = tuple(name for name in settings if self.settings is None or name in self.settings)
        if not chosen:
            raise InputError(f"{figure} shows the settings {', '.join(settings)}; "
                             f"--settings {','.join(self.settings)} leaves none of them")
        return chosen

    @property
    def configuration(self) -> dict:
        """What a results folder must agree on, in plain JSON."""
        return {"preset": self.preset, "seeds": list(self.training_seeds), "steps": self.training_steps,
                "settings": None if self.settings is None else sorted(self.settings),
                "rates": dict(sorted(self.rates.items()))}

    @property
    def words(self) -> list[str]:
        """The options on the command line that give this configuration, however they were typed."""
        found = ["--preset", self.preset]
        if self.training_seeds != tuple(self.numbers.seeds):
            found += ["--seeds", ",".join(map(str, self.training_seeds))]
        if self.settings is not None:
            found += ["--settings", ",".join(sorted(self.settings))]
        for name, rate in sorted(self.rates.items()):
            found += [f"--{name}-rate", exact(rate)]
        if self.training_steps != self.numbers.steps:
            found += ["--steps", str(self.training_steps)]
        return found

    @property
    def folder_name(self) -> str:
        """The preset, followed by what differs from it: ``laptop-seeds0,1-sgdm0.02``."""
        parts = [self.preset]
        if self.training_seeds != tuple(self.numbers.seeds):
            parts.append("seeds" + ",".join(map(str, self.training_seeds)))
        if self.settings is not None:
            parts.append("+".join(sorted(self.settings)))
        parts += [f"{name}{exact(rate)}" for name, rate in sorted(self.rates.items())]
        if self.training_steps != self.numbers.steps:
            parts.append(f"steps{self.training_steps}")
        name = "-".join(parts)
        digest = hashlib.sha256(canonical(self.configuration).encode()).hexdigest()[:8]
        return name if len(name) <= LONGEST_NAME else f"{self.preset}-{digest}"


def exact(rate: float) -> str:
    """Return a rate as people write it, with as many digits as give the same number again."""
    short = f"{rate:.15g}"
    return short if float(short) == rate else repr(rate)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in ``"0-5"``, ``"0,2,4"`` or ``"0-2,7"``, sorted, each once.

    Raises
    ------
    InputError
        If the text is anything else, or more than 1000 seeds.
    """
    seeds = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdecimal() and len(first) < 10
                and (not dash or last.isascii() and last.isdecimal() and len(last) < 10)):
            raise InputError(f"seeds {text!r}: allowed are numbers and ranges, such as 0-5 or 0,2,4")
        last = int(last) if dash else int(first)
        if not 0 <= last - int(first) < MOST_SEEDS:
            raise InputError(f"seeds {text!r}: a range goes up and holds at most {MOST_SEEDS} seeds")
        seeds.update(range(int(first), last + 1))
        if len(seeds) > MOST_SEEDS:
            raise InputError(f"seeds {text!r}: allowed are at most {MOST_SEEDS}")
    return tuple(sorted(seeds))
