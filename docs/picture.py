"""The picture in the README (`make picture`): a patient's history, simulated futures, and the risk they add up to.

Reads the output folder of `sequela demo`. A rule picks the patient: of the held-out patients with at least `DIAGNOSES`
diagnoses in the last ten years, the one whose predicted risk is nearest to `RISK`.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import polars as pl

TASK = "death_5y"
FUTURES = 20
RISK, DIAGNOSES = 0.25, 6
YEAR = pl.duration(days=365.25)
PAST, HORIZON = 10.0, 5.0  # years shown before and after the prediction time

HEART = ("MYOCARDIAL_INFARCTION", "STROKE", "HEART_FAILURE")
KINDS = {  # kind -> what the legend says; colors are in STYLE
    "measured": "measurement",
    "diagnosis": "diagnosis",
    "heart": "heart attack, stroke, heart failure",
    "death": "death",
}

WIDTH, HEIGHT = 984, 440
LEFT, NOW, START, RIGHT = (
    36.0,
    376.0,
    436.0,
    716.0,
)  # x of ten years ago, of now on either side of the fan, of 5 years on
TOP, BOTTOM = 82.0, 338.0  # y of the first and the last future
MIDDLE = (TOP + BOTTOM) / 2
BAR = 776.0

# In light and in dark mode. Okabe and Ito 2008: told apart with every kind of color vision.
COLORS = {
    "card": ("#ffffff", "#151b23"),
    "edge": ("#d8dde3", "#3d444d"),
    "ink": ("#1f2328", "#f0f6fc"),
    "soft": ("#59636e", "#9ea7b3"),
    "line": ("#b4bec9", "#525c68"),
    "alive": ("#0072b2", "#56b4e9"),
    "dead": ("#d55e00", "#ff8a3d"),
    "diagnosis": ("#7d8894", "#8b96a3"),
    "heart": ("#cc79a7", "#e79fc6"),
}
SHAPES = """
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}.head{font-size:15px;font-weight:600}
.small{font-size:11.5px}.risk{font-size:38px;font-weight:700}.now{stroke-dasharray:3 4}.past{stroke-width:2}
.future{fill:none;stroke-width:1.5;stroke-opacity:.75}.measured{fill-opacity:.55}
.death{stroke-width:2.6;stroke-linecap:round}.empty{fill:none}.fill{fill-opacity:.85}.whisker{stroke-width:2}
"""
PAINT = """
text,.measured{fill:soft}.head{fill:ink}.risk,.fill{fill:dead}.card{fill:card;stroke:edge}.rule{stroke:edge}
.now,.past,.whisker{stroke:ink}.alive{stroke:alive}.dead,.death{stroke:dead}.leader,.empty{stroke:line}
.diagnosis{fill:diagnosis;stroke:card}.heart{fill:heart;stroke:card}
"""


@dataclass(frozen=True)
class Mark:
    """An event: years from the prediction time, its kind (see `KINDS`), and its name."""

    years: float
    kind: str
    name: str


@dataclass(frozen=True)
class Future:
    """One rollout: its events, and the years after which it ended."""

    marks: Sequence[Mark]
    end: float

    @property
    def died(self) -> bool:
        return any(mark.kind == "death" for mark in self.marks)


@dataclass(frozen=True)
class Story:
    """What the picture tells: who it is, what came before, what may come, and the risk with its 95% interval."""

    patient: str
    history: Sequence[Mark]
    futures: Sequence[Future]
    risk: float
    low: float
    high: float


def choose(predictions: pl.DataFrame, events: pl.DataFrame) -> int:
    """The patient of the picture, by the rule at the top of this module; of equals the first by id."""
    asked = events.join(predictions.select("subject_id", "prediction_time"), on="subject_id")
    at = pl.col("prediction_time")
    recent = asked.filter(pl.col("time").is_between(at - YEAR * PAST, at, closed="left"))
    ill = recent.group_by("subject_id").agg(diagnoses=pl.col("code").str.starts_with("DIAGNOSIS//").sum())
    ill = ill.filter(pl.col("diagnoses") >= DIAGNOSES)
    ranked = predictions.join(ill, on="subject_id", how="semi").sort(
        (pl.col("predicted_boolean_probability") - RISK).abs(), "subject_id"
    )
    if ranked.is_empty():
        raise SystemExit("No held-out patient has a history long enough to draw.")
    return ranked["subject_id"][0]


def tell(demo: Path) -> Story:
    """Simulate `FUTURES` futures of the chosen patient with the model of a demo's output folder."""
    import sequela

    events = pl.read_parquet(demo / "meds" / "data" / "held_out" / "*.parquet")
    predictions = pl.read_parquet(demo / "predictions" / TASK / "sequela.parquet")
    patient = pl.col("subject_id") == choose(predictions, events)
    events, questions = events.filter(patient), predictions.filter(patient)
    with sequela.Forecaster.load(demo / "model", rollouts=FUTURES) as forecaster:
        forecasts = forecaster.forecast(events, questions, TASK)
    answer = forecasts.answers.row(0, named=True)
    at = answer["prediction_time"]
    return Story(
        _words(events, at),
        [mark for mark in _marks(_since(events, at)) if mark.years < 0],
        [_future(_since(future, at)) for _, future in sorted(forecasts.events.group_by("rollout"))],
        answer["risk"],
        answer["low"],
        answer["high"],
    )


def draw(story: Story) -> str:
    """The picture as SVG."""
    died = sum(future.died for future in story.futures)
    parts = [
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        _text(LEFT, 32, "What is known", "head"),
        _text(LEFT, 51, story.patient),
        _text(NOW + 14, 32, f"{len(story.futures)} simulated futures", "head"),
        _text(NOW + 14, 51, f"{died} of them end in death within five years"),
        _text(BAR, 32, "The risk they add up to", "head"),
        _text(BAR, 51, "death within five years"),
        *_axis(),
        *_fan(story.futures),
        *_history(story.history),
        *_bar(story),
        *_legend(),
    ]
    words = (
        f"A patient's history, {len(story.futures)} simulated futures of which {died} end in death, and the risk of "
        f"death within five years: {story.risk:.0%}, 95% interval {story.low:.0%} to {story.high:.0%}."
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(words)}">'
    return f"{head}<style>{_style()}</style>{''.join(parts)}</svg>\n"


def _style() -> str:
    light, dark = (re.sub(r"(?<=:)\w+", lambda name, k=k: COLORS[name[0]][k], PAINT) for k in (0, 1))
    return f"{SHAPES}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _since(events: pl.DataFrame, at: object) -> pl.DataFrame:
    """With `years`: how long after `at`."""
    return events.with_columns(
        years=(pl.col("time") - pl.lit(at)).dt.total_microseconds() / (365.25 * 86400e6)
    )


def _marks(events: pl.DataFrame) -> list[Mark]:
    dated = events.filter(pl.col("years").is_not_null()).sort("years", maintain_order=True)
    named = ((years, code, _kind(code)) for years, code in dated.select("years", "code").iter_rows())
    return [Mark(years, kind, _name(code)) for years, code, kind in named if kind]


def _kind(code: str) -> str | None:
    head, _, name = code.partition("//")
    if code == "MEDS_DEATH":
        return "death"
    if head == "DIAGNOSIS":
        return "heart" if name in HEART else "diagnosis"
    return "measured" if head in ("LAB", "VITAL") else None


def _name(code: str) -> str:
    name = code.partition("//")[2].replace("_", " ").lower()
    return {"myocardial infarction": "heart attack", "nafld": "fatty liver", "angina ischemia": "angina"}.get(
        name, name
    )


def _future(events: pl.DataFrame) -> Future:
    marks = [mark for mark in _marks(events) if mark.years <= HORIZON]
    return Future(marks, min(events["years"].max(), HORIZON))


def _words(events: pl.DataFrame, at: object) -> str:
    """Who it is: sex, age, and how much is recorded."""
    sex = {"GENDER//M": "man", "GENDER//F": "woman"}
    who = next((sex[code] for code in events["code"] if code in sex), "person")
    since = _since(events, at)
    born = since.filter(pl.col("code") == "MEDS_BIRTH")["years"][0]
    count = len([mark for mark in _marks(since) if mark.years < 0])
    return f"a {who} of {-born:.0f}, {count} events on record"


def _x(years: float) -> float:
    """Past and future have scales of their own, and no time passes where the futures fan out."""
    if years < 0:
        return NOW + years / PAST * (NOW - LEFT)
    return START + years / HORIZON * (RIGHT - START)


def _fan(futures: Sequence[Future]) -> list[str]:
    """Survivors on top, then those who die, the earliest at the bottom; so deaths fill the same part as the bar."""
    ordered = sorted(futures, key=lambda future: (future.died, -future.end))
    step = (BOTTOM - TOP) / max(len(ordered) - 1, 1)
    lines, marks = [], []
    for number, future in enumerate(ordered):
        y, half = TOP + step * number, (NOW + START) / 2
        path = f"M{NOW} {MIDDLE}C{half} {MIDDLE} {half} {y:.1f} {START} {y:.1f}H{_x(future.end):.1f}"
        lines.append(f'<path class="future {"dead" if future.died else "alive"}" d="{path}"/>')
        by_kind = sorted(
            future.marks, key=lambda mark: list(KINDS).index(mark.kind)
        )  # death is drawn last, on top
        marks += [_sign(_x(mark.years), y, mark.kind) for mark in by_kind]
    return lines + marks


def _history(marks: Sequence[Mark]) -> list[str]:
    """A line of events; diagnoses are named, at heights that keep the names apart."""
    shown = [mark for mark in marks if mark.years >= -PAST]
    parts = [f'<line class="past" x1="{LEFT}" y1="{MIDDLE}" x2="{NOW}" y2="{MIDDLE}"/>']
    parts += [_sign(_x(mark.years), MIDDLE, mark.kind) for mark in shown if mark.kind == "measured"]
    named = [mark for mark in shown if mark.kind != "measured"]
    heights = (-34, 42, -62, 70, -90, 98)
    for number, mark in enumerate(named):
        x, y = _x(mark.years), MIDDLE + heights[number % len(heights)]
        near = y + (5 if y < MIDDLE else -14)
        parts.append(f'<line class="leader" x1="{x:.1f}" y1="{MIDDLE}" x2="{x:.1f}" y2="{near:.1f}"/>')
        parts.append(
            _text(x, y, mark.name, "small", "end" if x > NOW - 60 else "start" if x < LEFT + 50 else "middle")
        )
    return parts + [_sign(_x(mark.years), MIDDLE, mark.kind) for mark in named]


def _bar(story: Story) -> list[str]:
    """The risk as a filled part of the height of the fan, with its interval."""
    top, bottom = TOP - 6, BOTTOM + 6

    def height(risk: float) -> float:
        return bottom - risk * (bottom - top)

    def bar(style: str, low: float, high: float, rest: str = "") -> str:
        sides = f'x="{BAR}" y="{height(high):.1f}" width="22" height="{height(low) - height(high):.1f}"'
        return f'<rect class="{style}" {sides}{rest}/>'

    middle, words = BAR + 11, min(max(height(story.risk), top + 36), bottom - 44)
    ends = f'x1="{middle}" y1="{height(story.low):.1f}" x2="{middle}" y2="{height(story.high):.1f}"'
    return [
        bar("fill", 0, story.risk),
        bar("empty", 0, 1, ' rx="2"'),
        f'<line class="whisker" {ends}/>',
        _text(BAR - 8, top + 10, "100%", "small", "end"),
        _text(BAR - 8, bottom, "0%", "small", "end"),
        _text(BAR + 36, words, f"{story.risk:.0%}", "risk"),
        _text(BAR + 36, words + 20, f"{story.low:.0%} to {story.high:.0%}"),
        _text(BAR + 36, words + 38, "95% sampling interval", "small"),
    ]


def _axis() -> list[str]:
    y = BOTTOM + 26
    ticks = {-10: "10 years ago", -5: "5 years ago", 1: "in 1 year", 3: "3 years", 5: "5 years"}
    parts = [
        _text(_x(years), y + 17, words, "small", "start" if years == -10 else "middle")
        for years, words in ticks.items()
    ]
    parts.append(_text(NOW, y + 17, "now", "small", "middle"))
    parts.append(f'<line class="now" x1="{NOW}" y1="{TOP - 14}" x2="{NOW}" y2="{y}"/>')
    return parts + [
        f'<line class="rule" x1="{a}" y1="{y}" x2="{b}" y2="{y}"/>' for a, b in ((LEFT, NOW), (START, RIGHT))
    ]


def _legend() -> list[str]:
    parts, x, y = [], LEFT, HEIGHT - 22
    for kind, words in KINDS.items():
        parts += [_sign(x + 5, y - 4, kind), _text(x + 17, y, words, "small")]
        x += 40 + 6.2 * len(words)
    return parts


def _sign(x: float, y: float, kind: str) -> str:
    """A mark; each kind has a shape of its own as well as a color."""
    if kind == "death":
        return f'<path class="death" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    if kind == "heart":
        return f'<path class="heart" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{2 if kind == "measured" else 4.5}"/>'


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    Path("docs/picture.svg").write_text(draw(tell(Path(sys.argv[1]))))
