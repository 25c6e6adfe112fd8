"""Every number of the paper's experiments, in one place: Tables 1 and 2, Sections 4.1-4.2, Appendix B, presets.

Where paper and authors' code differ, the authors' code is the default, because the paper's figures come from it;
`source` says what a setting rests on.
"""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Setting:
    """One experiment: data, model, learning rates.

    distribution_config, model_config : keyword arguments of `PromptDistribution` and `build_model`, JSON-able
    learning_rates : {"sgdm": ..., "adam": ...} (Table 2)
    keeps_path : whether the first steps are kept one by one (directional smoothness is measured there)
    one_seed_in : where a run is long, only one in so many of a preset's seeds is run (our choice)
    """

    name: str
    title: str
    source: str
    learning_rates: dict
    distribution: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    clip_threshold: float = 1.0
    batch_size: int = 1000
    keeps_path: bool = False
    one_seed_in: int = 1

    @property
    def distribution_config(self):
        return {"dimension": 5, "context_length": 20, "covariates": "gaussian", **self.distribution}

    @property
    def model_config(self):
        return {"layers": 3, "dimension": self.distribution_config["dimension"], "attention": "linear",
                "parametrization": "block", "heads": 1, "init_scale": 0.05, **self.model}


HEAVY = {"covariates": "gamma", "gamma_shape": 0.1, "gamma_scale": 10.0}


def _rates(sgdm, adam):
    return {"sgdm": sgdm, "adam": adam}


_ALL = [
    Setting("S1", "Setting 1: n = 20, Gaussian", "Table 1", _rates(0.02, 0.005), keeps_path=True),
    Setting("S2", "Setting 2: n = 5, Gaussian", "Table 1", _rates(0.01, 0.02), {"context_length": 5},
            keeps_path=True),
    Setting("S3", "Setting 3: n = 20, heavy-tailed", "Table 1", _rates(0.02, 0.02), HEAVY, keeps_path=True),
    Setting("spherical", "spherical covariates", "Section 4.1; clipping at 0.1: authors' code", _rates(5.0, 0.1),
            {"covariates": "spherical"}, clip_threshold=0.1),
    Setting("heavy-tailed", "heavy-tailed covariates", "Section 4.1, the same as S3", _rates(0.02, 0.02), HEAVY,
            keeps_path=True),
    Setting("L2", "L = 2", "Section 4.2", _rates(0.1, 0.1), model={"layers": 2}),
    Setting("L4", "L = 4", "Section 4.2", _rates(0.05, 0.05), model={"layers": 4}),
    Setting("L6", "L = 6", "Section 4.2", _rates(0.05, 0.05), model={"layers": 6}),
    Setting("L8", "L = 8", "Section 4.2", _rates(0.05, 0.02), model={"layers": 8}),
    Setting("softmax", "softmax attention", "Figure 7; learning rates not printed: those of S1", _rates(0.02, 0.005),
            model={"attention": "softmax"}),
    Setting("separate", "separate query and key matrices", "Figure 8 left; learning rates not printed: those of S1",
            _rates(0.02, 0.005), model={"parametrization": "separate"}),
    Setting("L8d20n60", "L = 8, d = 20, n = 60",
            "Figure 8 right; learning rates not printed: SGDM's of L = 8; Adam's diverges here, a quarter of it",
            _rates(0.05, 0.005), {"dimension": 20, "context_length": 60}, {"layers": 8}, one_seed_in=3),
    Setting("nonlinear", "nonlinear task, authors' sizes", "Appendix B; sizes, batch and init: authors' code",
            _rates(0.05, 0.01), {"response": {"hidden": 10, "seed": 0}},
            {"parametrization": "full", "embedding": 30, "init_scale": 0.1}, batch_size=2000, keeps_path=True,
            one_seed_in=2),
    Setting("nonlinear-paper", "nonlinear task, the paper's sizes", "Appendix B as printed", _rates(0.05, 0.01),
            {"response": {"hidden": 5, "seed": 0}},
            {"parametrization": "full", "embedding": 15, "init_scale": 0.1}, batch_size=2000),
]
SETTINGS = {setting.name: setting for setting in _ALL}


@dataclass(frozen=True)
class Preset:
    """How much of the paper's effort a run spends; B = `batch_size` (None: the setting's own)."""

    name: str
    meaning: str
    steps: int
    seeds: tuple
    record_every: int
    batch_size: int | None
    hessian_every: int
    smoothness_steps: int
    noise_draws: int
    noise_reference: int        # batches in the large batch that stands for the full gradient

    def as_dict(self):
        return asdict(self)


_PRESETS = [
    Preset("smoke", "every figure from tiny runs, to see that it works", steps=60, seeds=(0, 1), record_every=5,
           batch_size=100, hessian_every=20, smoothness_steps=20, noise_draws=200, noise_reference=20),
    Preset("laptop", "true sizes, fewer steps and seeds", steps=3000, seeds=(0, 1, 2), record_every=50,
           batch_size=None, hessian_every=250, smoothness_steps=1000, noise_draws=2000, noise_reference=100),
    Preset("paper", "full fidelity", steps=10_000, seeds=(0, 1, 2, 3, 4, 5), record_every=50, batch_size=None,
           hessian_every=250, smoothness_steps=2000, noise_draws=10_000, noise_reference=100),
]
PRESETS = {preset.name: preset for preset in _PRESETS}
