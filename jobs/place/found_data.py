"""The manifests of a pretraining run as the launcher sees them: one, or those of the sources of a mixture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs.place.catalogue import Catalogue, DataSource, environment_catalogue, find_data
from vidmae.footage.manifest import Manifest, ManifestError, Summary, decoder_problem, read_summary
from vidmae.mixtures.mixture import Stock, ages_for, sources_of, stocks
from vidmae.mixtures.mixture_order import turns_per_epoch
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError


@dataclass(frozen=True)
class FoundData:
    """A data set that was found, and the totals of its manifest."""

    source: DataSource
    summary: Summary

    @staticmethod
    def joined(found: Sequence[FoundData]) -> FoundData:
        """All of a mixture: the names, the totals, and a content that says which manifests these are, and in which order.

        The cost of a clip is that of the source whose clips cost most, where all were measured.
        """
        summaries = [one.summary for one in found]
        videos, costs = sum(s.videos for s in summaries), [s.clip_cost for s in summaries if s.clip_cost]
        lengths_s = np.concatenate([np.repeat(s.percentiles_s, 1 + 1000 * s.videos // max(1, videos)) for s in summaries])
        summary = replace(
            summaries[0], videos=videos, seconds=sum(s.seconds for s in summaries), bytes=sum(s.bytes for s in summaries),
            unreadable=sum(s.unreadable for s in summaries), verified=all(s.verified for s in summaries), fraction=None,
            clip_cost=max(costs, key=lambda cost: max(cost["ms_per_clip"].values())) if len(costs) == len(found) else None,
            percentiles_s=np.percentile(lengths_s, range(101)).round(3).tolist(),
            csv_sha256=_sha256(s.csv_sha256 for s in summaries), content_sha256=_sha256(s.content_sha256 for s in summaries))
        return FoundData(DataSource("+".join(one.source.name for one in found), Path(), "data.sources"), summary)


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def find_sources_of(config: PretrainConfig, given: str | None, catalogue: Catalogue) -> list[FoundData]:
    """The manifests of the sources of a mixture, and their totals.

    Args:
        config: With data.sources.
        given: Of --data, which cannot be used beside it.
        catalogue: Of the cluster profile.
    Raises:
        ConfigError: One is not known, is damaged, or stands for the same videos as another.
    """
    if given is not None:
        raise ConfigError(f"--data {given} and data.sources are both set, and a run has the data of one of them; leave out "
                          "--data, or --set 'data.sources=[]'")
    found = []
    for source in config.data.sources:
        try:
            data = find_data(source.manifest or None, source.name, catalogue | environment_catalogue())
            found.append(FoundData(replace(data, name=source.name), read_summary(data.manifest)))
        except (ConfigError, ManifestError) as error:
            raise ConfigError(f"data.sources: {source.name}: {error}") from error
    contents = [one.summary.content_sha256 for one in found]
    for i, one in enumerate(found):
        if one.summary.content_sha256 in contents[:i]:
            twin = found[contents.index(one.summary.content_sha256)].source.name
            raise ConfigError(f"data.sources: {twin} and {one.source.name} are the same videos; leave one out, and give the "
                              "other a weight")
    return found


def stock_or_problem(config: PretrainConfig, found: Sequence[FoundData]) -> tuple[list[Stock], str]:
    """What each source has to show, or why that cannot be known."""
    try:
        return stocks(config.data, [one.summary for one in found], num_frames=config.in_window, seed=config.seed), ""
    except ManifestError as error:
        return [], str(error)


def turns_of(config: PretrainConfig, shown: Sequence[Stock]) -> list[int]:
    """Visits of each source in an epoch; empty where each video of one manifest has one.

    Raises:
        ValueError: See `turns_per_epoch`.
    """
    return [] if config.data.is_plain else [turns_per_epoch(stock, config.data) for stock in shown]


def data_problems(config: PretrainConfig, origins: Mapping[str, str], found: Sequence[FoundData],
                  shown: Sequence[Stock]) -> list[str]:
    """Why the data cannot be trained on as the settings say, one message each."""
    wrong = [f"{problem} [data.decoder from {origins['data.decoder']}]" for one in found
             if (problem := decoder_problem(one.source.manifest, one.summary, config.data.decoder))]
    if not shown:
        return [*wrong, stock_or_problem(config, found)[1]]
    for source in sources_of(config.data) if config.data.by_age else ():
        try:
            if Path(source.manifest).is_file():  # a fraction may not be written yet; then the whole was looked at
                ages_for(source.name, Manifest.read(Path(source.manifest)), config.data)
        except ManifestError as error:
            wrong.append(str(error))
    return wrong
