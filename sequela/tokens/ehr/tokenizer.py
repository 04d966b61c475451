"""The tokenizer of electronic health records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.tokens.ehr.bins import Bins
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.gaps import GapCounts
from sequela.tokens.ehr.grammar import grammar
from sequela.tokens.ehr.grammar.fit import fit_grammar, load_grammar
from sequela.tokens.ehr.scheme import EhrScheme
from sequela.tokens.ehr.settings import IN_VERSION_0_1, TokenSettings
from sequela.tokens.maps.recode import load_same_maps, save_maps
from sequela.tokens.ragged import Ragged
from sequela.tokens.tokenizer import Encoded
from sequela.tokens.vocabulary import FILE, Vocabulary, read_vocabulary, write_vocabulary


@dataclass(frozen=True)
class EhrTokenizer(EhrScheme):
    """A `sequela.tokens.tokenizer.Tokenizer` for EHR events: a scheme and everything that is done with it.

    The scheme is a separate class because encoding, decoding and the grammar need it, and this class needs them.
    """

    kind = "ehr"

    def timed(self, gaps: GapCounts) -> EhrTokenizer:
        """This tokenizer with the durations of training gaps (see `Intervals.timed`)."""
        return replace(self, intervals=self.intervals.timed(gaps))

    def encode(self, events: Events) -> Encoded:
        """Token rows of all patients who have an event with a token (see `sequela.tokens.ehr.encode`)."""
        return encode(self, events)

    def decode(self, rows: Ragged, start: np.ndarray) -> Events:
        """Rows [R] that begin at microseconds `start` [R] -> their events (see `sequela.tokens.ehr.decode`)."""
        return decode(self, rows, start)

    @property
    def longest(self) -> int | None:
        """As many as the model can take."""

    def breaks(self, ids: np.ndarray) -> None:
        """A row may be cut anywhere."""

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` (settings, tokens, intervals, cut points, bin centers) and the code maps."""
        bins = zip(self.bins.codes, self.bins.cuts, self.bins.centers, strict=True)
        body = {  # spelled as in version 0.1
            "edition": self.edition,
            "settings": asdict(self.settings),
            "maps": save_maps(self.maps, folder),
            "interval_means_minutes": self.intervals.means.tolist(),
            "interval_quantiles_minutes": self.intervals.quantiles.tolist(),
            "bins": {
                code: {"cuts": cuts.tolist(), "centres": centers.tolist()} for code, cuts, centers in bins
            },
        }
        write_vocabulary(folder, self.kind, self.vocabulary, body)

    @staticmethod
    def load(folder: Path) -> EhrTokenizer:
        """Read what `save` wrote.

        Raises:
            InputError: if a file is missing, damaged or edited.
        """
        folder = Path(folder)
        body = read_vocabulary(folder)
        if body.get("kind", EhrTokenizer.kind) != EhrTokenizer.kind:
            raise InputError(
                f"{folder} is of the kind {body['kind']!r}, whose tokens are no events: it can be trained and "
                "embedded, but not simulated."
            )
        try:
            edges = tuple(body["settings"]["interval_edges"])
            settings = TokenSettings(**{**IN_VERSION_0_1, **body["settings"], "interval_edges": edges})
            intervals = _intervals(edges, body["interval_means_minutes"], body.get("interval_quantiles_minutes"))
            codes = tuple(body["bins"])
            cuts = [body["bins"][code]["cuts"] for code in codes]
            centers = [body["bins"][code]["centres"] for code in codes]
            bins = Bins(
                codes,
                np.reshape(cuts, (len(codes), settings.quantiles - 1)),
                np.reshape(centers, (len(codes), settings.quantiles)),
            )
            identities, edition = dict(body["maps"]), int(body.get("edition", 1))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / FILE} is damaged ({error}): make the folder again.") from error
        maps = load_same_maps(identities, folder)
        return EhrTokenizer(settings, Vocabulary(tuple(body["tokens"])), intervals, bins, maps, edition)

    def hand_over(self, corpus: Path, rows: Iterable[Ragged], folder: Path) -> None:
        """Write the vocabulary, the code maps and the grammar into a model's folder.

        A corpus made before there were grammars has none, so it is fitted on `rows`, the corpus's training rows.
        """
        self.save(folder)
        known = (Path(corpus) / grammar.FILE).exists()
        (load_grammar(corpus, self) if known else fit_grammar(self, rows)).save(folder)


def _intervals(edges: tuple[int, ...], means: list, quantiles: list | None) -> Intervals:
    """The classes of intervals that a file describes; one of version 0.1 names no quantiles."""
    lower, middle = np.array(edges, np.int64), np.array(means, np.int64)
    if quantiles is None:
        return Intervals.constant(lower, middle)
    return Intervals(lower, middle, np.array(quantiles, np.int64).reshape(len(lower), -1))
