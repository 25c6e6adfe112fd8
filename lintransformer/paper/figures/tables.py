"""Tables: the files a table is stored as, and Table 1 (with the rates of Table 2) from the settings."""
from __future__ import annotations

import json
import math

from lintransformer.paper.figures.base import Drawing, Figure, csv_text
from lintransformer.paper.options import Options
from lintransformer.paper.settings import SETTINGS
from lintransformer.paper.store import plain


def table_files(id: str, title: str, rows: list, caption: dict) -> dict[str, str]:
    """Return a table as files, by path in the results folder: CSV, JSON (with its caption), Markdown."""
    record = {"id": id, "title": title, **caption, "rows": rows}
    return {
        f"tables/{id}.csv": csv_text(rows), f"tables/{id}.json": json.dumps(plain(record), indent=1) + "\n",
        f"tables/{id}.md": f"# {title}\n\n{markdown(rows)}"
    }


def markdown(rows: list) -> str:
    """Return rows (dicts of equal keys) as a Markdown table; three digits, None and NaN as a dash."""
    if not rows:
        return "(no rows)\n"
    lines = [
        list(rows[0]), ["---"] * len(rows[0]), *([_short(value) for value in row.values()] for row in rows)
    ]
    return "".join(
        "| " + " | ".join(str(text).replace("|", "\\|") for text in line) + " |\n" for line in lines)


def _short(value) -> str:
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


COVARIATES = {
    "gaussian": "N(0, I_d)", "spherical": "Unif(S^(d-1))",
    "gamma": "sqrt(Gamma({gamma_shape:g}, {gamma_scale:g})) Unif(S^(d-1))"
}


def setting_row(name: str) -> dict:
    """Return everything that defines a setting, in a row."""
    setting = SETTINGS[name]
    data, model = setting.distribution_config, setting.model_config
    response = f"<w*, MLP(x)>, {data['response']['hidden']} hidden" if data.get("response") else "<w*, x>"
    return {
        "setting": name, "title": setting.title, "n": data["context_length"], "d": data["dimension"],
        "x": COVARIATES[data["covariates"]].format(**data), "w*": "N(0, I_d)", "y": response,
        "L": model["layers"], "attention": model["attention"], "parametrization": model["parametrization"],
        "embedding": model.get("embedding"), "init": model["init_scale"], "batch": setting.batch_size,
        "clipping": setting.clip_threshold, "rate SGDM": setting.learning_rates["sgdm"],
        "rate Adam": setting.learning_rates["adam"], "source": setting.source
    }


def draw_table1(get, options: Options) -> Drawing:
    """Return Table 1, and the other settings: no picture, nothing is measured."""
    rows = [setting_row(name) for name in SETTINGS if options.settings is None or name in options.settings]
    caption = {
        "shown": "the numbers of every setting, as the runs use them; batch, steps and seeds are the "
        "preset's where it gives them", "preset": options.numbers.as_dict(),
        "configuration": options.configuration
    }
    return Drawing(None, rows, caption, table_files("table1", "The settings", rows, caption))


FIGURES = (Figure("table1", "The settings",
                  "Settings 1, 2, 3: context length, law of the covariates, law of w*.", lambda options: [],
                  draw_table1, tuple(SETTINGS)),)
