"""Scoring of transcripts alone: files of any toolkit, without audio and without a config."""

from __future__ import annotations

from pathlib import Path

from audiorl.config.decoding import ScoreConfig
from audiorl.data.transcripts import read_keyword_lists, read_transcripts
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.score.asr import POOLED, SetScore, SystemScore, compare_sets, labels, summarize
from audiorl.score.hypotheses import check_ids
from audiorl.score.scored import read_keywords, score_utterance
from audiorl.text.normalise import normalizer

Files = list[tuple[Path, str]]  # with the formats that were found


def score_files(
    ref: Path, hyps: list[Path], keywords: Path | None, cfg: ScoreConfig, form: str = ""
) -> tuple[list[SystemScore], Files]:
    """Score files of hypotheses against one of references; the later are compared with the first.

    `keywords`: a list for all utterances, or one for each. Raises UserError when a file cannot be
    read, or has other utterances than the references.
    """
    references = read_transcripts(ref, "ref", form)
    ids = list(references.texts)
    lists = read_keyword_lists(keywords, ids) if keywords else references.keywords
    utterances = [
        Utterance(name, "", text, "", keywords=lists.get(name, ()))
        for name, text in references.texts.items()
    ]
    if not any(map(normalizer(cfg.normalizer), references.texts.values())):
        raise UserError(f"{ref} has no words that the normalizer {cfg.normalizer} leaves.")
    systems: list[SystemScore] = []
    files = [(ref, references.form)]
    for path, label in zip(hyps, labels(hyps), strict=True):
        read = read_transcripts(path, "hyp", form)
        if "lines" in {read.form, references.form} and read.form != references.form:
            raise UserError(
                f"{ref} has the format {references.form}, {path} {read.form}; both need ids, "
                "or both a text a line (--format tells the format if it was not found)."
            )
        check_ids(path, read.texts, ids, ref, "add what is missing")
        files.append((path, read.form))
        score = _score(path.name, utterances, read.texts, cfg)
        against = {POOLED: compare_sets(systems[0].pooled, score, cfg)} if systems else {}
        systems.append(SystemScore(label, path, path.parent, {}, score, cfg, against))
    return systems, files


def _score(
    name: str, utterances: list[Utterance], hypotheses: dict[str, str], cfg: ScoreConfig
) -> SetScore:
    listed = read_keywords(utterances, cfg.normalizer)
    scored = [score_utterance(name, u, hypotheses[u.id], False, listed, cfg) for u in utterances]
    return SetScore(
        name, True, scored, None, 0.0, summarize(name, scored, True, None, 0.0, cfg), {}
    )
